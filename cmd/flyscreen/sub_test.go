package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestSub gives sub the streams that a gateway may send.
func TestSub(t *testing.T) {
	const message = `{"type":"message","topic":"a","payload":{"x":1}}` + "\n"
	cases := []struct {
		name, stream string
		args         []string
		code         int
		out, err     string
	}{
		{"enough messages", message + "\n" + message, []string{"-n", "1"}, exitOK, message, ""},
		{"payloads", message + `{"type":"message","text":"hi"}` + "\n" + `{"type":"message","base64":"/wA="}` + "\n" +
			`{"type":"message","text":""}` + "\n" + `{"type":"message","payload":null}` + "\n",
			[]string{"-n", "5", "--format", "payload"}, exitOK, "{\"x\":1}\nhi\n\xff\x00\n\nnull\n", ""},
		{"control events", `{"type":"gap","missed":3}` + "\n" + message, []string{"-n", "1"}, exitOK, message, `{"type":"gap","missed":3}`},
		{"an end with a reason", message + `{"type":"end","code":4401,"reason":"the token expired"}` + "\n", nil, exitFailure, message, "the token expired (code 4401)"},
		{"an end without", message, nil, exitFailure, message, "ended without a reason"},
		{"not a gateway", "hello\n", nil, exitFailure, "", "not JSON"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if f := r.URL.Query()["filter"]; len(f) != 2 || f[0] != "a b/%2B/#" || strings.Contains(r.URL.RawQuery, "+") {
					t.Errorf("the query %q", r.URL.RawQuery)
				}
				if r.Header.Get("Authorization") != "Bearer T" || r.Header.Get("Accept") != "application/x-ndjson" {
					t.Errorf("the headers %v", r.Header)
				}
				_, _ = w.Write([]byte(c.stream))
			}))
			defer server.Close()
			var out, say strings.Builder
			code := run(append([]string{"sub", "a b/%2B/#", "x/+"}, c.args...),
				streams{in: strings.NewReader(""), out: &out, err: &say, env: []string{"FLYSCREEN_URL=" + server.URL, "FLYSCREEN_TOKEN=T"}})
			if code != c.code || out.String() != c.out || !strings.Contains(say.String(), c.err) {
				t.Errorf("got %d, %q, %q\nwant %d, %q, %q", code, out.String(), say.String(), c.code, c.out, c.err)
			}
		})
	}
}

// TestPubShowsWhatAnswers gives pub answers that are not from a gateway.
func TestPubShowsWhatAnswers(t *testing.T) {
	for _, c := range []struct {
		status    int
		kind, say string
	}{
		{http.StatusNotFound, "text/html", "not like a gateway"},
		{http.StatusMovedPermanently, "text/html", "not like a gateway"},
		{http.StatusServiceUnavailable, "application/problem+json", "503 Upstream unavailable: it is down (try again in 7 s)"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(`{"title":"Upstream unavailable","detail":"it is down"}`))
		}))
		var out, say strings.Builder
		code := run([]string{"pub", "a", "--data", "x", "--url", server.URL}, streams{in: strings.NewReader(""), out: &out, err: &say})
		server.Close()
		if code != exitFailure || out.String() != "" || !strings.Contains(say.String(), c.say) {
			t.Errorf("%d: got %d, %q, want %q", c.status, code, say.String(), c.say)
		}
	}
}
