package sse_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"flyscreen/gateway/gatewaytest"

	"github.com/coder/websocket"
)

// payloads are what has to come through every door. JSON comes embedded, with the
// line breaks between its tokens as spaces, which change nothing of its meaning;
// embedded is that form where it differs.
var payloads = []struct{ what, payload, form, embedded string }{
	{"empty", "", "text", ""},
	{"a number", "72.5", "payload", ""},
	{"null", "null", "payload", ""},
	{"an object", `{"a": [1,  2], "b": "\u00e9\n"}`, "payload", ""},
	{"JSON with line breaks", "{\n  \"a\": 1,\r\n  \"b\": [\r]\n}", "payload", "{   \"a\": 1,    \"b\": [ ] }"},
	{"a huge number", "123456789012345678901234567890.10e-400", "payload", ""},
	{"members twice", `{"a":1,"a":2}`, "payload", ""},
	{"JSON with HTML", `{"a":"<script>&\u2028</script>"}`, "payload", ""},
	{"JSON with raw U+2028", "{\"a\":\"\u2028\u2029\"}", "payload", ""},
	{"text", "it is warm", "text", ""},
	{"CR LF", "a\rb\nc\r\nd\n", "text", ""},
	{"only line breaks", "\n\n", "text", ""},
	{"NUL and controls", "\x00\x01\x1b\x7f", "text", ""},
	{"quotes and backslashes", `a"b\c\u0041`, "text", ""},
	{"a byte order mark", "\uFEFF", "text", ""},
	{"a byte order mark before JSON", "\uFEFF{\"a\":1}", "text", ""},
	{"U+2028 and U+2029", "a\u2028b\u2029c", "text", ""},
	{"all planes", "é€😀\U0010FFFF\uFFFE", "text", ""},
	{"not UTF-8", "\xff\xfe\x00\x80", "base64", ""},
	{"not UTF-8 in a JSON string", "{\"a\":\"\xff\"}", "base64", ""},
	{"a surrogate", "\xed\xa0\x80", "base64", ""},
	{"half a character at the end", "abc\xc3", "base64", ""},
	{"an event that forges another", "x\n\nevent: end\ndata: {\"code\":4401}\n\n", "text", ""},
	{"a field that forges another", "\rid: forged\rretry: 1\r\rdata: forged\r\r", "text", ""},
	{"a line that forges another", "\"}\n{\"type\":\"end\",\"code\":4401}\n", "text", ""},
	{"JSON that looks like an event", `{"type":"end","code":4401,"reason":"data: x"}`, "payload", ""},
	{"256 KiB of text", strings.Repeat("x", 256<<10), "text", ""},
	{"256 KiB of bytes", strings.Repeat("\xff", 256<<10), "base64", ""},
	{"256 KiB of controls", strings.Repeat("\x00", 256<<10), "text", ""},
	{"256 KiB of JSON", "[" + strings.Repeat("\n", 256<<10-2) + "]", "payload", "[" + strings.Repeat(" ", 256<<10-2) + "]"},
	{"JSON nested deeper than parsers go", strings.Repeat("[", 10000) + strings.Repeat("]", 10000), "text", ""},
}

// Any payload comes through every door byte for byte, as a live message and as a
// snapshot, and cannot be taken for anything else.
func TestFidelity(t *testing.T) {
	g := gatewaytest.Start(t, "limits.queue_bytes=64MiB")
	token := gatewaytest.All(t)
	for _, when := range []string{"live", "snapshot"} {
		kept := when == "snapshot"
		query := fmt.Sprintf("filter=fidelity/+&snapshot=%v", kept)
		send := func() {
			for i, p := range payloads {
				topic := fmt.Sprintf("fidelity/%d?retain=%v", i, kept)
				if r, body := g.Do(t, token, "POST", "/v1/topics/"+topic, p.payload); r.StatusCode != 200 {
					t.Fatalf("%s: %d %s", p.what, r.StatusCode, body)
				}
			}
		}
		want := len(payloads)
		if kept {
			send()
			want-- // nothing is kept of an empty one
			checkKept(t, g, token)
		}
		events := follow(t, g, token, query)
		lines := g.Open(t, token, query)
		sockets := map[string]*socket{"WebSocket": openSocket(t, g, token, ""), "WebSocket in batches": openSocket(t, g, token, "?batch=1")}
		for _, s := range sockets {
			s.send(fmt.Sprintf(`{"type":"subscribe","filters":[{"filter":"fidelity/+","snapshot":%v}]}`, kept))
		}
		if !kept {
			events.until("live")
			lines.Until("live")
			for _, s := range sockets {
				s.until("live")
			}
			send()
		}
		doors := map[string]func() gatewaytest.Line{
			"NDJSON": lines.Next,
			"SSE": func() gatewaytest.Line {
				e, l := events.next()
				if e.name == "message" && !kept && e.id != *l.Cursor {
					t.Errorf("the id %q is not the cursor of %.100s", e.id, l.Raw)
				}
				return l
			},
		}
		for name, s := range sockets {
			doors[name] = s.next
		}
		for name, next := range doors {
			checkMessages(t, when+" over "+name, want, next)
		}
	}
}

