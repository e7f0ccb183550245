package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"flyscreen/gateway"
	"flyscreen/gateway/config"
)

// testConfig is a gateway on free ports.
func testConfig(t *testing.T) *config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.DataDir = t.TempDir()
	cfg.HTTP.Listen, cfg.Broker.Listen = "127.0.0.1:0", "127.0.0.1:0"
	return cfg
}

// told sends on a channel once a log line with that text was written.
type told struct {
	text string
	seen chan struct{}
}

func (w *told) Write(line []byte) (int, error) {
	if strings.Contains(string(line), w.text) {
		w.seen <- struct{}{}
	}
	return len(line), nil
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	stopping := &told{text: "stopping", seen: make(chan struct{}, 1)}
	started, release := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	cfg := testConfig(t)
	go func() {
		ended <- runGateway(context.Background(), cfg, slog.New(slog.NewTextHandler(stopping, nil)),
			func(context.Context, *gateway.Gateway, []byte) error {
				close(started)
				<-release // does not end when it is asked to
				return nil
			})
	}()
	for i, ready := range []chan struct{}{started, stopping.seen} {
		select {
		case <-ready:
		case err := <-ended:
			t.Fatalf("ended before signal %d: %v", i+1, err)
		case <-time.After(patience):
			t.Fatalf("signal %d is never due", i+1)
		}
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "second signal") {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Error("the second signal did not end it")
	}
	close(release)
}

func TestWhatRunsBesideEndsTheGatewayWhenItFails(t *testing.T) {
	broken := errors.New("the fleet is lost")
	err := runGateway(context.Background(), testConfig(t), slog.New(slog.DiscardHandler),
		func(_ context.Context, g *gateway.Gateway, key []byte) error {
			if g.URL() == "" || len(key) == 0 {
				t.Error("the gateway does not run, or has no key")
			}
			return broken
		})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

func TestOwnURL(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want string
	}{
		{nil, "http://127.0.0.1:8080"},
		{[]string{"FLYSCREEN_HTTP_LISTEN=0.0.0.0:9000"}, "http://127.0.0.1:9000"},
		{[]string{"FLYSCREEN_HTTP_LISTEN=:9000"}, "http://127.0.0.1:9000"},
		{[]string{"FLYSCREEN_HTTP_LISTEN=[::]:9000"}, "http://127.0.0.1:9000"},
		{[]string{"FLYSCREEN_HTTP_LISTEN=[::1]:9000"}, "http://[::1]:9000"},
		{[]string{"FLYSCREEN_HTTP_LISTEN=10.0.0.1:9000", "FLYSCREEN_HTTP_TLS_CERT=x"}, "https://10.0.0.1:9000"},
	} {
		if got := ownURL(streams{env: c.env}); got != c.want {
			t.Errorf("%v: got %s, want %s", c.env, got, c.want)
		}
	}
}

func TestMosquittoFlags(t *testing.T) {
	for _, c := range []struct{ broker, user, want string }{
		{"tcp://127.0.0.1:1883", "", "-h 127.0.0.1 -p 1883"},
		{"mqtts://b.example:8883", "u", "-h b.example -p 8883 --tls-use-os-certs -u u -P …"},
	} {
		if got := mosquittoFlags(c.broker, c.user); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestEscapeTopic(t *testing.T) {
	for topic, want := range map[string]string{
		"a/b":     "a/b",
		"/a//":    "/a//",
		"a b?c#d": "a%20b%3Fc%23d",
		"50%/ü":   "50%25/%C3%BC",
	} {
		if got := escapeTopic(topic); got != want {
			t.Errorf("%q: got %s, want %s", topic, got, want)
		}
	}
}
