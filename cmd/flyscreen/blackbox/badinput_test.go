package blackbox_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// neighbourhood is a stream of every kind that must not notice what others do.
type neighbourhood struct {
	s       *site
	token   string
	streams []*stream
	sent    int
}

func (s *site) neighbours(t *testing.T) *neighbourhood {
	t.Helper()
	n := &neighbourhood{s: s, token: tokenFor(t, "neighbour", grants{All: []string{"neighbour/#"}})}
	for _, door := range doors {
		n.streams = append(n.streams, s.followLive(t, door, n.token, "neighbour/#"))
	}
	return n
}

// knock sends the neighbours a message.
func (n *neighbourhood) knock(t *testing.T) {
	t.Helper()
	n.sent++
	n.s.publish(t, n.token, "neighbour/knock", fmt.Appendf(nil, "%d", n.sent))
}

// wantUnharmed checks that every knock was heard once and in order, that no
// neighbour was told of trouble, and that the broker connection never broke.
func (n *neighbourhood) wantUnharmed(t *testing.T) {
	t.Helper()
	n.knock(t)
	for _, st := range n.streams {
		for i, m := range st.messages(t, n.sent) {
			if string(m.Payload) != fmt.Sprint(i+1) {
				t.Errorf("%s neighbour: message %d is %s", st.door, i+1, m.object)
				break
			}
		}
		for _, e := range st.events(t) {
			switch e.Type {
			case "gap", "upstream", "end", "closed", "refused":
				t.Errorf("%s neighbour was told %s", st.door, e.object)
			}
		}
	}
	n.s.wantUnharmed(t)
}

// No topic in a URL can harm anybody: each bad one is refused with its code, and
// each odd but good one is published as it is spelled.
func TestBadAndOddTopics(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		token := everything(t)
		near := s.neighbours(t)
		for _, bad := range []struct{ what, path string }{
			{"wildcard +", "a/+/b"},
			{"wildcard + escaped", "a/%2B/b"},
			{"wildcard # escaped", "a/%23"},
			{"+ inside a level", "a/b+c"},
			{"invalid UTF-8", "a/%FF%FE"},
			{"half a character", "a/%C3"},
			{"an over-long NUL", "a/%C0%80"},
			{"a surrogate", "a/%ED%A0%80"},
			{"NUL", "a/%00"},
			{"U+0001", "a/%01"},
			{"line break", "a%0Ab"},
			{"DEL", "a/%7F"},
			{"U+0080", "a/%C2%80"},
			{"U+FFFF", "a/%EF%BF%BF"},
			{"U+FDD0", "a/%EF%B7%90"},
			{"empty", ""},
			{"33 levels", strings.Repeat("a/", 32) + "a"},
			{"1,025 bytes", strings.Repeat("t", 1025)},
			{"65,536 bytes", strings.Repeat("t", 65536)},
			{"a $ topic", "$SYS/broker/uptime"},
		} {
			for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
				var body []byte
				if method != http.MethodDelete {
					body = []byte("x")
				}
				a := s.do(t, method, "/v1/topics/"+bad.path, token, body)
				wantProblem(t, method+" "+bad.what, a, http.StatusBadRequest, "invalid-topic")
			}
			if !strings.HasPrefix(bad.path, "$") { // the broker's own part may be read by those whose grant names it
				wantProblem(t, "GET "+bad.what, s.do(t, http.MethodGet, "/v1/topics/"+bad.path, token, nil), http.StatusBadRequest, "invalid-topic")
				if a := s.do(t, http.MethodHead, "/v1/topics/"+bad.path, token, nil); a.status != http.StatusBadRequest {
					t.Errorf("HEAD %s: %d", bad.what, a.status)
				}
			}
			near.knock(t)
		}
		sub := s.mosquittoSub(t, "odd/#")
		var want []string
		for _, odd := range []struct{ path, topic string }{
			{"odd/a/b", "odd/a/b"},
			{"odd%2Fa%2Fb", "odd/a/b"},
			{"odd%2fa%2fb", "odd/a/b"},
			{"odd/a%252Fb", "odd/a%2Fb"},
			{"odd/%C3%A9", "odd/é"},
			{"odd/%c3%a9", "odd/é"},
			{"odd/a%20b", "odd/a b"},
			{"odd/a%3Fb%26c=d", "odd/a?b&c=d"},
			{"odd/a//b", "odd/a//b"},
			{"odd/a/", "odd/a/"},
			{"odd/./a", "odd/./a"},
			{"odd/b/../a", "odd/b/../a"},
			{"odd/..%2Fa", "odd/../a"},
			{"odd/a;b=c", "odd/a;b=c"},
			{"odd/a:b@c,d!*'()", "odd/a:b@c,d!*'()"},
			{"odd/%E2%80%AE", "odd/\u202e"},
			{"odd/" + strings.Repeat("l/", 30) + "l", "odd/" + strings.Repeat("l/", 30) + "l"},
			{"odd/" + strings.Repeat("t", 1020), "odd/" + strings.Repeat("t", 1020)},
		} {
			s.publish(t, token, odd.path, []byte("x"))
			want = append(want, odd.topic)
		}
		wantSame(t, "what mosquitto_sub got", receivedTopics(sub.messages(t, len(want))), want)
		near.wantUnharmed(t)
	})
}

