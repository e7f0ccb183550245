package sse_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
)

// narrow dials connections that hold little of what is not read.
var narrow = net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
}}

// stall opens a stream of lines that nobody reads yet.
func stall(t *testing.T, g *gatewaytest.Gateway, token, query string) *wire {
	t.Helper()
	conn, err := narrow.DialContext(t.Context(), "tcp", strings.TrimPrefix(g.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * gatewaytest.Patience))
	fmt.Fprintf(conn, "GET /v1/stream?%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nAccept: application/x-ndjson\r\n\r\n", query, token)
	return &wire{conn: conn}
}

// read begins to read.
func (w *wire) read(t *testing.T) {
	t.Helper()
	answer, err := http.ReadResponse(bufio.NewReader(w.conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.r = bufio.NewReader(answer.Body)
}

// fill publishes from+1 to to on topic, with so many bytes in each.
func fill(t *testing.T, g *gatewaytest.Gateway, topic string, from, to, size int) {
	t.Helper()
	filler := strings.Repeat("x", size)
	for n := from; n < to; {
		var body bytes.Buffer
		for range 20 {
			if n++; n <= to {
				fmt.Fprintf(&body, `{"topic":%q,"payload":{"n":%d,"filler":%q},"qos":0}`+"\n", topic, n, filler)
			}
		}
		answer, text := g.Do(t, gatewaytest.All(t), http.MethodPost, "/v1/messages", body.String(), "Content-Type: application/x-ndjson")
		if answer.StatusCode != http.StatusOK || strings.Contains(text, "problem") {
			t.Fatalf("%s %s", answer.Status, text)
		}
	}
}

func numberOf(t *testing.T, l gatewaytest.Line) int {
	t.Helper()
	_, text, _ := strings.Cut(string(l.Payload), `{"n":`)
	text, _, _ = strings.Cut(text, ",")
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%.100s: %v", l.Raw, err)
	}
	return n
}

var fast = []string{"limits.publish_rate=1000000", "limits.publish_burst=1000000"}

// Who is slow and asked for the newest gets the newest, in order, and is told no
// gap; who asked to be ended is ended.
func TestOnSlow(t *testing.T) {
	const last, size = 200, 32 << 10
	for _, c := range []struct{ options, end string }{
		{"on_slow=latest", "message"}, {"mode=latest", "message"}, {"mode=latest&interval=10", "message"}, {"on_slow=close", "end"},
	} {
		t.Run(c.options, func(t *testing.T) {
			g := gatewaytest.Start(t, append(fast, "limits.queue_messages=50")...)
			slow := stall(t, g, gatewaytest.All(t), "filter=s/%23&"+c.options)
			gatewaytest.Eventually(t, "it is open", func() bool { return metric(t, g, "flyscreen_stream_open") == "1" })
			fill(t, g, "s/once", 0, 1, 10)
			fill(t, g, "s/often", 0, last, size)
			slow.read(t)
			seen, count := map[string]int{}, 0
			for {
				l, err := slow.Next()
				if err != nil {
					t.Fatalf("%v, after %v", err, seen)
				}
				if l.Type == "gap" {
					t.Fatal(l.Raw)
				}
				if l.Type == "message" {
					n := numberOf(t, l)
					if n <= seen[l.Topic] {
						t.Fatalf("%s: %d behind %d", l.Topic, n, seen[l.Topic])
					}
					seen[l.Topic] = n
					count++
				}
				if l.Type == "end" && (c.end != "end" || l.Code != 4008 || !l.Reconnect) {
					t.Fatal(l.Raw)
				}
				if l.Type == "end" || seen["s/often"] == last {
					break
				}
			}
			if seen["s/once"] != 1 || count > last || c.end == "end" && seen["s/often"] == last {
				t.Errorf("%d messages, the last %v", count, seen)
			}
		})
	}
}

// A tenth of the streams stops reading: the others get everything.
func TestTenthThatDoesNotRead(t *testing.T) {
	const streams, stopped, last, step, size = 200, 20, 500, 100, 1 << 10
	g := gatewaytest.Start(t, append(fast, "limits.streams_per_subject=1000", "limits.streams_per_address=1000")...)
	token := gatewaytest.All(t)
	for range stopped {
		stall(t, g, token, "filter=f")
	}
	var reading []*wire
	for range streams - stopped {
		w, err := dial(g, token, "filter=f", "application/x-ndjson", "")
		if err != nil {
			t.Fatal(err)
		}
		defer w.Cut()
		_ = w.conn.SetDeadline(time.Now().Add(4 * gatewaytest.Patience))
		reading = append(reading, w)
	}
	gatewaytest.Eventually(t, "all are open", func() bool { return metric(t, g, "flyscreen_stream_open") == strconv.Itoa(streams) })
	var readers sync.WaitGroup
	reached := make(chan error, streams*last/step)
	for _, w := range reading {
		readers.Go(func() {
			for next := 1; next <= last; {
				text, err := w.r.ReadString('\n')
				if err == nil && !strings.Contains(text, `"message"`) && !strings.Contains(text, `"gap"`) {
					continue
				}
				if want := fmt.Sprintf(`{"n":%d,`, next); err == nil && !strings.Contains(text, want) {
					err = fmt.Errorf("got %.150s, want %d", text, next)
				}
				if err != nil {
					reached <- err
					return
				}
				if next++; next%step == 1 {
					reached <- nil
				}
			}
		})
	}
	for n := 0; n < last; n += step { // so that the readers of this machine are not slow themselves
		fill(t, g, "f", n, n+step, size)
		for range reading {
			if err := <-reached; err != nil {
				t.Fatal(err)
			}
		}
	}
	readers.Wait()
}

// What waits for those who do not read is bounded, and gone with them.
func TestStoppedReadersCostLittle(t *testing.T) {
	const stopped, last, size = 50, 1600, 32 << 10
	g := gatewaytest.Start(t, append(fast, "limits.window_bytes=1MiB", "limits.streams_per_subject=1000", "limits.write_timeout=2m")...)
	for range stopped {
		stall(t, g, gatewaytest.All(t), "filter=f")
	}
	gatewaytest.Eventually(t, "all are open", func() bool { return metric(t, g, "flyscreen_stream_open") == strconv.Itoa(stopped) })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	fill(t, g, "f", 0, last, size)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if metric(t, g, "flyscreen_stream_open") != strconv.Itoa(stopped) || metric(t, g, "flyscreen_stream_dropped_messages_total") == "0" {
		t.Error("nobody was slow")
	}
	// The window and the queues hold the same newest MiB, the lines a write each.
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 12<<20 {
		t.Errorf("the heap has grown by %d MiB, after %d MiB were sent", grown>>20, last*size>>20)
	}
}

// Over TLS and HTTP/2 a backlog comes whole and in order, also when the client
// begins to read late.
func TestBacklogOverTLS(t *testing.T) {
	const last, size = 1500, 4 << 10
	for _, protocol := range []string{"http/1.1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			g, h := gatewaytest.StartTLS(t, append(fast, "limits.queue_messages=100000", "limits.queue_bytes=64MiB")...)
			trust := h.Transport.(*http.Transport).TLSClientConfig.Clone()
			if protocol == "http/1.1" {
				trust.NextProtos = []string{protocol}
				h = &http.Client{Transport: &http.Transport{TLSClientConfig: trust, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}}
			}
			late := open(t, g, h, gatewaytest.All(t), "filter=b")
			if (late.answer.ProtoMajor == 2) != (protocol == "h2") || late.answer.StatusCode != http.StatusOK {
				t.Fatalf("%s %s", late.answer.Proto, late.answer.Status)
			}
			late.until("live")
			publishTLS(t, g, h, "b", last, size)
			for next := 1; next <= last; next++ {
				if e, l := late.next(); e.name != "message" || numberOf(t, l) != next {
					t.Fatalf("got %s %.100s, want %d", e.name, e.data, next)
				}
			}
			late.close()
			gatewaytest.Eventually(t, "the stream is gone", func() bool {
				r, err := h.Get(g.URL() + "/metrics")
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = r.Body.Close() }()
				var b bytes.Buffer
				_, _ = b.ReadFrom(r.Body)
				return strings.Contains(b.String(), "flyscreen_stream_open 0")
			})
		})
	}
}

