package api_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
	"flyscreen/gateway/gatewaytest/mosquitto"
)

// retryAfter is the answer's Retry-After in seconds; 0 without one.
func (r reply) retryAfter(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(r.Header.Get("Retry-After"))
	if err != nil {
		t.Errorf("Retry-After is %q", r.Header.Get("Retry-After"))
	}
	return n
}

// The rate is a subject's, whatever its token; anonymous clients have their
// address's.
func TestPublishRate(t *testing.T) {
	g := gatewaytest.Start(t, "limits.publish_rate=0.001", "limits.publish_burst=2",
		"auth.anonymous.pub=open/#", "http.trusted_proxies=127.0.0.1")
	post := func(token string, header ...string) reply {
		return do(t, g, token, "POST", "/v1/topics/open/a", "x", header...)
	}
	a1 := gatewaytest.Token(t, auth.Claims{Subject: "a", All: []string{"open/#"}})
	a2 := gatewaytest.Token(t, auth.Claims{Subject: "a", Pub: []string{"#"}})
	post(a1).want(t, "first", 200, "")
	post(a2).want(t, "second", 200, "")
	for _, token := range []string{a1, a2} {
		r := post(token)
		r.want(t, "third", 429, "rate-limited")
		if n := r.retryAfter(t); n < 1 || n > 1000 {
			t.Errorf("Retry-After: %d", n)
		}
	}
	post(gatewaytest.Token(t, auth.Claims{Subject: "b", Pub: []string{"#"}})).want(t, "another subject", 200, "")
	for _, from := range []string{"192.0.2.1", "192.0.2.2", "2001:db8::1"} {
		post("", "X-Forwarded-For: "+from).want(t, from, 200, "")
		post("", "X-Forwarded-For: 198.51.100.7, "+from).want(t, from, 200, "")
		post("", "X-Forwarded-For: 198.51.100.8, "+from).want(t, from+" under another claim", 429, "rate-limited")
	}
	post("", "X-Forwarded-For: 2001:db8::ffff").want(t, "the same network", 429, "rate-limited")
	post("", "X-Forwarded-For: 2001:db8:0:1::1").want(t, "another network", 200, "")
	do(t, g, a1, "GET", "/v1/topics/open/a", "").want(t, "reading is not publishing", 404, "not-found")
	batch := do(t, g, "", "POST", "/v1/messages", `{"topic":"open/a","text":"x"}`, asNDJSON, "X-Forwarded-For: 192.0.2.1")
	if !strings.Contains(batch.body, "/problems/rate-limited") {
		t.Errorf("a batch beyond the rate: %s", batch.body)
	}
}

func TestCredentials(t *testing.T) {
	g := gatewaytest.Start(t, "limits.leeway=1s")
	long := gatewaytest.Token(t, auth.Claims{All: []string{"#"}, Now: time.Now().Add(-time.Hour), TTL: 2 * time.Hour})
	over := gatewaytest.Token(t, auth.Claims{All: []string{"#"}, Now: time.Now().Add(-time.Hour), TTL: time.Minute})
	post := func(header ...string) reply { return do(t, g, "", "POST", "/v1/topics/a", "x", header...) }
	post("Authorization: Bearer "+long).want(t, "valid", 200, "")
	post("Authorization: bearer "+long).want(t, "the scheme in lower case", 200, "")
	for _, c := range []struct{ what, header, code, challenge string }{
		{"nothing", "X: y", "unauthenticated", `Bearer realm="flyscreen"`},
		{"expired", "Authorization: Bearer " + over, "token-expired", `error="invalid_token"`},
		{"forged", "Authorization: Bearer " + long[:len(long)-4] + "AAAA", "token-invalid", `error="invalid_token"`},
		{"garbage", "Authorization: Bearer x", "token-invalid", `error="invalid_token"`},
		{"basic", "Authorization: Basic eDp5", "unauthenticated", `Bearer realm="flyscreen"`},
		{"key", "X-API-Key: k", "unauthenticated", `Bearer realm="flyscreen"`},
	} {
		r := post(c.header)
		r.want(t, c.what, 401, c.code)
		if h := r.Header.Get("WWW-Authenticate"); !strings.Contains(h, c.challenge) {
			t.Errorf("%s: WWW-Authenticate %q", c.what, h)
		}
	}
	do(t, g, "", "POST", "/v1/topics/a?access_token="+long, "x").want(t, "in the query", 400, "bad-request")
	if strings.Contains(g.Log.String(), long) {
		t.Error("the log holds a token")
	}
	open := gatewaytest.Start(t, "auth.allow_token_in_query=true")
	do(t, open, "", "POST", "/v1/topics/a?access_token="+long, "x").want(t, "in the query where that is allowed", 200, "")
	do(t, open, "", "GET", "/v1/topics?filter=a&access_token="+long, "").want(t, "list", 200, "")
	do(t, open, long, "POST", "/v1/topics/a?access_token="+long, "x").want(t, "twice", 400, "bad-request")
	if strings.Contains(open.Log.String(), long) {
		t.Error("the log holds a token")
	}
}

// Without the broker, and without an outbox, nothing is promised, and the answer says when to come back;
// with it everything works again.
func TestBrokerGone(t *testing.T) {
	b := mosquitto.Start(t)
	g := gatewaytest.Start(t, "upstream.url="+b.URL(), "outbox.enabled=false", "limits.upstream_backoff_min=10ms", "limits.upstream_backoff_max=50ms")
	token := gatewaytest.All(t)
	do(t, g, token, "PUT", "/v1/topics/a", "1").want(t, "PUT", 200, "")
	do(t, g, "", "GET", "/readyz", "").want(t, "readyz", 200, "")
	b.Kill()
	gatewaytest.Eventually(t, "readyz is red", func() bool { return do(t, g, "", "GET", "/readyz", "").StatusCode == 503 })
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/v1/topics/a", "x"}, {"POST", "/v1/topics/a?qos=0", "x"}, {"PUT", "/v1/topics/a", "x"}, {"DELETE", "/v1/topics/a", ""},
		{"GET", "/v1/topics/a", ""}, {"GET", "/v1/topics?filter=a", ""}, {"GET", "/v1/stream?filter=a", ""},
	} {
		r := do(t, g, token, c.method, c.path, c.body)
		r.want(t, c.method+" "+c.path, 503, "upstream-unavailable")
		if r.retryAfter(t) < 1 {
			t.Errorf("%s: come back at once", c.path)
		}
	}
	if got := results(t, do(t, g, token, "POST", "/v1/messages", `{"topic":"a","text":"x"}`, asNDJSON)); len(got) != 1 || got[0] != "upstream-unavailable" {
		t.Errorf("batch: %q", got)
	}
	do(t, g, token, "POST", "/v1/topics/+", "x").want(t, "a bad request is one all the same", 400, "invalid-topic")
	do(t, g, "", "GET", "/livez", "").want(t, "livez", 200, "")
	b.Start()
	gatewaytest.Eventually(t, "readyz is green", func() bool { return do(t, g, "", "GET", "/readyz", "").StatusCode == 200 })
	do(t, g, token, "POST", "/v1/topics/a", "x").want(t, "POST again", 200, "")
}
