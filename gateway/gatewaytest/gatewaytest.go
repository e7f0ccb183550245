// Package gatewaytest runs a whole gateway inside a test: the real rooms, on free
// ports, in front of the embedded broker or a real Mosquitto. Nothing is mocked.
package gatewaytest

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway"
	"flyscreen/gateway/config"
)

// Patience is how long a test waits for something that must happen. It is
// generous, because machines are shared; it is never waited out on success.
const Patience = 30 * time.Second

// Secret signs the tokens of Token.
var Secret = []byte("gatewaytest: not a secret at all, but long enough")

// Gateway is a running gateway.
type Gateway struct {
	*gateway.Gateway
	Log *Log
}

// Start runs a gateway with the settings, each "key=value" in the words of the
// configuration file, waits until it is ready, and stops it when the test ends.
func Start(t testing.TB, settings ...string) *Gateway {
	t.Helper()
	g := StartCold(t, settings...)
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := g.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return g
}

// StartCold is Start for a gateway that need not become ready.
func StartCold(t testing.TB, settings ...string) *Gateway {
	t.Helper()
	flags := map[string]string{
		"http.listen":   "127.0.0.1:0",
		"broker.listen": "127.0.0.1:0",
		"data_dir":      t.TempDir(),
	}
	for _, s := range settings {
		key, value, _ := strings.Cut(s, "=")
		flags[key] = value
	}
	cfg, err := config.Load(config.Sources{Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	log := &Log{}
	g, err := gateway.New(cfg, gateway.Options{
		Logger:  slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Version: "test",
		DevKey:  Secret,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := g.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		if err := g.Stop(ctx); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return &Gateway{Gateway: g, Log: log}
}

// Token is a bearer token for claims; without Subject and TTL it is for "test" and
// holds an hour.
func Token(t testing.TB, claims auth.Claims) string {
	t.Helper()
	if claims.Subject == "" {
		claims.Subject = "test"
	}
	if claims.TTL == 0 {
		claims.TTL = time.Hour
	}
	token, err := auth.Mint(Secret, claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// All is a token that may do everything outside the "$" topics.
func All(t testing.TB) string { return Token(t, auth.Claims{All: []string{"#"}}) }

// Do sends a request with the token ("": none) and returns the answer with its
// body read. header holds "Name: value" lines.
func (g *Gateway) Do(t testing.TB, token, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, g.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(data)
}

// Eventually waits until done returns true, and fails the test with what if that
// does not happen.
func Eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(Patience)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("this did not happen within %s: %s", Patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