// publishTLS is fill through a client of its own.
func publishTLS(t *testing.T, g *gatewaytest.Gateway, h *http.Client, topic string, last, size int) {
	t.Helper()
	filler := strings.Repeat("x", size)
	for n := 0; n < last; {
		var body bytes.Buffer
		for range 100 {
			n++
			fmt.Fprintf(&body, `{"topic":%q,"payload":{"n":%d,"filler":%q}}`+"\n", topic, n, filler)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL()+"/v1/messages", &body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+gatewaytest.All(t))
		r.Header.Set("Content-Type", "application/x-ndjson")
		answer, err := h.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Fatal(answer.Status)
		}
	}
}

// A client that is behind when its token ends gets no more than was on its way.
func TestExpiryWhileBehind(t *testing.T) {
	const last, size = 250, 32 << 10
	g := gatewaytest.Start(t, append(fast, "limits.leeway=1s", "limits.queue_messages=100000", "limits.queue_bytes=64MiB")...)
	token := gatewaytest.Token(t, auth.Claims{Subject: "brief", Sub: []string{"e"}, TTL: 4 * time.Second})
	slow := stall(t, g, token, "filter=e")
	gatewaytest.Eventually(t, "it is open", func() bool { return metric(t, g, "flyscreen_stream_open") == "1" })
	fill(t, g, "e", 0, last, size)
	gatewaytest.Eventually(t, "the token is over", func() bool {
		answer, _ := g.Do(t, token, http.MethodGet, "/v1/topics?filter=e", "")
		return answer.StatusCode == http.StatusUnauthorized
	})
	slow.read(t)
	next := 1
	for {
		l, err := slow.Next()
		if err != nil {
			break // the line gives up in the middle of what it was writing
		}
		if l.Type == "end" && l.Code != 4401 {
			t.Error(l.Raw)
		}
		if l.Type == "message" {
			if n := numberOf(t, l); n != next {
				t.Fatalf("got %d, want %d", n, next)
			}
			next++
		}
	}
	if next > last {
		t.Error("all was delivered, long after the token had ended")
	}
	t.Logf("%d of %d messages were on their way", next-1, last)
	gatewaytest.Eventually(t, "the stream is gone", func() bool { return metric(t, g, "flyscreen_stream_open") == "0" })
}
