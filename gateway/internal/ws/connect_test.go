package ws_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"

	"github.com/coder/websocket"
)

// What is wrong before the upgrade gets a proper HTTP answer.
func TestUpgradeRefused(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.All(t)
	refused := func(what string, answer *http.Response, err error, status int, text string) {
		t.Helper()
		if err == nil || answer == nil || answer.StatusCode != status {
			t.Errorf("%s: %v, %v", what, answer, err)
			return
		}
		body, _ := io.ReadAll(answer.Body)
		if !strings.Contains(string(body), text) || answer.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s", what, body)
		}
	}
	for _, query := range []string{"?session=x"} {
		_, answer, err := try(t, g, token, query)
		refused(query, answer, err, 400, "not supported yet")
	}
	for _, query := range []string{"?batch=2", "?batch=true", "?batch=1&batch=1", "?filter=a", "?x", "?batch=%zz", "?since=x", "?since="} {
		_, answer, err := try(t, g, token, query)
		refused(query, answer, err, 400, "bad-request")
	}
	_, answer, err := try(t, g, "nonsense", "")
	refused("a bad token", answer, err, 401, "token-invalid")
	_, answer, err = try(t, g, "", "", "Authorization: Basic eDp5")
	refused("basic", answer, err, 401, "unauthenticated")
	_, answer, err = try(t, g, "", "", "X-API-Key: k")
	refused("an API key", answer, err, 401, "unauthenticated")
	for _, protocols := range [][]string{nil, {"mqtt"}, {"flyscreen.v2"}} {
		_, answer, err := websocket.Dial(t.Context(), g.URL()+"/v1/ws", &websocket.DialOptions{Subprotocols: protocols})
		refused("subprotocol "+strings.Join(protocols, ","), answer, err, 400, "flyscreen.v1")
	}
	r, body := g.Do(t, token, "GET", "/v1/ws", "")
	if r.StatusCode != 400 || !strings.Contains(body, "upgrade") {
		t.Errorf("not an upgrade: %d %s", r.StatusCode, body)
	}
}

