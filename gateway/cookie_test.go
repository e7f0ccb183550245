package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"

	"github.com/coder/websocket"
)

// A cookie is what a browser sends by itself, for other sites too: it lets a request
// read, and do more only from an allowed origin. What is sent on purpose outranks it.
func TestCookie(t *testing.T) {
	g := gatewaytest.Start(t, "auth.cookie=fly", "http.allowed_origins=https://app.example")
	own := "Origin: " + g.URL()
	cookie := "Cookie: fly=" + gatewaytest.Token(t, auth.Claims{Subject: "c", Sub: []string{"#"}, Pub: []string{"#"}})
	for _, row := range []struct {
		name, method, path, token string
		header                    []string
		status                    int
	}{
		{"reading", http.MethodGet, "/v1/topics?filter=a", "", []string{cookie}, 200},
		{"no cookie", http.MethodGet, "/v1/topics?filter=a", "", nil, 401},
		{"another cookie", http.MethodGet, "/v1/topics?filter=a", "", []string{"Cookie: other=x"}, 401},
		{"a bad token", http.MethodGet, "/v1/topics?filter=a", "", []string{"Cookie: fly=x"}, 401},
		{"two of them", http.MethodGet, "/v1/topics?filter=a", "", []string{cookie + "; fly=x"}, 401},
		{"writing without an origin", http.MethodPost, "/v1/topics/a", "", []string{cookie}, 403},
		{"from another origin", http.MethodPost, "/v1/topics/a", "", []string{cookie, "Origin: https://evil.example"}, 403},
		{"from the null origin", http.MethodPost, "/v1/topics/a", "", []string{cookie, "Origin: null"}, 403},
		{"from an allowed origin", http.MethodPost, "/v1/topics/a", "", []string{cookie, "Origin: https://app.example"}, 200},
		{"from the same origin", http.MethodPost, "/v1/topics/a", "", []string{cookie, own}, 200},
		{"a header outranks it", http.MethodPost, "/v1/topics/a", gatewaytest.All(t), []string{"Cookie: fly=x"}, 200},
	} {
		answer, body := g.Do(t, row.token, row.method, row.path, strings.Repeat("x", btoi(row.method == http.MethodPost)), row.header...)
		if answer.StatusCode != row.status {
			t.Errorf("%s: %s %s, want %d", row.name, answer.Status, body, row.status)
		}
		credentials := answer.Header.Get("Access-Control-Allow-Credentials") == "true"
		if want := strings.Contains(strings.Join(row.header, " "), "app.example"); credentials != want {
			t.Errorf("%s: Access-Control-Allow-Credentials is %v", row.name, credentials)
		}
	}
	off := gatewaytest.Start(t)
	if answer, _ := off.Do(t, "", http.MethodGet, "/v1/topics?filter=a", "", cookie); answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("a cookie that nobody configured: %s", answer.Status)
	}
	for origin, want := range map[string]bool{"": false, "https://evil.example": false, g.URL(): true} {
		header := http.Header{"Cookie": {strings.TrimPrefix(cookie, "Cookie: ")}}
		if origin != "" {
			header.Set("Origin", origin)
		}
		conn, answer, err := websocket.Dial(t.Context(), g.URL()+"/v1/ws",
			&websocket.DialOptions{Subprotocols: []string{"flyscreen.v1"}, HTTPHeader: header})
		if (err == nil) != want {
			t.Errorf("a WebSocket from %q: %v, %v", origin, answer, err)
		}
		if err == nil {
			_ = conn.CloseNow()
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
