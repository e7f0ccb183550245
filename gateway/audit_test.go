package gateway_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"

	"github.com/coder/websocket"
)

// audited are the audit's lines in the log of g.
func audited(t *testing.T, g *gatewaytest.Gateway) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(g.Log.String()) {
		var members map[string]any
		if err := json.Unmarshal([]byte(line), &members); err != nil {
			t.Fatal(err)
		}
		if members["msg"] == "audit" {
			all = append(all, members)
		}
	}
	return all
}

// Each decision that changes something or refuses has one line; what only reads
// has none.
func TestAudit(t *testing.T) {
	g := gatewaytest.Start(t)
	bob := gatewaytest.Token(t, auth.Claims{Subject: "bob", Pub: []string{"pets/#"}, Sub: []string{"pets/#"}})
	for _, c := range []struct {
		method, path, token, body string
		want                      map[string]string // of the one line; nil is none
	}{
		{"POST", "/v1/topics/pets/1", bob, "geheim", map[string]string{"action": "publish", "target": "pets/1", "rule": "pets/#", "decision": "allowed", "subject": "bob", "outcome": "acknowledged", "address": "127.0.0.1"}},
		{"POST", "/v1/topics/cats/1", bob, "geheim", map[string]string{"action": "publish", "target": "cats/1", "decision": "refused", "code": "not-authorized", "subject": "bob"}},
		{"GET", "/v1/topics/cats/1", bob, "", map[string]string{"action": "GET /v1/topics/*", "target": "cats/1", "decision": "refused", "code": "not-authorized", "subject": "bob"}},
		{"GET", "/v1/stream?filter=cats/%23&filter=dogs/%2B", bob, "", map[string]string{"action": "GET /v1/stream", "target": "cats/# dogs/+", "decision": "refused", "subject": "bob"}},
		{"GET", "/v1/topics?filter=a", "x.y.z", "", map[string]string{"action": "GET /v1/topics", "decision": "refused", "code": "token-invalid", "target": "a"}},
		{"POST", "/v1/tickets", bob, "", map[string]string{"action": "ticket", "decision": "allowed", "subject": "bob"}},
		{"GET", "/v1/topics?filter=pets/%23", bob, "", nil},
		{"GET", "/v1/nothing", bob, "", nil},
		{"POST", "/v1/topics/pets/%2B", bob, "x", nil}, // malformed, which is no decision about who
	} {
		before := len(audited(t, g))
		r, body := g.Do(t, c.token, c.method, c.path, c.body)
		got := audited(t, g)[before:]
		switch {
		case c.want == nil && len(got) != 0, c.want != nil && len(got) != 1:
			t.Errorf("%s %s: %d %s: %v", c.method, c.path, r.StatusCode, body, got)
			continue
		case c.want == nil:
			continue
		}
		if id := r.Header.Get("X-Request-Id"); id == "" || got[0]["req"] != id {
			t.Errorf("%s %s: the answer's id is %q, the line's %v", c.method, c.path, id, got[0]["req"])
		}
		for name, want := range c.want {
			if got[0][name] != want {
				t.Errorf("%s %s: %s is %v, want %q", c.method, c.path, name, got[0][name], want)
			}
		}
	}
	if strings.Contains(g.Log.String(), "geheim") {
		t.Error("the log holds a payload")
	}
}

// Wherever somebody puts a credential, no log line, answer or metric repeats it.
func TestCredentialsShowNowhere(t *testing.T) {
	g := gatewaytest.Start(t)
	good := gatewaytest.Token(t, auth.Claims{Subject: "bob", All: []string{"#"}})
	key, _, err := auth.NewAPIKey(auth.APIKey{Subject: "a"})
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{"a good token": good, "a bad token": good[:len(good)-4] + "AAAA", "an API key": key}
	var answers strings.Builder
	for what, secret := range secrets {
		parts := strings.Split(secret, ".")
		proof := parts[len(parts)-1] // of which nothing may show
		if len(parts) == 1 {
			proof = secret[15:]
		}
		escaped := url.QueryEscape(secret)
		for _, c := range []struct{ token, method, path, body, header string }{
			{good, "GET", "/v1/topics/" + secret, "", ""},
			{good, "POST", "/v1/topics/%24SYS/" + secret, "x", ""},
			{"", "GET", "/v1/topics?filter=a&access_token=" + escaped, "", ""},
			{good, "GET", "/v1/topics?filter=a&" + escaped + "=1", "", ""},
			{good, "GET", "/v1/topics?filter=a&limit=" + escaped, "", ""},
			{good, "GET", "/v1/stream?filter=a&ticket=" + escaped, "", ""},
			{good, "GET", "/v1/stream?filter=a&mode=" + escaped, "", ""},
			{good, "GET", "/v1/" + secret, "", ""},
			{secret + "x", "GET", "/v1/topics/a", "", ""},
			{"", "GET", "/v1/topics/a", "", "X-Api-Key: " + secret},
			{"", "GET", "/v1/topics/a", "", "Authorization: " + secret},
			{"", "GET", "/v1/topics/a", "", "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(secret+":"+secret))},
			{good, "GET", "/v1/topics/a", "", "Origin: https://" + secret + ".example"},
			{good, "POST", "/v1/topics/a", "x", "Content-Type: " + secret},
			{good, "POST", "/v1/messages", `{"messages":[{"topic":"$SYS/` + secret + `","text":"x"}]}`, "Content-Type: application/json"},
			{good, "POST", "/v1/messages", `{"messages":[{"` + secret + `":1}]}`, "Content-Type: application/json"},
			{gatewaytest.Token(t, auth.Claims{Subject: secret[:min(len(secret), 255)], Sub: []string{"b"}}), "POST", "/v1/topics/" + secret, "x", ""},
		} {
			var header []string
			if c.header != "" {
				header = append(header, c.header)
			}
			r, body := g.Do(t, c.token, c.method, c.path, c.body, header...)
			answers.WriteString(body + r.Header.Get("WWW-Authenticate") + "\n")
		}
		for _, protocols := range [][]string{{"flyscreen.v1", "bearer." + base64.RawURLEncoding.EncodeToString([]byte(secret+"x"))}, {"flyscreen.v1", secret}} {
			conn, _, err := websocket.Dial(t.Context(), g.URL()+"/v1/ws", &websocket.DialOptions{Subprotocols: protocols, HTTPHeader: http.Header{}})
			if err != nil {
				continue
			}
			for _, frame := range []string{`{"type":"` + secret + `"}`, `{"type":"connect","token":"` + secret + `x"}`} {
				_ = conn.Write(t.Context(), websocket.MessageText, []byte(frame))
			}
			for {
				_, data, err := conn.Read(t.Context())
				if err != nil {
					answers.WriteString(err.Error() + "\n")
					break
				}
				answers.Write(data)
			}
			_ = conn.CloseNow()
		}
		_, metrics := g.Do(t, "", "GET", "/metrics", "")
		for where, text := range map[string]string{"log": g.Log.String(), "answers": answers.String(), "metrics": metrics} {
			if at := strings.Index(text, proof[:min(len(proof), 20)]); at >= 0 {
				t.Errorf("%s shows in the %s: …%.200s", what, where, text[max(0, at-150):])
			}
		}
	}
	if !strings.Contains(answers.String(), "***") || !strings.Contains(g.Log.String(), "***") {
		t.Error("nothing was masked: the test looks at the wrong places")
	}
}
