package wire_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// decoded is a message object as a client reads it.
type decoded struct {
	Type    string          `json:"type"`
	Topic   string          `json:"topic"`
	Payload json.RawMessage `json:"payload"`
	Text    *string         `json:"text"`
	Base64  *string         `json:"base64"`
	QoS     byte            `json:"qos"`
	Retain  bool            `json:"retain"`
	Time    string          `json:"time"`
	Cursor  *string         `json:"cursor"`
}

// oneLine is what embedding does to JSON: line breaks stand only between tokens
// and become spaces.
func oneLine(b []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, b)
}

func checkMessage(t *testing.T, m mqtt.Message, cursor string) {
	t.Helper()
	out := wire.AppendMessage([]byte("before"), m, cursor)
	line, kept := bytes.CutPrefix(out, []byte("before"))
	if !kept {
		t.Fatalf("what stood in front is gone: %q", out)
	}
	if bytes.ContainsAny(line, "\r\n") || !utf8.Valid(line) {
		t.Fatalf("not one line of UTF-8: %q", line)
	}
	var d decoded
	strict := json.NewDecoder(bytes.NewReader(line))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&d); err != nil {
		t.Fatalf("%v: %q", err, line)
	}
	forms := 0
	if d.Payload != nil {
		forms++
		embedded := append(append([]byte(`"payload":`), oneLine(m.Payload)...), `,"qos":`...)
		if !json.Valid(m.Payload) || !bytes.Contains(line, embedded) || !bytes.Equal(d.Payload, bytes.TrimSpace(oneLine(m.Payload))) {
			t.Errorf("payload %q came as %q", m.Payload, d.Payload)
		}
	}
	if d.Text != nil {
		forms++
		if *d.Text != string(m.Payload) {
			t.Errorf("text %q came as %q", m.Payload, *d.Text)
		}
	}
	if d.Base64 != nil {
		forms++
		back, err := base64.StdEncoding.DecodeString(*d.Base64)
		if err != nil || !bytes.Equal(back, m.Payload) || utf8.Valid(m.Payload) {
			t.Errorf("bytes %q came as %q: %v", m.Payload, back, err)
		}
	}
	if forms != 1 {
		t.Errorf("%d of payload, text and base64 in %q", forms, line)
	}
	if d.Type != "message" || d.Topic != strings.ToValidUTF8(string(m.Topic), "\uFFFD") && utf8.ValidString(string(m.Topic)) || d.Retain != m.Retain || d.QoS != byte(m.QoS) {
		t.Errorf("%+v came as %q", m, line)
	}
	if (d.Cursor != nil) != (cursor != "") {
		t.Errorf("the cursor %q came as %q", cursor, line)
	}
}

func FuzzAppendMessage(f *testing.F) {
	for _, payload := range []string{
		"", " ", "null", `{"a":1}`, "{\n\"a\":\r\n1}", "a\nb", "\x00", "\xff", "{\"a\":\"\xff\"}", "\uFEFF{}", "\"\u2028\"", `"\n"`,
		"data: x\n\nevent: end\ndata: {}\n\n", `{"a":1}}`, strings.Repeat("[", 9990) + strings.Repeat("]", 9990),
		strings.Repeat("[", 10000) + strings.Repeat("]", 10000), `"` + strings.Repeat("[", 10000) + `\""`,
	} {
		f.Add("a/b", []byte(payload), byte(1), false, "c-1")
	}
	f.Add("\xff\u2028\n", []byte("x"), byte(2), true, "")
	f.Fuzz(func(t *testing.T, topic string, payload []byte, qos byte, retain bool, cursor string) {
		checkMessage(t, mqtt.Message{Topic: mqtt.Topic(topic), Payload: payload, QoS: mqtt.QoS(qos % 3), Retain: retain, Time: noon}, cursor)
	})
}

// A payload whose nesting is near what parsers take must not make a list of
// messages, or a batch, unreadable.
func TestDeepPayloads(t *testing.T) {
	nest := func(n int) []byte { return []byte(strings.Repeat(`[{"]":`, n/2) + "1" + strings.Repeat("}]", n/2)) }
	for _, c := range []struct {
		depth    int
		embedded bool
	}{{2, true}, {9990, true}, {9992, false}, {10000, false}} {
		payload := nest(c.depth)
		if !json.Valid(payload) {
			t.Fatalf("the payload of depth %d is no JSON", c.depth)
		}
		m := mqtt.Message{Topic: "t", Payload: payload, Time: noon}
		checkMessage(t, m, "c")
		line := wire.AppendMessage(nil, m, "c")
		if got := bytes.Contains(line, []byte(`"payload":`)); got != c.embedded {
			t.Errorf("depth %d: embedded %v, want %v", c.depth, got, c.embedded)
		}
		list := append(append([]byte(`{"messages":[`), line...), "]}"...)
		if !json.Valid(list) {
			t.Errorf("depth %d makes a list unreadable", c.depth)
		}
	}
}
