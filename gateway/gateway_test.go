package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway"
	"flyscreen/gateway/config"
	"flyscreen/gateway/gatewaytest"
	"flyscreen/gateway/gatewaytest/mosquitto"
)

func TestReadyzFollowsTheBroker(t *testing.T) {
	broker := mosquitto.Start(t)
	g := gatewaytest.Start(t, "upstream.url="+broker.URL())
	status := func(path string) int {
		answer, _ := g.Do(t, "", http.MethodGet, path, "")
		return answer.StatusCode
	}
	if s := status("/readyz"); s != http.StatusOK {
		t.Errorf("readyz with the broker: %d", s)
	}
	broker.Kill()
	gatewaytest.Eventually(t, "readyz is red", func() bool { return status("/readyz") == http.StatusServiceUnavailable })
	if s := status("/livez"); s != http.StatusOK {
		t.Errorf("livez without the broker: %d", s)
	}
	answer, body := g.Do(t, gatewaytest.All(t), http.MethodPost, "/v1/topics/a", "x")
	if answer.StatusCode != http.StatusAccepted || !strings.Contains(body, `"delivery":"queued"`) {
		t.Errorf("a publish without the broker: %d %s", answer.StatusCode, body)
	}
	answer, body = g.Do(t, gatewaytest.All(t), http.MethodPost, "/v1/topics/a?qos=0", "x")
	if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
		t.Errorf("a publish with QoS 0 without the broker: %d %s", answer.StatusCode, body)
	}
	broker.Start()
	gatewaytest.Eventually(t, "readyz is green", func() bool { return status("/readyz") == http.StatusOK })
	gatewaytest.Eventually(t, "publishes are acknowledged again", func() bool {
		answer, _ := g.Do(t, gatewaytest.All(t), http.MethodPost, "/v1/topics/a", "x")
		return answer.StatusCode == http.StatusOK
	})
}

// What the gateway logs holds no token, wherever the client put it.
func TestTokensAreNotLogged(t *testing.T) {
	g := gatewaytest.Start(t, "auth.allow_token_in_query=true")
	token := gatewaytest.All(t)
	for _, path := range []string{
		"/v1/topics/a?access_token=" + token,
		"/v1/topics/a?token=" + token,
		"/v1/ws?access_token=" + token,
	} {
		g.Do(t, "", http.MethodGet, path, "")
	}
	g.Do(t, token, http.MethodGet, "/v1/topics/a", "", "Cookie: token="+token)
	if log := g.Log.String(); !strings.Contains(log, "/v1/topics/a") || strings.Contains(log, token[:40]) {
		t.Errorf("the log lacks the requests, or holds the token:\n%s", log)
	}
}

func TestStopTellsStreamsAndLeavesNothing(t *testing.T) {
	g := gatewaytest.Start(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.URL()+"/v1/stream?filter=%23", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+gatewaytest.All(t))
	r.Header.Set("Accept", "application/x-ndjson")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), gatewaytest.Patience)
	defer cancel()
	if err := g.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	var last struct {
		Type      string
		Code      int
		Reconnect bool
	}
	for d := json.NewDecoder(answer.Body); d.More(); {
		if err := d.Decode(&last); err != nil {
			t.Fatal(err)
		}
	}
	if last.Type != "end" || last.Code != 1012 || !last.Reconnect {
		t.Errorf("the last line: %+v", last)
	}
}

func TestStartFailsWhereItCannotListen(t *testing.T) {
	first := gatewaytest.Start(t)
	cfg, err := config.Load(config.Sources{Flags: map[string]string{
		"http.listen": strings.TrimPrefix(first.URL(), "http://"), "broker.listen": "127.0.0.1:0", "data_dir": t.TempDir(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(cfg, gateway.Options{Logger: slog.New(slog.DiscardHandler), DevKey: gatewaytest.Secret})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), gatewaytest.Patience)
	defer cancel()
	if err := g.Start(ctx); err == nil || !strings.Contains(err.Error(), "http.listen") {
		t.Errorf("%v", err)
	}
}

func TestExpiredTokenPublishesNothing(t *testing.T) {
	g := gatewaytest.Start(t, "limits.leeway=1s")
	old := gatewaytest.Token(t, auth.Claims{All: []string{"#"}, TTL: time.Minute, Now: time.Now().Add(-time.Hour)})
	answer, body := g.Do(t, old, http.MethodPost, "/v1/topics/a", "x")
	if answer.StatusCode != http.StatusUnauthorized || !strings.Contains(body, `"token-expired"`) {
		t.Errorf("%d %s", answer.StatusCode, body)
	}
}

// Without a length an HTTP/1.0 body ends with the connection; taken for none, it
// would be published empty.
func TestHTTP10BodyNeedsALength(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.All(t)
	for header, want := range map[string]int{"": http.StatusBadRequest, "Content-Length: 2\r\n": http.StatusOK} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.URL(), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, err = io.WriteString(conn, "POST /v1/topics/a HTTP/1.0\r\nAuthorization: Bearer "+token+"\r\n"+header+"\r\nhi")
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != want {
			t.Errorf("with %q: %d, want %d", header, answer.StatusCode, want)
		}
	}
}

// What explain says of the gateway's own topics is what publishing says.
func TestReservedTopics(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.All(t)
	for topic, want := range map[string]int{"flyscreen-barrier/x": http.StatusBadRequest, "flyscreen/x": http.StatusOK} {
		if answer, body := g.Do(t, token, http.MethodPost, "/v1/topics/"+topic, "x"); answer.StatusCode != want {
			t.Errorf("publish to %s: %d %s", topic, answer.StatusCode, body)
		}
		question := `{"action":"publish","topic":"` + topic + `"}`
		if answer, body := g.Do(t, token, http.MethodPost, "/v1/authz/explain", question, "Content-Type: application/json"); answer.StatusCode != want {
			t.Errorf("explain %s: %d %s", topic, answer.StatusCode, body)
		}
	}
}

// Two issuers may use one subject; neither uses up the other's limits.
func TestLimitsTellIssuersApart(t *testing.T) {
	g := gatewaytest.Start(t, "limits.publish_rate=0.001", "limits.publish_burst=1")
	for _, issuer := range []string{"https://one.example", "https://two.example"} {
		token := gatewaytest.Token(t, auth.Claims{Issuer: issuer, All: []string{"#"}})
		if answer, body := g.Do(t, token, http.MethodPost, "/v1/topics/a", "x"); answer.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", issuer, answer.StatusCode, body)
		}
		if answer, body := g.Do(t, token, http.MethodPost, "/v1/topics/a", "x"); answer.StatusCode != http.StatusTooManyRequests {
			t.Errorf("%s, a second time: %d %s", issuer, answer.StatusCode, body)
		}
	}
}
