package wire_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/wire"
)

func TestPublish(t *testing.T) {
	for _, c := range []struct {
		in, payload string
		qos         byte
		code        fault.Code // "" for none
	}{
		{`{"topic":"t","payload":{"a":1}}`, `{"a":1}`, 1, ""},
		{`{"topic":"t","payload": [1,  2] ,"qos":2}`, `[1,  2]`, 2, ""},
		{`{"topic":"t","payload":null,"qos":0}`, `null`, 0, ""},
		{`{"topic":"t","text":"a\u0000\nb"}`, "a\x00\nb", 1, ""},
		{`{"topic":"t","text":""}`, "", 1, ""},
		{`{"topic":"t","base64":"//4A"}`, "\xff\xfe\x00", 1, ""},
		{`{"topic":"t","base64":""}`, "", 1, ""},
		{`{"topic":"t"}`, "", 0, fault.InvalidPayload},
		{`{"topic":"t","text":null}`, "", 0, fault.InvalidPayload},
		{`{"topic":"t","text":"a","payload":1}`, "", 0, fault.InvalidPayload},
		{`{"topic":"t","text":"a","base64":""}`, "", 0, fault.InvalidPayload},
		{`{"topic":"t","base64":"//4"}`, "", 0, fault.InvalidPayload},
		{`{"topic":"t","base64":"__4A"}`, "", 0, fault.InvalidPayload},
		{`{"topic":"t","base64":"//5B"}`, "\xff\xfe\x41", 1, ""},
		{`{"topic":"t","base64":"/x=="}`, "", 0, fault.InvalidPayload}, // bits that mean nothing
		{`{"topic":"t","text":"a","qos":3}`, "", 0, fault.BadRequest},
		{`{"topic":"t","text":"a","qos":-1}`, "", 0, fault.BadRequest},
		{`{"topic":"t","text":"a","qos":"1"}`, "", 0, fault.InvalidPayload},
		{`{"topic":"t","text":"a","qos":1.5}`, "", 0, fault.InvalidPayload},
		{`{"topic":"t","text":"a","retian":true}`, "", 0, fault.InvalidPayload},
		{`{"topic":"t","text":"a","retain":"yes"}`, "", 0, fault.InvalidPayload},
		{`{"topic":"t","text":"a"} {}`, "", 0, fault.InvalidPayload},
		{`{"topic":"t","text":"a"`, "", 0, fault.InvalidPayload},
		{"{\"topic\":\"t\",\"text\":\"\xff\"}", "", 0, fault.InvalidPayload},
		{`[]`, "", 0, fault.InvalidPayload},
		{``, "", 0, fault.InvalidPayload},
	} {
		var p wire.Publish
		err := wire.Decode([]byte(c.in), &p)
		var payload []byte
		if err == nil {
			payload, err = p.Bytes()
		}
		var qos byte
		if err == nil {
			level, e := p.Level()
			qos, err = byte(level), e
		}
		switch {
		case c.code != "" && !fault.Is(err, c.code):
			t.Errorf("%s: %v, want %s", c.in, err, c.code)
		case c.code == "" && (err != nil || string(payload) != c.payload || qos != c.qos):
			t.Errorf("%s: %q qos %d, %v", c.in, payload, qos, err)
		}
	}
}

// The fault names the member in the client's terms.
func TestDecodeComplaints(t *testing.T) {
	for in, want := range map[string]string{
		`{"retian":1}`:          `"retian" is not known here`,
		`{"topic":1}`:           `"topic" has the wrong type`,
		`{`:                     "does not parse",
		`{} x`:                  "goes on behind its value",
		"\"\xff":                "not valid UTF-8",
		`{"` + long + `":1}`:    "is not known here",
		`{"qos":99999999999e9}`: `"qos" has the wrong type`,
	} {
		var p wire.Publish
		err := wire.Decode([]byte(in), &p)
		if detail := fault.From(err).Detail; !strings.Contains(detail, want) || len(detail) > 200 {
			t.Errorf("%.40s: %q, want %q", in, detail, want)
		}
	}
}

var long = strings.Repeat("é", 100_000)