// Requests whose form is wrong are refused with the field's name, and nothing of
// them reaches the broker.
func TestBadRequests(t *testing.T) {
	onBoth(t, map[string]any{"limits.body_timeout": "2s"}, func(t *testing.T, s *site) {
		token := everything(t)
		near := s.neighbours(t)
		sub := s.mosquittoSub(t, "form/#")
		big := bytes.Repeat([]byte("x"), 256<<10+1)
		for _, bad := range []struct {
			method, path string
			body         []byte
			mediaType    string
			status       int
			code         string
			names        string // must stand in the detail
		}{
			{"POST", "/v1/topics/form/x?qos=3", []byte("x"), "", 400, "bad-request", "qos"},
			{"POST", "/v1/topics/form/x?qos=-1", []byte("x"), "", 400, "bad-request", "qos"},
			{"POST", "/v1/topics/form/x?qos=one", []byte("x"), "", 400, "bad-request", "qos"},
			{"POST", "/v1/topics/form/x?qos=01", []byte("x"), "", 400, "bad-request", "qos"},
			{"POST", "/v1/topics/form/x?qos=", []byte("x"), "", 400, "bad-request", "qos"},
			{"POST", "/v1/topics/form/x?qos=0&qos=1", []byte("x"), "", 400, "bad-request", "qos"},
			{"POST", "/v1/topics/form/x?retain=maybe", []byte("x"), "", 400, "bad-request", "retain"},
			{"POST", "/v1/topics/form/x?colour=red", []byte("x"), "", 400, "bad-request", "colour"},
			{"PUT", "/v1/topics/form/x?colour=red", []byte("x"), "", 400, "bad-request", "colour"},
			{"PUT", "/v1/topics/form/x?qos=3", []byte("x"), "", 400, "bad-request", "qos"},
			{"PUT", "/v1/topics/form/x", []byte{}, "", 400, "invalid-payload", ""},
			{"DELETE", "/v1/topics/form/x?colour=red", nil, "", 400, "bad-request", "colour"},
			{"GET", "/v1/topics/form/x?colour=red", nil, "", 400, "bad-request", "colour"},
			{"POST", "/v1/topics/form/x?a=%zz", []byte("x"), "", 400, "bad-request", ""},
			{"POST", "/v1/topics/form/x?a;b", []byte("x"), "", 400, "bad-request", ""},
			{"POST", "/v1/topics/form/x", big, "", 413, "too-large", "262144"},
			{"PUT", "/v1/topics/form/x", big, "", 413, "too-large", "262144"},
			{"GET", "/v1/topics", nil, "", 400, "bad-request", "filter"},
			{"GET", "/v1/topics?filter=a/%23/b", nil, "", 400, "invalid-filter", "#"},
			{"GET", "/v1/topics?filter=a%2B", nil, "", 400, "invalid-filter", ""},
			{"GET", "/v1/topics?filter=%FF", nil, "", 400, "invalid-filter", ""},
			{"GET", "/v1/topics?filter=", nil, "", 400, "invalid-filter", ""},
			{"GET", "/v1/topics?filter=a&limit=0", nil, "", 400, "bad-request", "limit"},
			{"GET", "/v1/topics?filter=a&limit=x", nil, "", 400, "bad-request", "limit"},
			{"GET", "/v1/topics?filter=a&colour=red", nil, "", 400, "bad-request", "colour"},
			{"GET", "/v1/topics?" + strings.Repeat("filter=a&", 17), nil, "", 400, "bad-request", "16"},
			{"GET", "/v1/stream", nil, "", 400, "bad-request", "filter"},
			{"GET", "/v1/stream?filter=a/%23/b", nil, "", 400, "invalid-filter", "#"},
			{"GET", "/v1/stream?filter=$share/g/a", nil, "", 400, "invalid-filter", "$share"},
			{"GET", "/v1/stream?filter=a&qos=3", nil, "", 400, "bad-request", "qos"},
			{"GET", "/v1/stream?filter=a&snapshot=perhaps", nil, "", 400, "bad-request", "snapshot"},
			{"GET", "/v1/stream?filter=a&strict=perhaps", nil, "", 400, "bad-request", "strict"},
			{"GET", "/v1/stream?filter=a&on_slow=explode", nil, "", 400, "bad-request", "on_slow"},
			{"GET", "/v1/stream?filter=a&colour=red", nil, "", 400, "bad-request", "colour"},
			{"GET", "/v1/stream?" + strings.Repeat("filter=a&", 17), nil, "", 400, "bad-request", "16"},
			{"POST", "/v1/messages", []byte(`{"messages":[{"topic":"form/x","text":"x"}]`), "application/json", 400, "invalid-payload", ""},
			{"POST", "/v1/messages", []byte(`{"messages":[]}`), "application/json", 400, "bad-request", "messages"},
			{"POST", "/v1/messages", []byte(`[]`), "application/json", 400, "invalid-payload", ""},
			{"POST", "/v1/messages", []byte(`{"messages":[{"topic":"form/x","text":"x"}],"colour":"red"}`), "application/json", 400, "invalid-payload", "colour"},
			{"POST", "/v1/messages", []byte(`{"messages":[{"topic":"form/x","text":"x"}]} trailing`), "application/json", 400, "invalid-payload", ""},
			{"POST", "/v1/messages", []byte(`{"topic":"form/x","text":"x"`), "application/x-ndjson", 400, "invalid-payload", ""},
			{"POST", "/v1/messages", []byte(`topic=form/x`), "application/x-www-form-urlencoded", 415, "unsupported-media-type", ""},
			{"POST", "/v1/messages", manyMessages(1001), "application/json", 400, "bad-request", "1000"},
			{"POST", "/v1/authz/explain", []byte(`{"action":"subscribe"}`), "application/json", 400, "bad-request", "filter"},
			{"POST", "/v1/authz/explain", []byte(`{"action":"publish","topic":"a/+"}`), "application/json", 400, "invalid-topic", ""},
			{"POST", "/v1/authz/explain", []byte(`{"action":"subscribe","filter":"a/#/b"}`), "application/json", 400, "invalid-filter", ""},
			{"POST", "/v1/authz/explain", []byte(`{"action":"dance","topic":"a"}`), "application/json", 400, "bad-request", "action"},
			{"POST", "/v1/authz/explain", []byte(`{"action"`), "application/json", 400, "invalid-payload", ""},
			{"POST", "/v1/authz/explain", []byte(`x`), "text/plain", 415, "unsupported-media-type", ""},
			{"POST", "/v1/authz/explain", append([]byte(`{"action":"`), big...), "application/json", 413, "too-large", ""},
			{"GET", "/v1/ws?colour=red", nil, "", 400, "bad-request", "colour"},
			{"GET", "/v1/ws", nil, "", 400, "bad-request", ""},
			{"GET", "/v1/nowhere", nil, "", 404, "not-found", ""},
			{"PATCH", "/v1/topics/form/x", []byte("x"), "", 405, "method-not-allowed", ""},
			{"POST", "/v1/stream?filter=a", []byte("x"), "", 405, "method-not-allowed", ""},
		} {
			what := fmt.Sprintf("%s %s %.60q", bad.method, bad.path, bad.body)
			headers := []string{}
			if bad.mediaType != "" {
				headers = append(headers, "Content-Type", bad.mediaType)
			}
			p := wantProblem(t, what, s.do(t, bad.method, bad.path, token, bad.body, headers...), bad.status, bad.code)
			if !strings.Contains(p.Detail, bad.names) {
				t.Errorf("%s: the detail %q does not name %q", what, p.Detail, bad.names)
			}
		}
		near.knock(t)
		s.badBodies(t, token)
		near.wantUnharmed(t)

		// The same requests in their good form are taken, and only they arrived.
		s.publish(t, token, "form/x?qos=1&retain=false", []byte("good"))
		s.publish(t, token, "form/big", big[1:])
		got := sub.messages(t, 2)
		if !got[0].is("form/x", []byte("good")) || !got[1].is("form/big", big[1:]) || len(got) != 2 {
			t.Errorf("mosquitto_sub got %d messages on %q", len(got), receivedTopics(got))
		}
	})
}

