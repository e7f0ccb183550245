package upstream_test

import (
	"strings"
	"testing"
	"time"

	"flyscreen/gateway/internal/upstream"
)

func TestURLs(t *testing.T) {
	for url, bad := range map[string]string{
		"tcp://broker":               "",
		"mqtt://broker:1883":         "",
		"mqtt://broker/":             "",
		"ssl://broker":               "",
		"tls://broker":               "",
		"mqtts://[::1]:8883":         "",
		"ws://broker/mqtt?x=1":       "",
		"wss://broker":               "",
		"":                           "missing",
		"broker:1883":                "scheme",
		"http://broker":              "scheme",
		"tcp://":                     "no host",
		"tcp://:1883":                "no host",
		"tcp://broker/path":          "path",
		"tcp://user:hunter2@broker":  "options of their own",
		"tcp://user:hunter2@[broker": "does not parse",
	} {
		_, err := upstream.New(upstream.Options{URL: url})
		switch {
		case bad == "" && err != nil:
			t.Errorf("%s: %v", url, err)
		case bad != "" && (err == nil || !strings.Contains(err.Error(), bad)):
			t.Errorf("%s: %v, want something about %q", url, err, bad)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the error tells the password: %v", url, err)
		}
	}
}

func TestOptionsAllComplaintsAtOnce(t *testing.T) {
	_, err := upstream.New(upstream.Options{
		URL: "gopher://x", Password: "p", ClientID: "a\x00", KeepAlive: -1, PingTimeout: -1,
		BackoffMin: time.Second, BackoffMax: time.Millisecond, MaxPacket: 1, MaxInflight: 70_000, SnapshotBytes: -1,
	})
	for _, want := range []string{"gopher", "password needs a username", "client id", "keep alive", "ping timeout", "backoff max", "max packet", "max inflight", "snapshot"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("nothing about %q in: %v", want, err)
		}
	}
}

func TestNotReadyBeforeRun(t *testing.T) {
	u, err := upstream.New(upstream.Options{URL: "tcp://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Ready(); err == nil || !strings.Contains(err.Error(), "the publish connection to tcp://127.0.0.1:1 is not up yet") {
		t.Errorf("got %v", err)
	}
}