func TestNumber(t *testing.T) {
	for _, c := range []struct {
		in string
		ok bool
	}{
		{"1", true}, {"-0", true}, {"1.50", true}, {"1e400", true}, {"123456789012345678901234567890", true},
		{`"1"`, false}, {"true", false}, {"{}", false}, {"[1]", false}, {strings.Repeat("1", 65), false},
	} {
		var v struct {
			ID *wire.Number `json:"id"`
		}
		err := wire.Decode([]byte(`{"id":`+c.in+`}`), &v)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.in, err)
		}
		if err == nil && string(wire.AppendJSON(nil, v)) != `{"id":`+c.in+`}` {
			t.Errorf("%s comes back as %s", c.in, wire.AppendJSON(nil, v))
		}
	}
	var none struct {
		ID *wire.Number `json:"id,omitempty"`
	}
	if err := wire.Decode([]byte(`{"id":null}`), &none); err != nil || none.ID != nil {
		t.Errorf("null is %v, %v", none.ID, err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"topic":"t","payload":{"a":1},"qos":2,"retain":true}`, `{"topic":"t","text":"a"}`, `{"topic":"t","base64":"//4A"}`,
		`{"topic":"\ud800"}`, `null`, `{}`, `{"payload":`, `{"a":1}`, "\xff", `{"Topic":"a","topic":"b"}`, `{"qos":1e3}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var p wire.Publish
		if err := wire.Decode(data, &p); err != nil {
			if detail := fault.From(err).Detail; !fault.Is(err, fault.InvalidPayload) || len(detail) > 300 || !utf8.ValidString(detail) {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		if !json.Valid(data) || !utf8.Valid(data) {
			t.Fatalf("%q was taken", data)
		}
		payload, err := p.Bytes()
		switch {
		case err != nil && !fault.Is(err, fault.InvalidPayload):
			t.Fatalf("%q: %v", data, err)
		case err == nil && p.Payload != nil && !json.Valid(payload):
			t.Fatalf("%q gave the payload %q", data, payload)
		}
	})
}

// Decoders turn half a surrogate pair into another character without a word.
func TestDecodeRefusesHalfCharacters(t *testing.T) {
	for text, good := range map[string]bool{
		`{"topic":"a","text":"\ud83d\ude00"}`:        true,
		`{"topic":"a","text":"\uD83D\uDE00 \ufffd"}`: true,
		`{"topic":"a","text":"\\ud800"}`:             true, // a backslash and five letters
		`{"topic":"a","text":"\\\ud800"}`:            false,
		`{"topic":"a","text":"\ud800"}`:              false,
		`{"topic":"a","text":"\ud800\ud800"}`:        false,
		`{"topic":"a","text":"\udc00\ud800"}`:        false,
		`{"topic":"\udfff","text":""}`:               false,
		`{"topic":"a","text":"\ud83d x"}`:            false,
	} {
		var p wire.Publish
		if err := wire.Decode([]byte(text), &p); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestDecodeRefusesDoubledMembers(t *testing.T) {
	for text, good := range map[string]bool{
		`{"topic":"a","text":"x"}`:                                  true,
		`{"topic":"a","payload":{"a":1,"a":2,"A":[{"b":1,"b":2}]}}`: true, // the payload is the client's
		`{"topic":"a","topic":"b","text":"x"}`:                      false,
		`{"topic":"a","Topic":"b","text":"x"}`:                      false,
		`{"topic":"a","payload":1,"payload":2}`:                     false,
	} {
		var p wire.Publish
		if err := wire.Decode([]byte(text), &p); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
	var batch struct {
		Messages []wire.Publish `json:"messages"`
	}
	if err := wire.Decode([]byte(`{"messages":[{"topic":"a","text":"x"},{"topic":"a","text":"x"}]}`), &batch); err != nil {
		t.Error(err)
	}
	for _, text := range []string{`{"messages":[{"topic":"a"}],"messages":[]}`, `{"messages":[{"topic":"a"},{"topic":"a","topic":"a"}]}`} {
		if err := wire.Decode([]byte(text), &batch); err == nil {
			t.Error(text)
		}
	}
}

// Deep nesting must be refused before anything recurses into it.
func TestDecodeRefusesDepth(t *testing.T) {
	var v map[string]any
	for _, text := range []string{strings.Repeat("[", 1<<20), strings.Repeat(`{"a":`, 1<<18)} {
		if err := wire.Decode([]byte(text), &v); err == nil {
			t.Error("taken")
		}
	}
	if err := wire.Decode([]byte(`{"a":[[[1]]]}`), &v); err != nil {
		t.Error(err)
	}
}
