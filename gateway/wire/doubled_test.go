package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// aValue draws JSON whose member names often meet.
func aValue(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		kind := rapid.IntRange(0, 5).Draw(t, "kind")
		if depth == 0 {
			kind %= 3
		}
		switch kind {
		case 0:
			return rapid.SampledFrom([]string{"1", "true", "null", "-1.5e3"}).Draw(t, "scalar")
		case 1, 2:
			return rapid.SampledFrom([]string{`""`, `"a"`, `"\""`, `"{\"a\":1,\"a\":1}"`, `"\\"`, `"],}"`}).Draw(t, "string")
		case 3:
			return "[" + strings.Join(rapid.SliceOfN(aValue(depth-1), 0, 4).Draw(t, "items"), " ,") + "]"
		}
		var members []string
		for range rapid.IntRange(0, 5).Draw(t, "members") {
			name := rapid.SampledFrom([]string{"a", "A", "b", "payload", "Payload", "é", "É", `\u0061`, "topic", ""}).Draw(t, "name")
			members = append(members, fmt.Sprintf(`"%s" : %s`, name, aValue(depth-1).Draw(t, "value")))
		}
		return "{" + strings.Join(members, ", ") + "}"
	})
}

// The quick look never passes what the close one refuses.
func TestMayDoubleMissesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(aValue(8).Draw(t, "json"))
		if !json.Valid(text) {
			t.Fatalf("the test draws bad JSON: %s", text)
		}
		if name, twice := doubled(json.NewDecoder(bytes.NewReader(text))); twice && !mayDouble(text) {
			t.Fatalf("%s holds %q twice", text, name)
		}
	})
}

// And it spares ordinary frames the close one.
func TestMayDoubleKnowsOrdinaryFrames(t *testing.T) {
	for _, text := range []string{
		`{"type":"connect","id":1,"token":"x.y.z","batch":true}`,
		`{"type":"subscribe","id":1,"filters":["a",{"filter":"b/#","mode":"latest","interval":250},{"filter":"c"}]}`,
		`{"type":"publish","id":3,"topic":"a","payload":{"a":{"a":{"a":[{"a":1}]}},"a":2},"qos":1,"retain":false}`,
	} {
		if mayDouble([]byte(text)) {
			t.Error(text)
		}
		if n := testing.AllocsPerRun(10, func() { mayDouble([]byte(text)) }); n > 1 { // the conversion
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}
