package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"flyscreen/gateway/gatewaytest"
)

// Whatever goes wrong, the answer is a problem object, and the router's own
// failures are too.
func TestRouterProblems(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.All(t)
	for _, c := range []struct {
		method, path string
		status       int
		code, allow  string
	}{
		{"GET", "/v1/nothing", 404, "not-found", ""},
		{"GET", "/v1", 404, "not-found", ""},
		{"GET", "/v1/topics%2Fa", 404, "not-found", ""},
		{"GET", "/v1//topics/a", 404, "not-found", ""},
		{"GET", "/../etc/passwd", 404, "not-found", ""},
		{"POST", "/v1/stream", 405, "method-not-allowed", "GET"},
		{"PATCH", "/v1/topics/a", 405, "method-not-allowed", "PUT"},
		{"DELETE", "/v1/topics", 405, "method-not-allowed", "GET"},
		{"GET", "/v1/messages", 405, "method-not-allowed", "POST"},
		{"POST", "/v1/ws", 405, "method-not-allowed", "GET"},
		{"POST", "/livez", 405, "method-not-allowed", "GET"},
		{"FROB", "/v1/topics/a", 405, "method-not-allowed", "PUT"},
	} {
		r, body := g.Do(t, token, c.method, c.path, "")
		var p map[string]any
		if err := json.Unmarshal([]byte(body), &p); err != nil {
			t.Errorf("%s %s: %d %v: %q", c.method, c.path, r.StatusCode, err, body)
			continue
		}
		h := r.Header
		if r.StatusCode != c.status || p["code"] != c.code || p["type"] != "/problems/"+c.code || p["status"] != float64(c.status) || p["title"] == "" || p["detail"] == "" || len(p) != 5 {
			t.Errorf("%s %s: %d %s", c.method, c.path, r.StatusCode, body)
		}
		if h.Get("Content-Type") != "application/problem+json" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: %v", c.method, c.path, h)
		}
		if !strings.Contains(h.Get("Allow"), c.allow) || c.status == 405 && h.Get("Allow") == "" {
			t.Errorf("%s %s: Allow is %q", c.method, c.path, h.Get("Allow"))
		}
	}
	// The path is not echoed, and a detail never speaks of the inside.
	_, body := g.Do(t, "", "GET", "/v1/%3Cscript%3E", "")
	if strings.Contains(body, "script") {
		t.Errorf("the answer repeats the path: %s", body)
	}
}

func TestHeadersTooLarge(t *testing.T) {
	g := gatewaytest.Start(t)
	r, _ := g.Do(t, "", "GET", "/livez", "", "X-Big: "+strings.Repeat("x", 200<<10))
	if r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("200 KiB of headers: %d", r.StatusCode)
	}
	r, _ = g.Do(t, "", "GET", "/livez", "", "X-Big: "+strings.Repeat("x", 20<<10))
	if r.StatusCode != http.StatusOK {
		t.Errorf("20 KiB of headers: %d", r.StatusCode)
	}
}

// The query may hold a secret, so the log leaves it out.
func TestLogLeavesTheQueryOut(t *testing.T) {
	g := gatewaytest.Start(t)
	for _, path := range []string{"/v1/topics?filter=a&access_token=sesame", "/v1/stream?ticket=sesame", "/v1/ws?access_token=sesame", "/v1/nothing?sesame"} {
		r, _ := g.Do(t, "", "GET", path, "", "Authorization: Bearer sesame")
		if r.StatusCode < 400 {
			t.Errorf("%s: %d", path, r.StatusCode)
		}
	}
	gatewaytest.Eventually(t, "the requests are in the log", func() bool { return strings.Contains(g.Log.String(), "/v1/ws") })
	if strings.Contains(g.Log.String(), "sesame") {
		t.Errorf("the log holds a secret:\n%s", g.Log.String())
	}
}

// A client that leaves before its answer is not an error that somebody must look
// at.
func TestClientsThatLeave(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.All(t)
	for n := range 20 {
		conn := dial(t, g)
		fmt.Fprintf(conn, "GET /v1/topics?filter=a/%d HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n", n, token)
		_ = conn.Close()
	}
	gatewaytest.Eventually(t, "all have been served", func() bool { return strings.Count(g.Log.String(), `"path":"/v1/topics","status"`) == 20 })
	if log := g.Log.String(); strings.Contains(log, `"level":"ERROR"`) {
		t.Errorf("the log complains:\n%s", log)
	}
}
