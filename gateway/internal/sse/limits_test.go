package sse_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
	"flyscreen/gateway/internal/sse"
)

// How many streams there may be: for a subject, for an address, in all.
func TestStreamLimits(t *testing.T) {
	g := gatewaytest.Start(t, "limits.streams_per_subject=2", "limits.streams_per_address=4", "limits.streams=6",
		"http.trusted_proxies=127.0.0.1", "auth.anonymous.sub=#")
	token := func(subject string) string {
		return gatewaytest.Token(t, auth.Claims{Subject: subject, Sub: []string{"#"}})
	}
	ask := func(token, from string, status int, code string) *client {
		t.Helper()
		c := open(t, g, http.DefaultClient, token, "filter=a", "X-Forwarded-For: "+from)
		if c.answer.StatusCode != status {
			t.Fatalf("from %s: %s, want %d", from, c.answer.Status, status)
		}
		if status == 200 {
			c.next()
			return c
		}
		body, _ := io.ReadAll(c.r)
		after, err := strconv.Atoi(c.answer.Header.Get("Retry-After"))
		if !strings.Contains(string(body), "/problems/"+code) || err != nil || after < 1 {
			t.Errorf("from %s: %s, Retry-After %d, %v", from, body, after, err)
		}
		return c
	}
	first := ask(token("a"), "192.0.2.1", 200, "")
	ask(token("a"), "192.0.2.2", 200, "")
	ask(token("a"), "192.0.2.3", 429, "rate-limited")
	ask("", "192.0.2.1", 200, "") // anonymous clients share no subject
	ask("", "192.0.2.1", 200, "")
	ask("", "192.0.2.1", 200, "")
	ask("", "192.0.2.1", 429, "rate-limited")
	ask(token("b"), "192.0.2.1", 429, "rate-limited")
	ask(token("b"), "192.0.2.9", 200, "")
	ask(token("c"), "192.0.2.10", 503, "overloaded")
	first.close()
	gatewaytest.Eventually(t, "the stream is free again", func() bool { return metric(t, g, "flyscreen_stream_open") == "5" })
	ask(token("a"), "192.0.2.1", 200, "")
	ask("", "192.0.2.11", 503, "overloaded")
	// A stream that is refused its filters takes nothing.
	g2 := gatewaytest.Start(t, "limits.streams_per_subject=1")
	for range 3 {
		if r, _ := g2.Do(t, gatewaytest.Token(t, auth.Claims{Sub: []string{"b"}}), "GET", "/v1/stream?filter=a", ""); r.StatusCode != 403 {
			t.Errorf("got %s", r.Status)
		}
	}
}

func TestClientsThatLeaveAreForgotten(t *testing.T) {
	g := gatewaytest.Start(t)
	var all []*client
	for i := range 5 {
		c := follow(t, g, gatewaytest.All(t), fmt.Sprintf("filter=f/%d", i))
		c.until("live")
		all = append(all, c)
	}
	if n := metric(t, g, "flyscreen_stream_open"); n != "5" {
		t.Errorf("%s streams are open", n)
	}
	for _, c := range all {
		c.close()
	}
	gatewaytest.Eventually(t, "no stream is open", func() bool { return metric(t, g, "flyscreen_stream_open") == "0" })
}

// A reader that stops reading costs the others nothing, and is told exactly how
// many messages it missed.
func TestSlowReader(t *testing.T) {
	g := gatewaytest.Start(t, "limits.queue_messages=50", "limits.publish_rate=100000", "limits.publish_burst=100000")
	token := gatewaytest.All(t)
	quick := follow(t, g, token, "filter=slow")
	quick.until("live")

	raw, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(g.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	fmt.Fprintf(raw, "GET /v1/stream?filter=slow&snapshot=false HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n", token)
	gatewaytest.Eventually(t, "both streams are open", func() bool { return metric(t, g, "flyscreen_stream_open") == "2" })

	// What the kernel's buffers take is not known, so publish until messages are
	// dropped, and some more.
	sent, after := 0, 0
	payload := strings.Repeat("x", 64<<10)
	for after < 20 {
		publish(t, g, "slow", fmt.Sprintf("%d %s", sent, payload))
		_, m := quick.next()
		if n, _, _ := strings.Cut(string(m.Bytes(t)), " "); n != strconv.Itoa(sent) {
			t.Fatalf("the quick reader got %s where %d was due", n, sent)
		}
		sent++
		if metric(t, g, "flyscreen_stream_dropped_messages_total") != "0" {
			after++
		}
		if sent > 2000 {
			t.Fatal("nothing was dropped")
		}
	}

	if err := raw.SetReadDeadline(time.Now().Add(gatewaytest.Patience)); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(raw), nil)
	if err != nil {
		t.Fatal(err)
	}
	slow := &client{t: t, answer: answer, r: bufio.NewReader(answer.Body)}
	next, gaps := 0, 0
	for next < sent {
		e, l := slow.next()
		switch e.name {
		case "gap":
			if l.Reason != "slow" || l.Missed == nil || *l.Missed < 1 {
				t.Fatalf("got %s", l.Raw)
			}
			gaps++
			next += *l.Missed
		case "message":
			if n, _, _ := strings.Cut(string(l.Bytes(t)), " "); n != strconv.Itoa(next) {
				t.Fatalf("got %s where %d was due", n, next)
			}
			next++
		}
	}
	if gaps == 0 || next != sent {
		t.Errorf("%d gaps; %d of %d accounted for", gaps, next, sent)
	}
	publish(t, g, "slow", "0 again")
	if _, m := slow.next(); string(m.Bytes(t)) != "0 again" {
		t.Errorf("the slow reader goes on with %.100s", m.Raw)
	}
}

