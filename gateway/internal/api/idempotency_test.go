package api_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
	"flyscreen/gateway/gatewaytest/mosquitto"
)

// A repetition with the same key publishes nothing and gets the same answer.
func TestIdempotencyKey(t *testing.T) {
	for _, enabled := range []string{"true", "false"} {
		g := gatewaytest.Start(t, "outbox.enabled="+enabled)
		token, other := gatewaytest.All(t), gatewaytest.Token(t, auth.Claims{Subject: "other", All: []string{"#"}})
		s := g.Follow(t, token, "filter=i/%23")
		post := func(token, path, body, key string) reply {
			return do(t, g, token, "POST", "/v1/topics/"+path, body, "Idempotency-Key: "+key)
		}
		first := post(token, "i/1", "a", "k")
		first.want(t, "the first", 200, "")
		again := post(token, "i/1", "a", "k")
		again.want(t, "the second", 200, "")
		if first.Header.Get("Idempotency-Replayed") != "" || again.Header.Get("Idempotency-Replayed") != "true" || again.body != first.body {
			t.Errorf("%v %s, %v %s", first.Header, first.body, again.Header, again.body)
		}
		for what, r := range map[string]reply{
			"another payload": post(token, "i/1", "b", "k"),
			"another topic":   post(token, "i/2", "a", "k"),
			"another qos":     post(token, "i/1?qos=2", "a", "k"),
			"another retain":  do(t, g, token, "PUT", "/v1/topics/i/1", "a", "Idempotency-Key: k"),
		} {
			r.want(t, what, 422, "idempotency-mismatch")
		}
		for _, bad := range []string{strings.Repeat("k", 256), "é", "a\tb"} {
			post(token, "i/1", "a", bad).want(t, "the key "+bad, 400, "bad-request")
		}
		post(other, "i/1", "other's", "k").want(t, "another principal's key", 200, "")
		post(token, "i/1", "end", "k2").want(t, "another key", 200, "")
		for _, want := range []string{"a", "other's", "end"} {
			if m := s.Next(); string(m.Bytes(t)) != want {
				t.Errorf("%s came where %q was due", m.Raw, want)
			}
		}
	}
}

// A refused request leaves the key free.
func TestIdempotencyKeyAfterAFailure(t *testing.T) {
	broker := mosquitto.Start(t)
	g := gatewaytest.Start(t, "outbox.enabled=false", "upstream.url="+broker.URL())
	token := gatewaytest.All(t)
	broker.Kill()
	gatewaytest.Eventually(t, "a refusal", func() bool {
		return do(t, g, token, "POST", "/v1/topics/i", "a", "Idempotency-Key: k").StatusCode == 503
	})
	broker.Start()
	gatewaytest.Eventually(t, "the same request's success", func() bool {
		r := do(t, g, token, "POST", "/v1/topics/i", "a", "Idempotency-Key: k")
		if r.Header.Get("Idempotency-Replayed") != "" {
			t.Errorf("a failure was replayed: %s", r.body)
		}
		return r.StatusCode == 200
	})
}

// With the outbox a key is remembered over a restart, whatever its first answer was.
func TestIdempotencyKeyAfterARestart(t *testing.T) {
	broker, dir := mosquitto.Start(t), t.TempDir()
	settings := []string{"upstream.url=" + broker.URL(), "data_dir=" + dir}
	g := gatewaytest.Start(t, settings...)
	token := gatewaytest.All(t)
	post := func(g *gatewaytest.Gateway, key string) reply {
		return do(t, g, token, "POST", "/v1/topics/i/"+key, "a", "Idempotency-Key: "+key)
	}
	post(g, "direct").want(t, "with the broker", 200, "")
	broker.Kill()
	gatewaytest.Eventually(t, "the connections are down", func() bool { return do(t, g, "", "GET", "/readyz", "").StatusCode == 503 })
	post(g, "kept").want(t, "without the broker", 202, "")
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	broker.Start()
	g = gatewaytest.Start(t, settings...)
	for key, status := range map[string]int{"direct": 200, "kept": 202} {
		r := post(g, key)
		r.want(t, key+" after the restart", status, "")
		if r.Header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s was published again", key)
		}
	}
	do(t, g, token, "POST", "/v1/topics/i/other", "b", "Idempotency-Key: direct").want(t, "another request", 422, "idempotency-mismatch")
}

// Of many at once with one key, one is published, and all get its answer.
func TestIdempotencyKeyAtOnce(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.All(t)
	s := g.Follow(t, token, "filter=i")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			do(t, g, token, "POST", "/v1/topics/i", "once", "Idempotency-Key: k").want(t, "one of many", 200, "")
		})
	}
	wg.Wait()
	do(t, g, token, "POST", "/v1/topics/i", "end").want(t, "the last", 200, "")
	for _, want := range []string{"once", "end"} {
		if m := s.Next(); string(m.Bytes(t)) != want {
			t.Errorf("%s came where %q was due", m.Raw, want)
		}
	}
}

// A repeated batch publishes only what failed; its messages may have keys of their own.
func TestIdempotentBatch(t *testing.T) {
	g := gatewaytest.Start(t, "limits.publish_rate=1000")
	token := gatewaytest.Token(t, auth.Claims{All: []string{"i/#"}})
	s := g.Follow(t, token, "filter=i/%23")
	batch := func(body, key string) reply {
		return do(t, g, token, "POST", "/v1/messages", body, "Content-Type: application/json", "Idempotency-Key: "+key)
	}
	body := `{"messages":[{"topic":"i/1","text":"1"},{"topic":"no","text":"x"},{"topic":"i/1","text":"2"},{"topic":"i/2","text":"3","idempotency_key":"own"}]}`
	for n := range 3 {
		r := batch(body, "k")
		r.want(t, fmt.Sprint("batch ", n), 200, "")
		if strings.Count(r.body, "acknowledged") != 3 || strings.Count(r.body, `"code":"not-authorized"`) != 1 {
			t.Errorf("batch %d: %s", n, r.body)
		}
	}
	batch(strings.Replace(body, `"2"`, `"4"`, 1), "k").want(t, "another batch", 422, "idempotency-mismatch")
	do(t, g, token, "POST", "/v1/topics/i/2", "3", "Idempotency-Key: own").want(t, "the message's own key", 200, "")
	do(t, g, token, "POST", "/v1/topics/i/1", "end").want(t, "the last", 200, "")
	got := map[string]int{}
	for range 4 {
		got[string(s.Next().Bytes(t))]++
	}
	for _, want := range []string{"1", "2", "3", "end"} {
		if got[want] != 1 {
			t.Errorf("%q came %d times: %v", want, got[want], got)
		}
	}
}
