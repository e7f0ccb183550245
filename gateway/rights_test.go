package gateway_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"

	"github.com/coder/websocket"
)

// socket is a WebSocket of the gateway.
type socket struct {
	t    *testing.T
	conn *websocket.Conn
}

func dialSocket(t *testing.T, g *gatewaytest.Gateway, query string, protocols ...string) *socket {
	t.Helper()
	conn, answer, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(g.URL(), "http")+"/v1/ws"+query,
		&websocket.DialOptions{Subprotocols: append([]string{"flyscreen.v1"}, protocols...)})
	if err != nil {
		t.Fatal(err)
	}
	if answer.Body != nil {
		_ = answer.Body.Close()
	}
	conn.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = conn.CloseNow() })
	return &socket{t, conn}
}

func bearer(token string) string {
	return "bearer." + base64.RawURLEncoding.EncodeToString([]byte(token))
}

// ask sends a frame and returns the first answer of that type.
func (s *socket) ask(frame, kind string) string {
	s.t.Helper()
	if err := s.conn.Write(s.t.Context(), websocket.MessageText, []byte(frame)); err != nil {
		s.t.Fatal(err)
	}
	return s.until(kind)
}

func (s *socket) until(kind string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), gatewaytest.Patience)
	defer cancel()
	for {
		_, data, err := s.conn.Read(ctx)
		if err != nil {
			s.t.Fatalf("no %s came: %v", kind, err)
		}
		if strings.HasPrefix(string(data), `{"type":"`+kind+`"`) {
			return string(data)
		}
	}
}

func TestRefreshOverWebSocket(t *testing.T) {
	g := gatewaytest.Start(t)
	s := dialSocket(t, g, "", bearer(gatewaytest.Token(t, auth.Claims{Sub: []string{"a/#"}})))
	s.ask(`{"type":"subscribe","id":1,"filters":["#"]}`, "live")
	for what, bad := range map[string]string{
		"of nobody":            `"x"`,
		"of another subject":   `"` + gatewaytest.Token(t, auth.Claims{Subject: "other", Sub: []string{"#"}}) + `"`,
		"that is not a string": `1`,
	} {
		if answer := s.ask(`{"type":"auth","id":2,"token":`+bad+`}`, "error"); !strings.Contains(answer, `"id":2`) {
			t.Errorf("a token %s: %s", what, answer)
		}
	}
	g.Do(t, gatewaytest.All(t), http.MethodPost, "/v1/topics/a/b", "1")
	if m := s.until("message"); !strings.Contains(m, `"a/b"`) {
		t.Errorf("the connection does not go on with its old token: %s", m)
	}
	token := gatewaytest.Token(t, auth.Claims{Sub: []string{"b/#"}, TTL: 2 * time.Hour})
	var ack struct {
		ID      int
		Expires time.Time
		Granted []string
	}
	if err := json.Unmarshal([]byte(s.ask(`{"type":"auth","id":4,"token":"`+token+`"}`, "authack")), &ack); err != nil {
		t.Fatal(err)
	}
	if ack.ID != 4 || strings.Join(ack.Granted, " ") != "b/#" || time.Until(ack.Expires) < 110*time.Minute {
		t.Errorf("%+v", ack)
	}
	g.Do(t, gatewaytest.All(t), http.MethodPost, "/v1/topics/a/b", "2")
	g.Do(t, gatewaytest.All(t), http.MethodPost, "/v1/topics/b/c", "3")
	if m := s.until("message"); !strings.Contains(m, `"b/c"`) {
		t.Errorf("after the refresh came %s", m)
	}
	nothing := gatewaytest.Token(t, auth.Claims{Pub: []string{"c"}})
	if end := s.ask(`{"type":"auth","id":5,"token":"`+nothing+`"}`, "end"); !strings.Contains(end, "4403") {
		t.Error(end)
	}
	for _, token := range []string{token, nothing} {
		if strings.Contains(g.Log.String(), token) {
			t.Error("a token is in the log")
		}
	}
}