// A reader that takes nothing within the write deadline is dropped.
func TestStuckReader(t *testing.T) {
	g := gatewaytest.Start(t, "limits.write_timeout=1s", "limits.publish_rate=100000", "limits.publish_burst=100000", "limits.queue_bytes=16MiB")
	raw, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(g.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = raw.Close() }()
	fmt.Fprintf(raw, "GET /v1/stream?filter=stuck&snapshot=false HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n", gatewaytest.All(t))
	gatewaytest.Eventually(t, "the stream is open", func() bool { return metric(t, g, "flyscreen_stream_open") == "1" })
	payload := strings.Repeat("x", 200<<10)
	gatewaytest.Eventually(t, "the stream is dropped", func() bool {
		publish(t, g, "stuck", payload)
		return metric(t, g, "flyscreen_stream_open") == "0"
	})
}

// A quiet stream gives signs of life, and one that is not quiet needs none.
func TestHeartbeat(t *testing.T) {
	sse.SetHeartbeat(t, 100*time.Millisecond)
	g := gatewaytest.Start(t)
	c := follow(t, g, gatewaytest.All(t), "filter=h")
	c.until("live")
	for c.comments < 3 {
		if _, err := c.line(); err != nil { // a comment or the empty line behind it
			t.Fatal(err)
		}
		c.comments++
	}
	lines := follow(t, g, gatewaytest.All(t), "filter=h", "Accept: application/x-ndjson")
	for empty := 0; empty < 3; {
		line, err := lines.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\n" {
			empty++
		}
	}
}

// The write deadline is one for each write: a stream over HTTP/2 outlives it, quiet
// or not.
func TestHTTP2(t *testing.T) {
	sse.SetHeartbeat(t, 1200*time.Millisecond) // longer than the deadline, as with the defaults
	g, h := gatewaytest.StartTLS(t, "limits.write_timeout=1s")
	c := open(t, g, h, gatewaytest.All(t), "filter=h2")
	if c.answer.StatusCode != 200 || c.answer.ProtoMajor != 2 {
		t.Fatalf("%s %s", c.answer.Proto, c.answer.Status)
	}
	c.until("live")
	begun := time.Now()
	for c.comments < 1 {
		line, err := c.line()
		if err != nil {
			t.Fatalf("the stream ended after %s: %v", time.Since(begun), err)
		}
		if strings.HasPrefix(line, ":") {
			c.comments++
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), "POST", g.URL()+"/v1/topics/h2", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+gatewaytest.All(t))
	answer, err := h.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if _, m := c.next(); m.Topic != "h2" {
		t.Errorf("got %s", m.Raw)
	}
}

// A body that a request for a stream need not have does not disturb it.
func TestGetWithBody(t *testing.T) {
	sse.SetHeartbeat(t, 1200*time.Millisecond)
	g := gatewaytest.Start(t, "limits.body_timeout=1s")
	r, err := http.NewRequestWithContext(t.Context(), "GET", g.URL()+"/v1/stream?filter=b", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+gatewaytest.All(t))
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	c := &client{t: t, answer: answer, r: bufio.NewReader(answer.Body)}
	c.until("live")
	for c.comments < 1 { // longer than a body may take
		line, err := c.line()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, ":") {
			c.comments++
		}
	}
}