// A browser can send its token with the handshake, as a subprotocol that is never
// chosen.
func TestTokenAsSubprotocol(t *testing.T) {
	g := gatewaytest.Start(t, "auth.anonymous.sub=open/#")
	bearer := func(token string) string { return "bearer." + base64.RawURLEncoding.EncodeToString([]byte(token)) }
	token := gatewaytest.Token(t, auth.Claims{Subject: "page", All: []string{"#"}})
	for _, protocols := range [][]string{{"flyscreen.v1", bearer(token)}, {bearer(token), "other", "flyscreen.v1"}} {
		conn, answer, err := websocket.Dial(t.Context(), g.URL()+"/v1/ws", &websocket.DialOptions{Subprotocols: protocols})
		if err != nil {
			t.Fatal(err)
		}
		if p := conn.Subprotocol(); p != "flyscreen.v1" || strings.Contains(fmt.Sprint(answer.Header), "bearer") {
			t.Errorf("the answer is %v", answer.Header)
		}
		c := &client{t: t, ctx: t.Context(), conn: conn}
		c.send(`{"type":"connect"}`)
		if f := c.want("connack"); f.Subject != "page" {
			t.Errorf("got %s", f.Raw)
		}
		_ = conn.CloseNow()
	}
	for what, c := range map[string]struct {
		protocols []string
		header    http.Header
		query     string
		status    int
	}{
		"a bad token":                  {[]string{"flyscreen.v1", bearer("x")}, nil, "", 401},
		"an empty token":               {[]string{"flyscreen.v1", bearer("")}, nil, "", 401},
		"not base64url":                {[]string{"flyscreen.v1", "bearer.~"}, nil, "", 401},
		"twice":                        {[]string{"flyscreen.v1", bearer(token), bearer(token)}, nil, "", 401},
		"with a header too":            {[]string{"flyscreen.v1", bearer(token)}, http.Header{"Authorization": {"Bearer " + token}}, "", 401},
		"with a bad header too":        {[]string{"flyscreen.v1", bearer(token)}, http.Header{"Authorization": {"Bearer x"}}, "", 401},
		"with one in the query too":    {[]string{"flyscreen.v1", bearer(token)}, nil, "?access_token=" + token, 400},
		"without the real subprotocol": {[]string{bearer(token)}, nil, "", 400},
	} {
		_, answer, err := websocket.Dial(t.Context(), g.URL()+"/v1/ws"+c.query, &websocket.DialOptions{Subprotocols: c.protocols, HTTPHeader: c.header})
		if err == nil || answer == nil || answer.StatusCode != c.status {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestConnect(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.Token(t, auth.Claims{Subject: "dash", All: []string{"#"}})
	check := func(c *client, id string) {
		t.Helper()
		f := c.want("connack")
		if string(f.ID) != id || f.Stream == "" || f.Subject != "dash" || f.Expires == nil || !strings.Contains(f.Raw, `"session_present":false`) {
			t.Errorf("got %s", f.Raw)
		}
		for name, n := range map[string]int{"payload_bytes": 256 << 10, "topic_bytes": 1024, "request_filters": 16, "filters": 100, "queue_messages": 1000, "queue_bytes": 1 << 20} {
			if f.Limits[name] != n {
				t.Errorf("%s is %d in %s", name, f.Limits[name], f.Raw)
			}
		}
		c.subscribe("a")
	}
	c := open(t, g, "", "")
	c.sendf(`{"type":"connect","id":7,"token":%q}`, token)
	check(c, "7")
	c.sendf(`{"type":"connect","id":8,"token":%q}`, token)
	if f := c.wantError("a second connect", "bad-request"); string(f.ID) != "8" {
		t.Errorf("got %s", f.Raw)
	}

	c = open(t, g, token, "")
	c.send(`{"type":"connect"}`)
	check(c, "")

	c = open(t, g, token, "") // connect is not needed when HTTP has brought the token
	c.subscribe("a")
	c.send(`{"type":"connect"}`)
	c.wantError("connect after another frame", "bad-request")

	c = open(t, g, "", "")
	c.send(`{"type":"ping"}`)
	c.want("pong")
	c.sendf(`{"type":"connect","token":%q}`, token)
	c.want("connack")
}

// A client that brings a second token could count twice, or as somebody else.
func TestOneTokenOnly(t *testing.T) {
	g := gatewaytest.Start(t, "limits.streams_per_subject=1")
	token := gatewaytest.Token(t, auth.Claims{Subject: "a", All: []string{"#"}})
	other := gatewaytest.Token(t, auth.Claims{Subject: "b", All: []string{"#"}})
	for range 3 {
		c := open(t, g, token, "")
		for _, second := range []string{token, other} {
			c.sendf(`{"type":"connect","token":%q}`, second)
			c.wantError("a second token", "bad-request")
		}
		c.send(`{"type":"connect"}`)
		if f := c.want("connack"); f.Subject != "a" {
			t.Errorf("got %s", f.Raw)
		}
		c.send(`{"type":"disconnect"}`)
		c.wantEnd("disconnect", 1000)
		gatewaytest.Eventually(t, "the stream is gone", func() bool { return metric(t, g, "flyscreen_stream_open") == "0" })
	}
}

func TestNotAuthenticated(t *testing.T) {
	g := gatewaytest.Start(t, "limits.auth_timeout=1s", "limits.streams_per_subject=1")
	for what, first := range map[string]string{
		"subscribe first":     `{"type":"subscribe","id":1,"filters":["a"]}`,
		"publish first":       `{"type":"publish","topic":"a","text":"x"}`,
		"something unknown":   `{"type":"frob"}`,
		"connect, no token":   `{"type":"connect"}`,
		"connect, bad token":  `{"type":"connect","token":"x"}`,
		"connect, not signed": `{"type":"connect","token":"eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."}`,
	} {
		c := open(t, g, "", "")
		c.send(first)
		end := c.wantEnd(what, 4401)
		if end.Reconnect || end.Reason == "" {
			t.Errorf("%s: %s", what, end.Raw)
		}
	}
	over := gatewaytest.Token(t, auth.Claims{All: []string{"#"}, Now: time.Now().Add(-time.Hour), TTL: time.Minute})
	c := open(t, g, "", "")
	c.sendf(`{"type":"connect","id":3,"token":%q}`, over)
	if f := c.wantError("expired", "token-expired"); string(f.ID) != "3" {
		t.Errorf("got %s", f.Raw)
	}
	c.wantEnd("expired", 4401)

	silent := open(t, g, "", "")
	if end := silent.wantEnd("silence", 4401); !strings.Contains(end.Reason, "in time") {
		t.Errorf("got %s", end.Raw)
	}
	stays := open(t, g, gatewaytest.All(t), "")
	stays.subscribe("a")
	c = open(t, g, "", "")
	c.sendf(`{"type":"connect","token":%q}`, gatewaytest.All(t))
	c.wantError("one stream too many", "rate-limited")
	if end := c.wantEnd("one stream too many", 4429); !end.Reconnect {
		t.Errorf("got %s", end.Raw)
	}
	c = open(t, g, gatewaytest.All(t), "")
	if end := c.wantEnd("one stream too many, by header", 4429); !end.Reconnect || end.AfterMS < 1000 {
		t.Errorf("got %s", end.Raw)
	}
}

func TestAnonymous(t *testing.T) {
	g := gatewaytest.Start(t, "auth.anonymous.sub=open/#", "limits.auth_timeout=1s")
	c := open(t, g, "", "")
	c.send(`{"type":"subscribe","filters":["#"]}`)
	if f := c.want("suback"); f.Results[0].Granted[0] != "open/#" {
		t.Errorf("got %s", f.Raw)
	}
	c.want("live")
	c.send(`{"type":"publish","id":1,"topic":"open/a","text":"x"}`)
	c.wantError("publish", "not-authorized")
	// A browser cannot set headers, so the token may still come.
	c = open(t, g, "", "")
	c.sendf(`{"type":"connect","token":%q}`, gatewaytest.Token(t, auth.Claims{Subject: "a", All: []string{"mine/#"}}))
	if f := c.want("connack"); f.Subject != "a" || f.Expires == nil {
		t.Errorf("got %s", f.Raw)
	}
	c.send(`{"type":"subscribe","filters":["#"]}`)
	if f := c.want("suback"); f.Results[0].Granted[0] != "mine/#" {
		t.Errorf("got %s", f.Raw)
	}
	c = open(t, g, "", "")
	c.send(`{"type":"connect"}`)
	if f := c.want("connack"); f.Subject != "" || !strings.Contains(f.Raw, `"expires":null`) {
		t.Errorf("got %s", f.Raw)
	}
	c = open(t, g, "", "")
	c.send(`{"type":"connect","token":"x"}`)
	c.wantError("a bad token makes nobody anonymous", "token-invalid")
	c.wantEnd("a bad token", 4401)
}

func TestExpiry(t *testing.T) {
	g := gatewaytest.Start(t, "limits.leeway=1s")
	c := open(t, g, gatewaytest.Token(t, auth.Claims{All: []string{"#"}, TTL: time.Second}), "")
	warned := false
	for !warned {
		warned = c.next().Type == "token_expiring"
	}
	end := c.wantEnd("expiry", 4401)
	if end.Reconnect || !strings.Contains(end.Reason, "expired") {
		t.Errorf("got %s", end.Raw)
	}
}

// A stopping gateway ends every connection with a hint to come back, whatever it
// is doing.
func TestDrain(t *testing.T) {
	g := gatewaytest.Start(t)
	idle := open(t, g, gatewaytest.All(t), "")
	idle.subscribe("a")
	batch := open(t, g, gatewaytest.All(t), "?batch=1")
	waiting := open(t, g, "", "")
	silent := open(t, g, gatewaytest.All(t), "")
	silent.subscribe("a")
	gatewaytest.Eventually(t, "all streams are open", func() bool { return metric(t, g, "flyscreen_stream_open") == "4" })
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), gatewaytest.Patience)
		defer cancel()
		stopped <- g.Stop(ctx)
	}()
	for _, c := range []*client{idle, waiting} {
		end := c.wantEnd("drain", 1012)
		if !end.Reconnect || end.AfterMS < 0 || end.AfterMS > 5000 {
			t.Errorf("got %s", end.Raw)
		}
	}
	if raw := string(batch.raw()); !strings.HasPrefix(raw, `[{"type":"end","code":1012,`) {
		t.Errorf("got %s", raw)
	}
	if _, _, err := batch.conn.Read(batch.ctx); websocket.CloseStatus(err) != 1012 {
		t.Errorf("got %v", err)
	}
	if err := <-stopped; err != nil { // the silent client does not hold it up
		t.Error(err)
	}
}
