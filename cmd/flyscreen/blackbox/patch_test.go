package blackbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// patch changes a stream's filters.
func (s *site) patch(t *testing.T, token, id, body string, headers ...string) answer {
	t.Helper()
	return s.do(t, http.MethodPatch, "/v1/stream/"+id, token, []byte(body), append([]string{"Content-Type", "application/json"}, headers...)...)
}

// One stream is enough for a page: its filters change while it is open.
func TestFiltersOfAnOpenStreamChange(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		all := everything(t)
		token := tokenFor(t, "page", grants{Sub: []string{"pets/+/location", "chat/#"}})
		s.retain(t, all, "chat/topic", []byte(`"retained"`))
		s.awaitRetained(t, all, "chat/topic")
		for _, door := range doors {
			st := s.followLive(t, door, token, "pets/rex/location")
			id := st.name(t)
			a := s.patch(t, token, id, `{"subscribe":["chat/#",{"filter":"pets/#","mode":"latest","interval":100},"secret"],"unsubscribe":["pets/rex/location"]}`)
			var got struct {
				Results []struct {
					Filter  string
					Granted []string
					Problem *problem
				}
			}
			if err := json.Unmarshal(a.body, &got); err != nil || a.status != http.StatusOK || len(got.Results) != 3 {
				t.Fatalf("%s: %d %s", door, a.status, a.body)
			}
			wantSame(t, "granted", slices.Concat(got.Results[0].Granted, got.Results[1].Granted), []string{"chat/#", "pets/+/location"})
			if p := got.Results[2].Problem; p == nil || p.Code != "not-authorized" {
				t.Errorf("%s: not granted: %s", door, a.body)
			}
			st.await(t, "live again", func(all []event) bool { return count(all, "live") == 2 })
			s.publish(t, all, "chat/lobby", []byte("1"))
			s.publish(t, all, "pets/luna/location", []byte("2"))
			st.until(t, "chat/lobby")
			st.until(t, "pets/luna/location")
			if a := s.patch(t, token, id, `{"unsubscribe":["pets/#"]}`); a.status != http.StatusOK {
				t.Errorf("%s: %d %s", door, a.status, a.body)
			}
			s.publish(t, all, "pets/luna/location", []byte("3"))
			s.publish(t, all, "chat/end", []byte("4"))
			wantSame(t, door, topics(st.until(t, "chat/end")), []string{"chat/topic", "chat/lobby", "pets/luna/location", "chat/end"})
			st.process.kill()
		}
	})
}

// awaitRetained waits until the broker keeps the topic.
func (s *site) awaitRetained(t *testing.T, token, topic string) {
	t.Helper()
	eventually(t, topic+" is retained", func() bool {
		return s.do(t, http.MethodGet, "/v1/topics/"+topic, token, nil).status == http.StatusOK
	})
}

// name is the stream's name.
func (st *stream) name(t *testing.T) string {
	t.Helper()
	for _, e := range st.events(t) {
		if e.Stream != "" {
			return e.Stream
		}
	}
	t.Fatalf("%s: the stream has no name", st.door)
	return ""
}

// A stream is changed by its own subject only, and nobody learns of others'.
func TestChangesThatAreRefused(t *testing.T) {
	s := boot(t, "embedded", nil)
	token := everything(t)
	st := s.followLive(t, "ndjson", token, "a")
	id := st.name(t)
	good := `{"subscribe":["b"]}`
	if a := s.patch(t, token, id, good); a.status != http.StatusOK {
		t.Fatalf("the control: %d %s", a.status, a.body)
	}
	wantProblem(t, "another subject", s.patch(t, tokenFor(t, "other", grants{All: []string{"#"}}), id, good), http.StatusNotFound, "not-found")
	wantProblem(t, "no token", s.patch(t, "", id, good), http.StatusUnauthorized, "unauthenticated")
	wantProblem(t, "no such stream", s.patch(t, token, "nonsense", good), http.StatusNotFound, "not-found")
	wantProblem(t, "a bad token", s.patch(t, token+"x", id, good), http.StatusUnauthorized, "token-invalid")
	wantProblem(t, "a strange origin", s.patch(t, token, id, good, "Origin", "https://elsewhere.example"), http.StatusForbidden, "origin-not-allowed")
	for _, bad := range []string{``, `{}`, `[]`, `{"subscribe":"b"}`, `{"filters":["b"]}`, `{"unsubscribe":["a/#/b"]}`, `{"subscribe":[` + strings.Repeat(`"b",`, 20) + `"b"]}`} {
		if p := s.patch(t, token, id, bad); p.status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", bad, p.status, p.body)
		}
	}
	wantProblem(t, "a parameter", s.do(t, http.MethodPatch, "/v1/stream/"+id+"?strict=true", token, []byte(good), "Content-Type", "application/json"),
		http.StatusBadRequest, "bad-request")
	wantProblem(t, "not JSON", s.do(t, http.MethodPatch, "/v1/stream/"+id, token, []byte(good), "Content-Type", "text/plain"),
		http.StatusUnsupportedMediaType, "unsupported-media-type")
	st.process.kill()
	eventually(t, "the stream is gone", func() bool { return s.patch(t, token, id, good).status == http.StatusNotFound })
}

// Who does not read what earlier changes brought may not make more.
func TestChangesWaitForTheReader(t *testing.T) {
	s := boot(t, "embedded", map[string]any{
		"limits.publish_timeout": "1s", "limits.publish_rate": 1_000_000, "limits.publish_burst": 1_000_000, "limits.write_timeout": "2m",
	})
	token := everything(t)
	small := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	}}
	conn, err := small.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /v1/stream?filter=flood HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nAccept: application/x-ndjson\r\n\r\n", token)
	var head []byte
	for part := make([]byte, 1024); !bytes.Contains(head, []byte(`"live"`)); {
		n, err := conn.Read(part)
		if err != nil {
			t.Fatal(err)
		}
		head = append(head, part[:n]...)
	}
	_, id, _ := strings.Cut(string(head), `"stream":"`)
	id, _, _ = strings.Cut(id, `"`)
	filler := fmt.Appendf(nil, `{"messages":[{"topic":"flood","text":%q}]}`, strings.Repeat("x", 200<<10))
	for range 60 { // more than the sockets' buffers can hide
		if a := s.do(t, http.MethodPost, "/v1/messages", token, filler, "Content-Type", "application/json"); a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	for n := range 2 {
		if a := s.patch(t, token, id, fmt.Sprintf(`{"subscribe":["more/%d"]}`, n)); a.status != http.StatusOK {
			t.Fatalf("change %d: %d %s", n, a.status, a.body)
		}
	}
	a := s.patch(t, token, id, `{"subscribe":["more/3"]}`)
	wantProblem(t, "the third change", a, http.StatusTooManyRequests, "rate-limited")
	wantRetryAfter(t, "the third change", a)
	if a := s.patch(t, token, id, `{"unsubscribe":["more/0"]}`); a.status != http.StatusOK {
		t.Errorf("to unsubscribe brings nothing: %d %s", a.status, a.body)
	}
}