func manyMessages(n int) []byte {
	one := `{"topic":"form/x","text":"x"}`
	return []byte(`{"messages":[` + strings.Repeat(one+",", n-1) + one + `]}`)
}

// badBodies sends bodies that no HTTP client sends: cut short, or more than they
// may be.
func (s *site) badBodies(t *testing.T, token string) {
	t.Helper()
	head := func(method, path string, more ...string) string {
		return method + " " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + "\r\n" + strings.Join(more, "\r\n") + "\r\n\r\n"
	}
	const path = "/v1/topics/form/raw"
	for _, bad := range []struct {
		what, request, method, path string
		status                      int
		code                        string
	}{
		{"chunked body cut short", head("POST", path, "Transfer-Encoding: chunked") + "5\r\nhello\r\n", "POST", path, 400, "bad-request"},
		{"chunk cut short", head("POST", path, "Transfer-Encoding: chunked") + "ff\r\nhello", "POST", path, 400, "bad-request"},
		{"malformed chunk", head("POST", path, "Transfer-Encoding: chunked") + "5\r\nhello\r\nzz\r\n", "POST", path, 400, "bad-request"},
		{"body shorter than said", head("PUT", path, "Content-Length: 100") + "hello", "PUT", path, 400, "bad-request"},
		{"batch cut short", head("POST", "/v1/messages", "Content-Type: application/x-ndjson", "Content-Length: 100") +
			`{"topic":"form/raw","text":"x"}` + "\n", "POST", "/v1/messages", 400, "bad-request"},
		{"chunked body over the limit", head("POST", path, "Transfer-Encoding: chunked") +
			"40001\r\n" + strings.Repeat("x", 0x40001) + "\r\n0\r\n\r\n", "POST", path, 413, "too-large"},
		{"two credentials", head("POST", path, "Authorization: Bearer x", "Content-Length: 1") + "x", "POST", path, 401, "unauthenticated"},
	} {
		wantProblem(t, bad.what, s.raw(t, bad.request, bad.method, bad.path), bad.status, bad.code)
	}
}

