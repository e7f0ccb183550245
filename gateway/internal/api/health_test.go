package api_test

import (
	"context"
	"strings"
	"testing"

	"flyscreen/gateway/gatewaytest"
)

func TestHealth(t *testing.T) {
	g := gatewaytest.Start(t)
	for _, path := range []string{"/livez", "/readyz"} {
		r := do(t, g, "", "GET", path, "")
		r.want(t, path, 200, "")
		if r.body != `{"status":"ok"}`+"\n" || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %s %v", path, r.body, r.Header)
		}
	}
	admin := gatewaytest.Start(t, "http.admin_listen=127.0.0.1:0")
	do(t, admin, "", "GET", "/metrics", "").want(t, "metrics on the main listener", 404, "not-found")
	do(t, admin, "", "GET", "/readyz", "").want(t, "readyz on the main listener", 200, "")
}

// Metrics without an admin listener are for this machine, and not for what a proxy
// on it passes on.
func TestMetricsAreLocal(t *testing.T) {
	g := gatewaytest.Start(t)
	r := do(t, g, "", "GET", "/metrics", "")
	if r.StatusCode != 200 || !strings.Contains(r.body, "flyscreen_stream_open 0") {
		t.Errorf("metrics: %d %.300s", r.StatusCode, r.body)
	}
	for _, header := range []string{
		"X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 127.0.0.1", "Forwarded: for=192.0.2.1", "Via: 1.1 proxy", "X-Real-IP: 127.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: a",
	} {
		do(t, g, "", "GET", "/metrics", "", header).want(t, header, 404, "not-found")
	}
}

// A stopping gateway is not ready and takes no stream; what runs is finished.
func TestStopping(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.All(t)
	stream := g.Follow(t, token, "filter=a")
	do(t, g, token, "POST", "/v1/topics/a", "last").want(t, "POST", 200, "")
	if m := stream.Next(); string(m.Bytes(t)) != "last" {
		t.Errorf("got %s", m.Raw)
	}
	ctx, cancel := context.WithTimeout(context.Background(), gatewaytest.Patience)
	defer cancel()
	if err := g.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if end := stream.Next(); end.Type != "end" || end.Code != 1012 || !end.Reconnect || end.AfterMS < 0 || end.AfterMS > 5000 || end.Reason == "" {
		t.Errorf("got %s", end.Raw)
	}
}
