package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"flyscreen/gateway/gatewaytest"

	"github.com/coder/websocket"
)

// origin is one browser's page and whether it may use the gateway.
type origin struct {
	text string
	ok   bool
}

// checkOrigins asks every door.
func checkOrigins(t *testing.T, g *gatewaytest.Gateway, origins []origin) {
	t.Helper()
	token := gatewaytest.All(t)
	for _, o := range origins {
		from := "Origin: " + o.text
		for _, c := range []struct{ method, path, body string }{
			{"POST", "/v1/topics/a", "x"}, {"GET", "/v1/topics?filter=b", ""}, {"GET", "/livez", ""},
		} {
			r, body := g.Do(t, token, c.method, c.path, c.body, from)
			if o.ok && r.StatusCode != 200 || !o.ok && (r.StatusCode != 403 || !strings.Contains(body, "/problems/origin-not-allowed")) {
				t.Errorf("%s %s from %q: %d %s", c.method, c.path, o.text, r.StatusCode, body)
			}
			if !o.ok && r.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%q is refused, yet its page may read %s", o.text, c.path)
			}
		}
		if status := followFrom(t, g, token, o.text); o.ok && status != 200 || !o.ok && status != 403 {
			t.Errorf("stream from %q: %d", o.text, status)
		}
		if status := upgradeFrom(t, g, token, o.text); o.ok && status != 101 || !o.ok && status != 403 {
			t.Errorf("WebSocket from %q: %d", o.text, status)
		}
	}
}

func followFrom(t *testing.T, g *gatewaytest.Gateway, token, origin string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.URL()+"/v1/stream?filter=a", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Origin", origin)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if _, err := answer.Body.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	return answer.StatusCode
}

func upgradeFrom(t *testing.T, g *gatewaytest.Gateway, token, origin string) int {
	t.Helper()
	conn, answer, err := websocket.Dial(t.Context(), g.URL()+"/v1/ws", &websocket.DialOptions{
		Subprotocols: []string{"flyscreen.v1"},
		HTTPHeader:   http.Header{"Origin": {origin}, "Authorization": {"Bearer " + token}},
	})
	if err == nil {
		_ = conn.CloseNow()
	}
	if answer == nil {
		t.Fatal(err)
	}
	return answer.StatusCode
}

func TestSameOrigin(t *testing.T) {
	g := gatewaytest.Start(t)
	host := strings.TrimPrefix(g.URL(), "http://")
	port := host[strings.LastIndexByte(host, ':'):]
	checkOrigins(t, g, []origin{
		{"http://" + host, true},
		{"https://" + host, true}, // a proxy may have ended TLS
		{"http://localhost" + port, false},
		{"http://127.0.0.1", false},
		{"http://127.0.0.1:1", false},
		{"http://" + host + ".evil.example", false},
		{"http://evil.example", false},
		{"ftp://" + host, false},
		{"HTTP://" + host, true},
		{"http://user@" + host, false},
		{"http://" + host + "/", false},
		{"http://" + host + "?", false},
		{"http://" + host + ".", false},
		{"http://evil.example@" + host, false},
		{"http://" + host + " http://" + host, false},
		{"//" + host, false},
		{host, false},
		{"null", false},
	})
}