// Frames whose form is wrong get an error, and those who keep on are closed.
func TestBadFrames(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		token := everything(t)
		near := s.neighbours(t)
		base64Of := base64.StdEncoding.EncodeToString
		for _, bad := range []struct{ what, line, code string }{
			{"malformed JSON", `{"type":`, "bad-request"},
			{"no JSON at all", `hello`, "bad-request"},
			{"a number", `1`, "bad-request"},
			{"no type", `{"id":1}`, "bad-request"},
			{"unknown type", `{"type":"dance","id":5}`, "bad-request"},
			{"binary frame", "binary:" + base64Of([]byte(`{"type":"ping"}`)), "bad-request"},
			{"unknown member", `{"type":"subscribe","id":5,"filters":["a"],"colour":"red"}`, "invalid-payload"},
			{"trailing text", `{"type":"ping"} x`, "bad-request"},
			{"not UTF-8", "text:" + base64Of([]byte("{\"type\":\"publish\",\"id\":1,\"topic\":\"a\",\"text\":\"\xff\"}")), "bad-request"},
			{"wildcard in a publish", `{"type":"publish","id":5,"topic":"a/+","text":"x"}`, "invalid-topic"},
			{"NUL in a publish", `{"type":"publish","id":5,"topic":"a\u0000","text":"x"}`, "invalid-topic"},
			{"65,536-byte topic", `{"type":"publish","id":5,"topic":"` + strings.Repeat("t", 65536) + `","text":"x"}`, "invalid-topic"},
			{"wrong qos", `{"type":"publish","id":5,"topic":"a","text":"x","qos":3}`, "bad-request"},
			{"two payloads", `{"type":"publish","id":5,"topic":"a","text":"x","base64":"eA=="}`, ""},
			{"no payload", `{"type":"publish","id":5,"topic":"a"}`, ""},
			{"bad base64", `{"type":"publish","id":5,"topic":"a","base64":"*"}`, ""},
			{"unknown member of a publish", `{"type":"publish","id":5,"topic":"a","text":"x","colour":"red"}`, "invalid-payload"},
			{"unknown option of a filter", `{"type":"subscribe","id":5,"filters":[{"filter":"a","colour":"red"}]}`, "suback"},
			{"malformed filter", `{"type":"subscribe","id":5,"filters":["a/#/b"]}`, "suback"},
			{"shared subscription", `{"type":"subscribe","id":5,"filters":["$share/g/a"]}`, "suback"},
			{"no filters", `{"type":"subscribe","id":5,"filters":[]}`, "bad-request"},
		} {
			st := s.followLive(t, "ws", token, "frames/#")
			st.process.send(t, bad.line)
			st.process.send(t, bad.line)
			st.process.send(t, `{"type":"publish","id":99,"topic":"frames/after","text":"x"}`)
			all := st.await(t, bad.what, func(all []event) bool {
				return count(all, "closed") > 0 || len(refusals(all)) > 0 && count(all, "puback") > 0
			})
			for _, e := range pick(all, "closed") {
				if e.Code != 4400 && e.Code != 1003 && e.Code != 1007 {
					t.Errorf("%s: closed with %d %s", bad.what, e.Code, e.Reason)
				}
			}
			if len(refusals(all)) == 0 && bad.what != "not UTF-8" { // an endpoint may close on that at once (RFC 6455 section 8.1)
				t.Errorf("%s: no refusal came", bad.what)
			}
			for _, p := range refusals(all) {
				if p.Status != 400 || bad.code != "" && bad.code != "suback" && p.Code != bad.code {
					t.Errorf("%s: %+v", bad.what, p)
				}
			}
			near.knock(t)
			st.process.kill()
		}
		s.wantClosed(t, token, 4400, strings.Split(strings.Repeat("hello\n", 100), "\n")...)
		s.wantClosed(t, token, 1009, `{"type":"publish","id":1,"topic":"a","text":"`+strings.Repeat("x", 4<<20)+`"}`)
		near.wantUnharmed(t)
	})
}

// refusals are the problems of error frames and of filters in a suback.
func refusals(all []event) []*problem {
	var out []*problem
	for _, e := range all {
		if e.Type == "error" {
			out = append(out, e.Problem)
		}
		for _, r := range e.Results {
			if r.Problem != nil {
				out = append(out, r.Problem)
			}
		}
	}
	return out
}

// wantClosed sends frames until the gateway closes and checks its code.
func (s *site) wantClosed(t *testing.T, token string, code int, frames ...string) {
	t.Helper()
	st := s.followLive(t, "ws", token, "frames/#")
	for _, f := range frames {
		if _, err := fmt.Fprintln(st.process.stdin, f); err != nil {
			break // the client ended, for the gateway had closed
		}
	}
	all := st.await(t, fmt.Sprintf("closed with %d", code), func(all []event) bool { return count(all, "closed") > 0 })
	if got := pick(all, "closed")[0]; got.Code != code {
		t.Errorf("closed with %d %s, want %d", got.Code, got.Reason, code)
	}
}
