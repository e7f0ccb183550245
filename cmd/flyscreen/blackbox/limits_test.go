package blackbox_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Who publishes too fast is told to wait; the others are not.
func TestPublishRate(t *testing.T) {
	s := boot(t, "embedded", map[string]any{"limits.publish_rate": 0.01, "limits.publish_burst": 1})
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		token := tokenFor(t, method, grants{Pub: []string{"#"}})
		var body []byte
		if method != http.MethodDelete {
			body = []byte("x")
		}
		s.publishAs(t, method, token, "rate", body)
		a := s.do(t, method, "/v1/topics/rate", token, body)
		wantProblem(t, "the second "+method, a, http.StatusTooManyRequests, "rate-limited")
		wantRetryAfter(t, "the second "+method, a)
	}
}

func wantRetryAfter(t *testing.T, what string, a answer) {
	t.Helper()
	if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || seconds < 1 {
		t.Errorf("%s: Retry-After %q", what, a.header.Get("Retry-After"))
	}
}

// A subject has only so many streams, and gets one again when one has ended.
func TestStreamsOfASubject(t *testing.T) {
	s := boot(t, "embedded", map[string]any{"limits.streams_per_subject": 2})
	token, other := tokenFor(t, "many", grants{Sub: []string{"#"}}), tokenFor(t, "other", grants{Sub: []string{"#"}})
	first := s.followLive(t, "sse", token, "a")
	s.followLive(t, "ws", token, "a")
	a := s.do(t, http.MethodGet, "/v1/stream?filter=a", token, nil)
	wantProblem(t, "the third stream", a, http.StatusTooManyRequests, "rate-limited")
	wantRetryAfter(t, "the third stream", a)
	// Over a WebSocket it is told after the upgrade.
	st := s.open(t, "ws", token, "", "a")
	all := st.await(t, "closed", func(all []event) bool { return count(all, "closed") > 0 })
	if c := pick(all, "closed")[0]; c.Code != 4429 {
		t.Errorf("the third stream over a WebSocket: closed with %d %s", c.Code, c.Reason)
	}
	s.followLive(t, "sse", other, "a")
	first.process.kill()
	eventually(t, "a stream of the subject is free again", func() bool {
		st := s.open(t, "ndjson", token, "", "a")
		defer st.process.kill()
		var granted bool
		st.process.out.await(t, "an answer", func(all []string) bool {
			granted = strings.Contains(strings.Join(all, "\n"), `"ready"`)
			return granted || strings.Contains(strings.Join(all, "\n"), `"rate-limited"`)
		})
		return granted
	})
}

// A body that does not come is given up, and nothing of it is published.
func TestBodyThatDoesNotCome(t *testing.T) {
	s := boot(t, "embedded", map[string]any{"limits.body_timeout": "1s"})
	token := everything(t)
	for _, r := range []struct{ method, path, mediaType string }{
		{http.MethodPost, "/v1/topics/slow", "text/plain"},
		{http.MethodPut, "/v1/topics/slow", "text/plain"},
		{http.MethodPost, "/v1/messages", "application/json"},
		{http.MethodPost, "/v1/authz/explain", "application/json"},
		{http.MethodPatch, "/v1/stream/x", "application/json"},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\nContent-Length: 10\r\n\r\n{",
			r.method, r.path, token, r.mediaType)
		asked, err := http.NewRequest(r.method, s.url+r.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), asked)
		if err != nil {
			t.Fatalf("%s %s: %v", r.method, r.path, err)
		}
		suite.document.check(t, asked, nil, res)
		wantProblem(t, r.method+" "+r.path, read(t, res), http.StatusRequestTimeout, "request-timeout")
	}
}

// Bodies in a coding or of a size that is not taken, on every operation that
// takes one; and streams in a format that there is not.
func TestBodiesAndFormatsThatAreNotTaken(t *testing.T) {
	s := boot(t, "embedded", nil)
	token := everything(t)
	huge := []byte(`"` + strings.Repeat("x", 40<<20) + `"`)
	for _, r := range []struct{ method, path string }{
		{http.MethodPost, "/v1/topics/a"}, {http.MethodPut, "/v1/topics/a"}, {http.MethodPost, "/v1/messages"}, {http.MethodPost, "/v1/authz/explain"},
		{http.MethodPatch, "/v1/stream/x"},
	} {
		gzipped := s.do(t, r.method, r.path, token, []byte("x"), "Content-Type", "application/json", "Content-Encoding", "gzip")
		wantProblem(t, r.method+" "+r.path+" gzipped", gzipped, http.StatusUnsupportedMediaType, "unsupported-media-type")
		tooLarge := s.do(t, r.method, r.path, token, huge, "Content-Type", "application/json")
		wantProblem(t, r.method+" "+r.path+" too large", tooLarge, http.StatusRequestEntityTooLarge, "too-large")
	}
	for accept, want := range map[string]string{
		"": "text/event-stream", "*/*": "text/event-stream", "text/event-stream, application/x-ndjson;q=0.5": "text/event-stream",
		"application/x-ndjson": "application/x-ndjson", "application/json, application/*": "application/x-ndjson", "image/png": "",
	} {
		r, err := http.NewRequest(http.MethodGet, s.url+"/v1/stream?filter=a", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		if accept != "" {
			r.Header.Set("Accept", accept)
		}
		res, err := suite.document.client(t).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if want == "" {
			wantProblem(t, accept, read(t, res), http.StatusNotAcceptable, "not-acceptable")
			continue
		}
		defer res.Body.Close()
		if got := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || got != want {
			t.Errorf("Accept %q: %d %s, want %s", accept, res.StatusCode, got, want)
		}
	}
}
