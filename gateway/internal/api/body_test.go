package api_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
)

func TestBodyLimit(t *testing.T) {
	g := gatewaytest.Start(t, "limits.payload_bytes=1000", "limits.batch_messages=3")
	token := gatewaytest.All(t)
	for _, c := range []struct {
		what string
		size int
		ok   bool
	}{{"at the limit", 1000, true}, {"beyond it", 1001, false}, {"far beyond it", 5 << 20, false}} {
		body := strings.Repeat("x", c.size)
		status, code := 200, ""
		if !c.ok {
			status, code = 413, "too-large"
		}
		do(t, g, token, "POST", "/v1/topics/b", body).want(t, c.what, status, code)
		chunked, err := http.NewRequestWithContext(t.Context(), "POST", g.URL()+"/v1/topics/b", io.MultiReader(strings.NewReader(body)))
		if err != nil {
			t.Fatal(err)
		}
		chunked.Header.Set("Authorization", "Bearer "+token)
		if c.size > 1<<20 {
			continue // the connection is closed under a client that goes on sending
		}
		answer, err := http.DefaultClient.Do(chunked)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		reply{answer, string(text)}.want(t, c.what+", chunked", status, code)
	}
	batch := func(size int) string {
		return fmt.Sprintf(`{"messages":[{"topic":"b","text":%q}]}`, strings.Repeat("x", size))
	}
	do(t, g, token, "POST", "/v1/messages", batch(16000), "Content-Type: application/json").want(t, "a batch beyond its limit", 413, "too-large")
	if r := do(t, g, token, "POST", "/v1/messages", batch(1001), "Content-Type: application/json"); r.StatusCode != 200 || !strings.Contains(r.body, "/problems/too-large") {
		t.Errorf("a large message in a batch: %d %s", r.StatusCode, r.body)
	}
}

// A body that breaks off is never published as a shorter message, and harms nobody.
func TestBrokenBodies(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.All(t)
	stream := g.Follow(t, token, "filter=broken/%23")
	head := []string{"POST /v1/topics/broken/a HTTP/1.1", "Host: gateway", "Authorization: Bearer " + token}
	for what, rest := range map[string][]string{
		"no such chunk size":        {"Transfer-Encoding: chunked", "", "zz", "abc", ""},
		"chunk longer than told":    {"Transfer-Encoding: chunked", "", "3", "abcd", "0", "", ""},
		"chunk extension unending":  {"Transfer-Encoding: chunked", "", "3;" + strings.Repeat("x", 20000), "abc", "0", "", ""},
		"chunked and gzip":          {"Transfer-Encoding: gzip, chunked", "", "0", "", ""},
		"length and chunked":        {"Transfer-Encoding: chunked", "Content-Length: 3, 4", "", "3", "abc", "0", "", ""},
		"two lengths":               {"Content-Length: 3", "Content-Length: 4", "", "abcd"},
		"a length that is no digit": {"Content-Length: +3", "", "abc"},
	} {
		conn := dial(t, g)
		send(t, conn, append(head[:3:3], rest...)...)
		if r := receive(t, conn); r.StatusCode != 400 && r.StatusCode != 501 {
			t.Errorf("%s: %d %s", what, r.StatusCode, r.body)
		}
	}
	for what, rest := range map[string][]string{
		"chunked":    {"Transfer-Encoding: chunked", "", "5", "hello", "5", "wor"},
		"by length":  {"Content-Length: 100", "", "hello"},
		"no chunk":   {"Transfer-Encoding: chunked", "", "5", "hello"},
		"only heads": {"Content-Length: 5", ""},
	} {
		conn := dial(t, g)
		send(t, conn, append(head[:3:3], rest...)...)
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		receive(t, conn).want(t, "broken off, "+what, 400, "bad-request")
	}
	do(t, g, token, "POST", "/v1/topics/broken/a", "whole").want(t, "control", 200, "")
	if m := stream.Next(); string(m.Bytes(t)) != "whole" {
		t.Errorf("a broken body was published: %s", m.Raw)
	}
}

func TestContentEncoding(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.All(t)
	for _, coding := range []string{"gzip", "br", "identity, gzip"} {
		do(t, g, token, "POST", "/v1/topics/c", "x", "Content-Encoding: "+coding).want(t, coding, 415, "unsupported-media-type")
	}
	do(t, g, token, "POST", "/v1/topics/c", "x", "Content-Encoding: Identity").want(t, "identity", 200, "")
}

// A body that does not come is given up, also when nobody wants to read it.
func TestSlowBodies(t *testing.T) {
	g := gatewaytest.Start(t, "limits.body_timeout=1s")
	token := gatewaytest.All(t)
	none := gatewaytest.Token(t, auth.Claims{})
	var checks []func()
	for _, c := range []struct {
		what, line, token string
		status            int
		code              string
	}{
		{"publish", "POST /v1/topics/slow", token, 408, "request-timeout"},
		{"batch", "POST /v1/messages", token, 408, "request-timeout"},
		{"explain", "POST /v1/authz/explain", token, 408, "request-timeout"},
		{"no credential", "POST /v1/topics/slow", "x", 401, "token-invalid"},
		{"bad topic", "POST /v1/topics/+", none, 400, "invalid-topic"},
		{"no such path", "POST /v1/nothing", token, 404, "not-found"},
		{"a body that GET does not have", "GET /v1/topics/slow", token, 404, "not-found"},
	} {
		for _, framing := range []string{"Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc"} {
			conn := dial(t, g)
			send(t, conn, c.line+" HTTP/1.1", "Host: gateway", "Content-Type: application/json", "Authorization: Bearer "+c.token, framing)
			checks = append(checks, func() {
				what := c.what + " with " + framing[:9]
				receive(t, conn).want(t, what, c.status, c.code)
				if _, err := conn.Read(make([]byte, 1)); err == nil {
					t.Errorf("%s: the connection goes on in the midst of a body", what)
				}
			})
		}
	}
	for _, check := range checks {
		check()
	}
}

func TestSlowBodyHTTP2(t *testing.T) {
	g, h := gatewaytest.StartTLS(t, "limits.body_timeout=1s")
	reader, writer := io.Pipe()
	defer func() { _ = writer.Close() }()
	r, err := http.NewRequestWithContext(t.Context(), "POST", g.URL()+"/v1/topics/slow", reader)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+gatewaytest.All(t))
	go func() { _, _ = writer.Write([]byte("abc")) }()
	answer, err := h.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.ProtoMajor != 2 {
		t.Errorf("%s: %v", answer.Proto, err)
	}
	reply{answer, string(text)}.want(t, "HTTP/2", 408, "request-timeout")
}

// A request may take longer than its body may, once the body is there.
func TestBodyDeadlineEndsWithTheBody(t *testing.T) {
	g := gatewaytest.Start(t, "limits.body_timeout=1s", "limits.publish_rate=1", "limits.publish_burst=1")
	var body bytes.Buffer
	for range 3 {
		body.WriteString(`{"topic":"patient","text":"x"}` + "\n")
	}
	r := do(t, g, gatewaytest.All(t), "POST", "/v1/messages", body.String(), "Content-Type: application/x-ndjson")
	if n := strings.Count(r.body, "acknowledged"); r.StatusCode != 200 || n != 3 {
		t.Errorf("two seconds for three messages: %d %s", r.StatusCode, r.body)
	}
}