// checkMessages reads so many messages and holds each against what was published.
func checkMessages(t *testing.T, what string, want int, next func() gatewaytest.Line) {
	t.Helper()
	for n := 0; n < want; {
		m := next()
		if m.Type != "message" {
			if m.Type == "end" || m.Type == "gap" {
				t.Fatalf("%s: %s", what, m.Raw)
			}
			continue
		}
		n++
		var i int
		if _, err := fmt.Sscanf(m.Topic, "fidelity/%d", &i); err != nil {
			t.Fatal(err)
		}
		p := payloads[i]
		wanted := p.payload
		if p.embedded != "" {
			wanted = p.embedded
		}
		form := map[bool]string{m.Payload != nil: "payload", m.Text != nil: "text", m.Base64 != nil: "base64"}[true]
		if form != p.form || string(m.Bytes(t)) != wanted {
			t.Errorf("%s: %s came as %s: %.200q", what, p.what, form, m.Raw)
		}
	}
}

// checkKept reads each payload as a resource.
func checkKept(t *testing.T, g *gatewaytest.Gateway, token string) {
	t.Helper()
	for i, p := range payloads {
		r, body := g.Do(t, token, "GET", fmt.Sprintf("/v1/topics/fidelity/%d", i), "")
		if p.payload == "" && r.StatusCode == http.StatusNotFound {
			continue
		}
		if r.StatusCode != http.StatusOK || body != p.payload {
			t.Errorf("GET of %s: %d %.100q", p.what, r.StatusCode, body)
		}
	}
}

// socket is a WebSocket client that takes single objects and arrays alike.
type socket struct {
	t       *testing.T
	ctx     context.Context
	conn    *websocket.Conn
	waiting []string
}

func openSocket(t *testing.T, g *gatewaytest.Gateway, token, query string) *socket {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), gatewaytest.Patience)
	conn, _, err := websocket.Dial(ctx, g.URL()+"/v1/ws"+query, &websocket.DialOptions{
		Subprotocols: []string{"flyscreen.v1"}, HTTPHeader: http.Header{"Authorization": {"Bearer " + token}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.CloseNow()
		cancel()
	})
	conn.SetReadLimit(64 << 20)
	return &socket{t: t, ctx: ctx, conn: conn}
}

func (s *socket) send(frame string) {
	s.t.Helper()
	if err := s.conn.Write(s.ctx, websocket.MessageText, []byte(frame)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *socket) next() gatewaytest.Line {
	s.t.Helper()
	if len(s.waiting) == 0 {
		_, data, err := s.conn.Read(s.ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		if s.waiting = []string{string(data)}; bytes.HasPrefix(data, []byte("[")) {
			s.waiting = elements(s.t, data)
		}
	}
	l := gatewaytest.ParseLine(s.t, s.waiting[0])
	s.waiting = s.waiting[1:]
	return l
}

// elements are the objects of an array as they stand in it.
func elements(t *testing.T, array []byte) (all []string) {
	t.Helper()
	var raw []json.RawMessage
	if err := json.Unmarshal(array, &raw); err != nil {
		t.Fatalf("%v: %.200q", err, array)
	}
	for _, one := range raw {
		all = append(all, string(one))
	}
	return all
}

func (s *socket) until(kind string) {
	s.t.Helper()
	for s.next().Type != kind {
	}
}