func TestRefreshOverHTTP(t *testing.T) {
	g := gatewaytest.Start(t)
	s := g.Open(t, gatewaytest.Token(t, auth.Claims{Sub: []string{"a/#"}}), "filter=%23")
	path := "/v1/stream/" + s.Until("live")[0].Stream + "/token"
	for what, row := range map[string]struct {
		token  string
		status int
	}{
		"no token":        {"", http.StatusUnauthorized},
		"a bad token":     {"x", http.StatusUnauthorized},
		"another subject": {gatewaytest.Token(t, auth.Claims{Subject: "other", Sub: []string{"#"}}), http.StatusNotFound},
	} {
		if answer, body := g.Do(t, row.token, http.MethodPut, path, ""); answer.StatusCode != row.status {
			t.Errorf("%s: %s %s", what, answer.Status, body)
		}
	}
	token := gatewaytest.Token(t, auth.Claims{Sub: []string{"b/#"}})
	answer, body := g.Do(t, token, http.MethodPut, path, "")
	if answer.StatusCode != http.StatusOK || !strings.Contains(body, `"granted":["b/#"]`) || !strings.Contains(body, `"expires":"2`) {
		t.Fatalf("%s %s", answer.Status, body)
	}
	g.Do(t, gatewaytest.All(t), http.MethodPost, "/v1/topics/a/b", "2")
	g.Do(t, gatewaytest.All(t), http.MethodPost, "/v1/topics/b/c", "3")
	if m := s.Until("message"); m[len(m)-1].Topic != "b/c" {
		t.Errorf("after the refresh came %+v", m)
	}
	if answer, body := g.Do(t, gatewaytest.Token(t, auth.Claims{Pub: []string{"c"}}), http.MethodPut, path, ""); answer.StatusCode != http.StatusForbidden {
		t.Errorf("grants that leave nothing: %s %s", answer.Status, body)
	}
	if end := s.Until("end"); end[len(end)-1].Code != 4403 {
		t.Errorf("%+v", end)
	}
	gatewaytest.Eventually(t, "the stream is gone", func() bool {
		answer, _ := g.Do(t, token, http.MethodPut, path, "")
		return answer.StatusCode == http.StatusNotFound
	})
	for _, line := range []string{`"action":"refresh"`, `"action":"subscribe"`} {
		if !strings.Contains(g.Log.String(), line) {
			t.Errorf("the audit has no %s", line)
		}
	}
}

func TestTicketsOpenStreams(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.Token(t, auth.Claims{Sub: []string{"a"}})
	ticket := func() string {
		var got struct{ Ticket string }
		_, body := g.Do(t, token, http.MethodPost, "/v1/tickets", "")
		if err := json.Unmarshal([]byte(body), &got); err != nil || got.Ticket == "" {
			t.Fatalf("%s: %v", body, err)
		}
		return got.Ticket
	}
	one := ticket()
	if granted := g.Follow(t, "", "filter=%23&ticket="+one); granted == nil {
		t.Error("no stream")
	}
	dialSocket(t, g, "?ticket="+ticket()).ask(`{"type":"subscribe","filters":["a"]}`, "live")
	unused := ticket()
	for what, row := range map[string]struct {
		path, token string
		status      int
	}{
		"used already":          {"/v1/stream?filter=a&ticket=" + one, "", http.StatusUnauthorized},
		"used already, ws":      {"/v1/ws?ticket=" + one, "", http.StatusUnauthorized},
		"with a token":          {"/v1/stream?filter=a&ticket=" + unused, token, http.StatusBadRequest},
		"with a token, ws":      {"/v1/ws?ticket=" + unused, token, http.StatusBadRequest},
		"two":                   {"/v1/stream?filter=a&ticket=" + unused + "&ticket=" + unused, "", http.StatusBadRequest},
		"empty":                 {"/v1/stream?filter=a&ticket=", "", http.StatusBadRequest},
		"where there are none":  {"/v1/topics?filter=a&ticket=" + unused, "", http.StatusUnauthorized},
		"and a token elsewhere": {"/v1/topics?filter=a&ticket=" + unused, token, http.StatusBadRequest},
	} {
		if answer, body := g.Do(t, row.token, http.MethodGet, row.path, ""); answer.StatusCode != row.status {
			t.Errorf("a ticket %s: %s %s", what, answer.Status, body)
		}
	}
	g.Follow(t, "", "filter=a&ticket="+unused) // none of them used it up
	for _, text := range []string{one, unused} {
		if strings.Contains(g.Log.String(), text) {
			t.Error("a ticket is in the log")
		}
	}
}

// A key that is taken out of its file ends the streams that it opened; others go on.
func TestWithdrawnCredentialsEndStreams(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	gone, goneLine, err := auth.NewAPIKey(auth.APIKey{Subject: "gone", Sub: []string{"a/#"}})
	if err != nil {
		t.Fatal(err)
	}
	stays, staysLine, err := auth.NewAPIKey(auth.APIKey{Subject: "stays", Sub: []string{"a/#"}})
	if err != nil {
		t.Fatal(err)
	}
	write := func(lines ...string) {
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(goneLine, staysLine)
	g := gatewaytest.Start(t, "auth.api_keys_file="+file)
	open := func(key string) *socket {
		conn, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(g.URL(), "http")+"/v1/ws", &websocket.DialOptions{
			Subprotocols: []string{"flyscreen.v1"}, HTTPHeader: http.Header{"X-Api-Key": {key}},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.CloseNow() })
		s := &socket{t, conn}
		s.ask(`{"type":"subscribe","filters":["a/#"]}`, "live")
		return s
	}
	one, two := open(gone), open(stays)
	write(staysLine)
	g.Reload()
	if end := one.until("end"); !strings.Contains(end, "4410") || !strings.Contains(end, `"reconnect":false`) {
		t.Error(end)
	}
	g.Do(t, gatewaytest.All(t), http.MethodPost, "/v1/topics/a/b", "1")
	two.until("message")
	if !strings.Contains(g.Log.String(), `"action":"end stream"`) {
		t.Error("the audit does not say that a stream was ended")
	}
}