func TestAllowedOrigins(t *testing.T) {
	g := gatewaytest.Start(t, "http.allowed_origins=https://app.example.com,http://localhost:3000,https://*.pets.example,https://*.ports.example:8443,https://xn--bcher-kva.example,http://[::1]:3000")
	checkOrigins(t, g, []origin{
		{"https://app.example.com", true},
		{"https://APP.example.com", true},
		{"http://app.example.com", false},
		{"https://app.example.com:8443", false},
		{"https://app.example.com.evil.example", false},
		{"https://evil-app.example.com", false},
		{"https://example.com", false},
		{"http://localhost:3000", true},
		{"http://localhost:3001", false},
		{"http://localhost", false},
		{"https://a.pets.example", true},
		{"https://a.b.pets.example", true},
		{"https://pets.example", false},
		{"https://.pets.example", false},
		{"https://..pets.example", false},
		{"http://a.pets.example", false},
		{"https://a.pets.example:8443", false},
		{"https://evilpets.example", false},
		{"https://a.pets.example.evil.example", false},
		{"https://evil.example/.pets.example", false},
		{"https://evil.example?.pets.example", false},
		{"https://evil.example#.pets.example", false},
		{"https://evil.example:443.pets.example", false},
		{"https://user@evil.pets.example", false},
		{"https://app.example.com.", false},
		{"https://app.example.com:443", false}, // browsers leave the default port out
		{"https://app.example.com ", true},     // white space round a field's value is not part of it
		{"https://app.example.com https://app.example.com", false},
		{"https://app-example.com", false},
		{"https://app.example.co", false},
		{"https://app.example.comm", false},
		{"https://app%2eexample.com", false},
		{"https://\u0430pp.example.com", false}, // a Cyrillic letter
		{"https://xn--pp-8cd.example.com", false},
		{"https://xn--bcher-kva.example", true},
		{"https://b\u00fccher.example", false}, // browsers send the line above for it
		{"https://bucher.example", false},
		{"http://[::1]:3000", true},
		{"http://[::1]", false},
		{"https://a.ports.example:8443", true},
		{"https://a.ports.example", false},
		{"https://a.ports.example:84430", false},
		{"null", false},
	})
}

func TestPreflight(t *testing.T) {
	g := gatewaytest.Start(t, "http.allowed_origins=https://app.example.com")
	ask := func(origin, path string, more ...string) *http.Response {
		t.Helper()
		header := append([]string{"Origin: " + origin, "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: authorization"}, more...)
		r, body := g.Do(t, "", http.MethodOptions, path, "", header...)
		if r.StatusCode == http.StatusNoContent && body != "" {
			t.Errorf("the answer holds %q", body)
		}
		return r
	}
	for _, path := range []string{"/v1/topics/a", "/v1/topics/a%2Fb", "/v1/messages", "/v1/stream", "/v1/authz/explain"} {
		r := ask("https://app.example.com", path)
		h := r.Header
		if r.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != "https://app.example.com" || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "PUT") ||
			!strings.Contains(h.Get("Access-Control-Allow-Headers"), "Authorization") || h.Get("Access-Control-Max-Age") == "" || h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %d %v", path, r.StatusCode, h)
		}
		if !strings.Contains(strings.Join(h.Values("Vary"), ","), "Origin") {
			t.Errorf("%s: Vary is %q", path, h.Values("Vary"))
		}
		if r := ask("https://evil.example", path); r.StatusCode != 403 || r.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s from elsewhere: %d %v", path, r.StatusCode, r.Header)
		}
	}
	// Failures can be read by an allowed page too, and the answer to one origin is not
	// kept for another.
	r, _ := g.Do(t, "", "POST", "/v1/topics/a", "x", "Origin: https://app.example.com")
	if r.StatusCode != 401 || r.Header.Get("Access-Control-Allow-Origin") != "https://app.example.com" || r.Header.Get("Vary") != "Origin" {
		t.Errorf("%d %v", r.StatusCode, r.Header)
	}
	if exposed := r.Header.Get("Access-Control-Expose-Headers"); !strings.Contains(exposed, "ETag") || !strings.Contains(exposed, "Retry-After") {
		t.Errorf("exposed: %q", exposed)
	}
	r, _ = g.Do(t, gatewaytest.All(t), "POST", "/v1/topics/a", "x")
	if r.StatusCode != 200 || r.Header.Get("Vary") != "Origin" || r.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("without an origin: %d %v", r.StatusCode, r.Header)
	}
}

// A page that was loaded without TLS is not of a server that has TLS.
func TestOriginWithTLS(t *testing.T) {
	g, client := gatewaytest.StartTLS(t)
	host := strings.TrimPrefix(g.URL(), "https://")
	for origin, status := range map[string]int{"https://" + host: 200, "http://" + host: 403, "": 200} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.URL()+"/livez", nil)
		if err != nil {
			t.Fatal(err)
		}
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != status || answer.ProtoMajor != 2 {
			t.Errorf("from %q: %s %d, want %d", origin, answer.Proto, answer.StatusCode, status)
		}
	}
}
