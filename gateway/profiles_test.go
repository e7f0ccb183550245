package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"flyscreen/gateway/gatewaytest"
)

// Profiles are where /metrics is and for the same peers, and only when they are
// asked for.
func TestProfiles(t *testing.T) {
	for _, c := range []struct {
		settings []string
		path     string
		headers  []string
		want     int
	}{
		{[]string{"http.pprof=true"}, "/debug/pprof/heap", nil, http.StatusOK},
		{[]string{"http.pprof=true"}, "/debug/pprof/profile?seconds=1", nil, http.StatusOK},
		{[]string{"http.pprof=true"}, "/debug/pprof/heap", []string{"X-Forwarded-For: 192.0.2.1"}, http.StatusNotFound},
		{[]string{"http.pprof=true"}, "/debug/pprof/cmdline", nil, http.StatusNotFound},
		{nil, "/debug/pprof/heap", nil, http.StatusNotFound},
		{[]string{"http.pprof=true", "http.admin_listen=127.0.0.1:0"}, "/debug/pprof/heap", nil, http.StatusNotFound},
	} {
		t.Run(strings.Join(c.settings, ",")+c.path, func(t *testing.T) {
			g := gatewaytest.Start(t, c.settings...)
			if r, body := g.Do(t, "", http.MethodGet, c.path, "", c.headers...); r.StatusCode != c.want {
				t.Errorf("%d, want %d: %.100s", r.StatusCode, c.want, body)
			}
		})
	}
	g := gatewaytest.Start(t, "http.pprof=true", "http.admin_listen=127.0.0.1:0")
	r, err := http.Get(g.AdminURL() + "/debug/pprof/heap")
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	if r.StatusCode != http.StatusOK {
		t.Errorf("at the admin listener: %d", r.StatusCode)
	}
}
