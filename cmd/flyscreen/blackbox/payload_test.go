package blackbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// payloads are bytes that something on the way might change.
var payloads = []struct {
	name        string
	bytes       []byte
	member      string // which member of the message object carries them
	contentType string
}{
	{"JSON object", []byte(`{"b": 1.50, "a" :[1,2 ,3],"big":12345678901234567890,"e":"\u00e9 <&>"}`), "payload", "application/json"},
	{"JSON over lines", []byte("{\r\n \"a\": 1\n}\n"), "payload", "application/json"},
	{"JSON scalar", []byte("21.50"), "payload", "application/json"},
	{"JSON with doubled members", []byte(`{"a":1,"a":2}`), "payload", "application/json"},
	{"text", []byte("door: open — ключ \U0001F511"), "text", "text/plain; charset=utf-8"},
	{"text that forges events", []byte("x\n\nevent: end\ndata: {}\n\n\rdata: y\r\n"), "text", "text/plain; charset=utf-8"},
	{"line separators", []byte("a\u2028b\u2029c\u0085d"), "text", "text/plain; charset=utf-8"},
	{"NUL and controls", []byte("a\x00b\x01\x1f\x7fc"), "text", "text/plain; charset=utf-8"},
	{"byte order mark", []byte("\xef\xbb\xbfx"), "text", "text/plain; charset=utf-8"},
	{"not UTF-8", []byte("caf\xe9 \xff\xfe"), "base64", "application/octet-stream"},
	{"UTF-8 of a surrogate", []byte("\xed\xa0\x80"), "base64", "application/octet-stream"},
	{"every byte", everyByte(), "base64", "application/octet-stream"},
	{"256 KiB of text", bytes.Repeat([]byte("0123456789abcdef\r\n\"\\é~~~~~~~~~~"), 8192), "text", "text/plain; charset=utf-8"},
	{"256 KiB of bytes", bytes.Repeat(everyByte(), 1024), "base64", "application/octet-stream"},
}

func everyByte() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// Any payload comes out of every door byte for byte, live and from the snapshot,
// whether a device or the broker brought it in.
func TestPayloadsArriveByteForByte(t *testing.T) {
	for _, p := range payloads {
		if len(p.bytes) > 256<<10 {
			t.Fatalf("%s has %d bytes", p.name, len(p.bytes))
		}
	}
	onBoth(t, nil, func(t *testing.T, s *site) {
		token := everything(t)
		sub := s.mosquittoSub(t, "bytes/#")
		live := map[string]*stream{}
		for _, door := range doors {
			live[door] = s.followLive(t, door, token, "bytes/#")
		}
		for i, p := range payloads {
			topic := fmt.Sprintf("bytes/%02d", i)
			if i%2 == 0 {
				s.retain(t, token, topic, p.bytes)
			} else {
				s.mosquittoPub(t, topic, p.bytes, "-r", "-q", "1")
			}
			a := s.do(t, http.MethodGet, "/v1/topics/"+topic, token, nil)
			wantBytes(t, p.name+": GET", a.body, p.bytes)
			if got := a.header.Get("Content-Type"); got != p.contentType {
				t.Errorf("%s: Content-Type %q, want %q", p.name, got, p.contentType)
			}
			if got := a.header.Get("X-Content-Type-Options"); got != "nosniff" {
				t.Errorf("%s: X-Content-Type-Options %q", p.name, got)
			}
		}
		for i, r := range sub.messages(t, len(payloads)) {
			wantBytes(t, payloads[i].name+": mosquitto_sub", r.payload, payloads[i].bytes)
		}
		for _, door := range doors {
			wantPayloads(t, door+", live", live[door].messages(t, len(payloads)))
			wantPayloads(t, door+", snapshot", s.follow(t, door, token, "bytes/#").messages(t, len(payloads)))
		}
	})
}

// wantPayloads holds messages, whose topics end in the payload's number, against
// what was sent.
func wantPayloads(t *testing.T, what string, got []event) {
	t.Helper()
	for _, m := range got {
		var i int
		if _, err := fmt.Sscanf(m.Topic, "bytes/%d", &i); err != nil {
			t.Errorf("%s: %v: %s", what, err, m.Topic)
			continue
		}
		p := payloads[i]
		want := p.bytes
		if p.member == "payload" {
			// Embedded as it is; only line breaks between tokens become spaces, for the object stands on one line.
			want = []byte(strings.NewReplacer("\n", " ", "\r", " ").Replace(string(want)))
			wantBytes(t, what+": "+p.name, bytes.TrimSpace(m.bytes(t)), bytes.TrimSpace(want))
		} else {
			wantBytes(t, what+": "+p.name, m.bytes(t), want)
		}
		if member(m) != p.member {
			t.Errorf("%s: %s came as %s, want %s", what, p.name, member(m), p.member)
		}
	}
	if len(got) != len(payloads) {
		t.Errorf("%s: %d messages, want %d", what, len(got), len(payloads))
	}
}

func member(e event) string {
	switch {
	case e.Text != nil:
		return "text"
	case e.Base64 != nil:
		return "base64"
	}
	return "payload"
}

// An empty message is an event like any other; retained, it clears the state.
func TestEmptyPayload(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		token := everything(t)
		s.retain(t, token, "empty/state", []byte("kept"))
		streams := map[string]*stream{}
		for _, door := range doors {
			streams[door] = s.followLive(t, door, token, "empty/#")
		}
		s.publish(t, token, "empty/1", []byte{})
		s.mosquittoPub(t, "empty/2", nil, "-q", "1")
		if a := s.do(t, http.MethodDelete, "/v1/topics/empty/state", token, nil); a.status != http.StatusOK {
			t.Errorf("DELETE: %d %s", a.status, short(a.body))
		}
		for door, st := range streams {
			got := st.messages(t, 4)[1:]
			wantSame(t, door, topics(got), []string{"empty/1", "empty/2", "empty/state"})
			for _, m := range got {
				if m.Text == nil || *m.Text != "" || m.Payload != nil || m.Base64 != nil || m.Retain {
					t.Errorf("%s: %s", door, m.object)
				}
			}
		}
		wantProblem(t, "an empty PUT", s.do(t, http.MethodPut, "/v1/topics/empty/state", token, []byte{}), http.StatusBadRequest, "invalid-payload")
	})
}

// A WebSocket publishes bytes as the other doors do.
func TestWebSocketPublishes(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		sub := s.mosquittoSub(t, "frames/#")
		st := s.followLive(t, "ws", tokenFor(t, "frames", grants{All: []string{"frames/#"}}), "frames/#")
		st.process.send(t, `{"type":"publish","id":10,"topic":"frames/json","payload":{"a": 1.50}}`)
		st.process.send(t, `{"type":"publish","id":11,"topic":"frames/text","text":"é\n"}`)
		st.process.send(t, `{"type":"publish","id":12,"topic":"frames/bytes","base64":"AAH/","qos":0}`)
		st.process.send(t, `{"type":"publish","id":13,"topic":"elsewhere","text":"no"}`)
		st.process.send(t, `{"type":"publish","id":14,"topic":"frames/state","text":"kept","qos":2,"retain":true}`)
		want := map[string]string{"frames/json": `{"a": 1.50}`, "frames/text": "é\n", "frames/bytes": "\x00\x01\xff", "frames/state": "kept"}
		for _, r := range sub.messages(t, len(want)) {
			if want[r.topic] != string(r.payload) {
				t.Errorf("mosquitto_sub got %q on %s", r.payload, r.topic)
			}
		}
		all := st.await(t, "all answers and messages", func(all []event) bool {
			return count(all, "puback") == 4 && count(all, "error") == 1 && count(all, "message") == 4
		})
		said := map[int]string{}
		for _, e := range all {
			if e.Type == "puback" {
				said[e.ID] = e.Delivery
			}
			if e.Type == "error" {
				said[e.ID] = e.Problem.Code
			}
		}
		got, err := json.Marshal(said)
		if err != nil {
			t.Fatal(err)
		}
		const expected = `{"10":"acknowledged","11":"acknowledged","12":"sent","13":"not-authorized","14":"acknowledged"}`
		if string(got) != expected {
			t.Errorf("the answers were %s, want %s", got, expected)
		}
		if a := s.do(t, http.MethodGet, "/v1/topics/frames/state", everything(t), nil); string(a.body) != "kept" {
			t.Errorf("retained over the WebSocket: %d %s", a.status, a.body)
		}
	})
}
