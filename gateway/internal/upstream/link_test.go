package upstream_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/prometheus/client_golang/prometheus"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/upstream"
	"flyscreen/gateway/mqtt"
)

// Whatever the broker sends, the process lives and the connection is replaced.
func TestHostileBroker(t *testing.T) {
	for name, bytes := range map[string]string{
		"giant publish cut off":    "\x30\xff\xff\xff\x7f\x00\x01ax",
		"giant without a topic":    "\x30\xff\xff\xff\x7f\x00\x00",
		"giant publish with qos 2": "\x34\xff\xff\xff\x7f",
		"length of five bytes":     "\x30\xff\xff\xff\xff\x01",
		"publish with qos 3":       "\x36\x07\x00\x01a\x00\x01xx",
		"publish with qos 2":       "\x34\x07\x00\x01a\x00\x01xx",
		"publish without a topic":  "\x30\x02\x00\x00",
		"payload without a topic":  "\x30\x03\x00\x00x",
		"topic beyond the packet":  "\x30\x04\x00\x09ab",
		"no room for the id":       "\x32\x03\x00\x01a",
		"empty publish":            "\x30\x00",
		"second connack":           "\x20\x02\x00\x00",
		"connect":                  "\x10\x00",
		"subscribe":                "\x82\x05\x00\x01\x00\x00\x00",
		"pubrel":                   "\x62\x02\x00\x01",
		"disconnect":               "\xe0\x00",
		"type 0":                   "\x00\x00",
		"type 15":                  "\xf0\x00",
		"pingresp with a body":     "\xd0\x01x",
		"suback without codes":     "\x90\x02\x00\x01",
		"suback of a megabyte":     "\x90\x80\x80\x40",
		"suback for a future id":   "\x90\x04\x00\x09\x01\x01\xd0\x01x",
		"puback of three bytes":    "\x40\x03\x00\x01x",
		"random, high bits set":    "\xde\xad\xbe\xef\x7f",
		"publish cut by the close": "\x30\x09\x00\x01a",
	} {
		t.Run(name, func(t *testing.T) {
			s := startStub(t, nil)
			u := ready(t, quick(s.url()))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			s.each("live", func(c *stubConn) {
				c.raw([]byte(bytes)...)
				if strings.Contains(name, "cut") {
					_ = c.Close()
				}
			})
			waitFor(t, "a new connection", func() bool { return s.connections("live") > 1 })
			waitReady(t, u)
			runtime.ReadMemStats(&after)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
				t.Errorf("%d bytes were allocated for it", grown)
			}
			if _, err := u.Subscribe(within(t), []mqtt.Filter{"a"}, 1); err != nil {
				t.Error(err)
			}
		})
	}
}

// What looks odd but is allowed must not cost the connection.
func TestHarmlessPackets(t *testing.T) {
	s := startStub(t, nil)
	u := ready(t, quick(s.url()))
	s.each("live", func(c *stubConn) {
		c.raw([]byte("\xd0\x00")...)                   // a ping answer nobody asked for
		c.raw([]byte("\x40\x02\x0f\xff")...)           // acknowledgements for nothing
		c.raw([]byte("\x90\x03\x0f\xff\x01")...)       //
		c.raw([]byte("\x50\x02\x0f\xff")...)           //
		c.raw([]byte("\x30\x03\x00\x01a")...)          // an empty payload
		c.raw([]byte("\x3b\x07\x00\x01a\x00\x01x")...) // retain, dup, QoS 1; then the rest
		c.raw('y')
	})
	if err := u.Barrier(within(t), func() {}); err != nil || s.connections("live") != 1 {
		t.Errorf("%v, %d connections", err, s.connections("live"))
	}
}

func TestSubackMustFitTheSubscribe(t *testing.T) {
	for name, codes := range map[string][]byte{"too many": {0, 0, 0}, "too few": {0}} {
		t.Run(name, func(t *testing.T) {
			s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
				sub, ok := p.(*packets.SubscribePacket)
				if ok && len(sub.Topics) == 2 && !strings.HasPrefix(sub.Topics[0], "flyscreen-barrier/") {
					c.suback(sub.MessageID, codes...)
					return true
				}
				return false
			})
			u := ready(t, quick(s.url()))
			_, err := u.Subscribe(within(t), []mqtt.Filter{"a", "b"}, 1)
			wantCode(t, err, fault.UpstreamUnavailable)
			waitReady(t, u)
			if _, err := u.Subscribe(within(t), []mqtt.Filter{"a"}, 1); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestConnackRefusals(t *testing.T) {
	for code, want := range map[byte]string{1: "protocol version", 3: "server unavailable", 4: "bad username or password", 5: "not authorized", 0x87: "unknown code 135"} {
		t.Run(want, func(t *testing.T) {
			var refusing atomic.Bool
			refusing.Store(true)
			s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
				if _, ok := p.(*packets.ConnectPacket); ok && refusing.Load() {
					c.raw(0x20, 2, 0, code)
					return true
				}
				return false
			})
			u := start(t, quick(s.url()))
			waitFor(t, "a reason", func() bool { err := u.Ready(); return err != nil && strings.Contains(err.Error(), want) })
			_, err := u.Publish(within(t), message("t", "x", 0))
			wantCode(t, err, fault.UpstreamUnavailable)
			refusing.Store(false)
			waitReady(t, u)
		})
	}
}

// Wrong credentials do not get better by asking often.
func TestRefusedCredentialsSlowDown(t *testing.T) {
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		code := byte(3)
		if c.role == "publish" {
			code = 5
		}
		c.raw(0x20, 2, 0, code)
		return true
	})
	o := quick(s.url())
	o.BackoffMin, o.BackoffMax = time.Nanosecond, time.Hour
	_ = start(t, o)
	waitFor(t, "ten attempts of another role", func() bool { return s.connections("live") >= 10 })
	if n := s.connections("publish"); n != 1 {
		t.Errorf("%d attempts with refused credentials, want 1", n)
	}
}

// A link whose other end is gone without a word is found and replaced.
func TestHalfOpenLink(t *testing.T) {
	t.Parallel()
	var dead atomic.Bool
	s := startStub(t, func(*stubConn, packets.ControlPacket) bool { return dead.Load() })
	o := quick(s.url())
	o.KeepAlive, o.PingTimeout, o.ConnectTimeout = 200*time.Millisecond, 100*time.Millisecond, 200*time.Millisecond
	u := ready(t, o)
	dead.Store(true) // it reads and says nothing, to new connections either
	waitFor(t, "Ready to turn red", func() bool { return u.Ready() != nil })
	waitFor(t, "all connections to be given up", func() bool {
		return strings.Count(u.Ready().Error(), "is down since") == 3
	})
	_, err := u.Publish(within(t), message("t", "x", 0))
	wantCode(t, err, fault.UpstreamUnavailable)
	dead.Store(false)
	waitReady(t, u)
	for _, role := range []string{"live", "publish", "snapshot"} {
		if s.connections(role) < 2 {
			t.Errorf("%s was not replaced", role)
		}
	}
}

// An idle link is kept alive: it must outlive the patience for a silent one.
func TestIdleLinkStays(t *testing.T) {
	t.Parallel()
	var pings atomic.Int64
	s := startStub(t, func(_ *stubConn, p packets.ControlPacket) bool {
		if _, ok := p.(*packets.PingreqPacket); ok {
			pings.Add(1)
		}
		return false
	})
	o := quick(s.url())
	o.KeepAlive, o.PingTimeout = time.Second, 2*time.Second
	u := ready(t, o)
	waitFor(t, "pings on all connections", func() bool { return pings.Load() >= 12 })
	if err := u.Ready(); err != nil || s.connections("live") != 1 {
		t.Errorf("%v, %d connections", err, s.connections("live"))
	}
}

// A broker that stops reading blocks a write for the write timeout, no longer.
func TestStalledWriteEndsTheConnection(t *testing.T) {
	release := make(chan struct{})
	var stalled atomic.Bool
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		if pub, ok := p.(*packets.PublishPacket); ok && pub.TopicName == "stall" && stalled.CompareAndSwap(false, true) {
			<-release
		}
		return false
	})
	t.Cleanup(func() { close(release) })
	o := quick(s.url())
	o.WriteTimeout = 200 * time.Millisecond
	o.KeepAlive = time.Minute // so that nothing else ends it in time
	u := ready(t, o)
	big := strings.Repeat("x", 1<<20)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			var err error
			for err == nil { // until the socket's buffers are full
				_, err = u.Publish(within(t), message("stall", big, 0))
			}
			wantCode(t, err, fault.UpstreamTimeout, fault.UpstreamUnavailable, fault.Overloaded)
			if errors.Is(err, context.DeadlineExceeded) {
				t.Error("only the caller's deadline ended the wait")
			}
		})
	}
	wg.Wait()
	waitFor(t, "a new connection", func() bool { return s.connections("publish") > 1 })
	waitReady(t, u)
	if got, err := u.Publish(within(t), message("t", "x", 1)); err != nil || got != mqtt.Acknowledged {
		t.Errorf("afterwards: %q, %v", got, err)
	}
}

func TestMetrics(t *testing.T) {
	s := startStub(t, nil)
	reg := prometheus.NewRegistry()
	o := quick(s.url())
	o.Metrics = reg
	u := ready(t, o)
	if _, err := u.Publish(within(t), message("t", "x", 1)); err != nil {
		t.Fatal(err)
	}
	_, _ = u.Publish(within(t), message("", "x", 1))
	s.each("live", func(c *stubConn) { _ = c.Close() })
	waitFor(t, "a new connection", func() bool { return s.connections("live") == 2 })
	waitReady(t, u)
	got := gather(t, reg)
	for name, want := range map[string]float64{
		"connects_total role=live":              2,
		"connects_total role=publish":           1,
		"connects_total role=snapshot":          1,
		"connection_losses_total role=live":     1,
		"connection_losses_total role=publish":  0,
		"up role=live":                          1,
		"up role=publish":                       1,
		"up role=snapshot":                      1,
		"publishes_total outcome=acknowledged":  1,
		"publishes_total outcome=invalid-topic": 1,
		"publishes_inflight":                    0,
	} {
		if value, exists := got[name]; !exists || value != want {
			t.Errorf("%s: %v (exists: %t), want %v", name, value, exists, want)
		}
	}
	if got["bytes_total direction=in role=live"] == 0 || got["bytes_total direction=out role=publish"] == 0 {
		t.Error("no bytes were counted")
	}
	if _, err := upstream.New(o); err == nil {
		t.Error("registering the same metrics twice went unnoticed")
	}
}

// gather returns reg's counters and gauges by name (without the room's prefix) and labels.
func gather(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := strings.TrimPrefix(family.GetName(), "flyscreen_upstream_")
			for _, label := range m.GetLabel() {
				name += " " + label.GetName() + "=" + label.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}

func TestRunLeavesNothingBehind(t *testing.T) {
	s := startStub(t, nil)
	count := func() int {
		buf := make([]byte, 1<<20)
		return strings.Count(string(buf[:runtime.Stack(buf, true)]), "paho%2emqtt%2egolang.")
	}
	u, err := upstream.New(quick(s.url()))
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, u)
	waitReady(t, u)
	if count() == 0 {
		t.Error("no goroutine of the client library was seen while running: the test is blind")
	}
	stop()
	waitFor(t, "the end of the client library's goroutines", func() bool { return count() == 0 })
	_, err = u.Publish(within(t), message("t", "x", 1))
	wantCode(t, err, fault.Draining)
	_, _, err = u.Retained(within(t), "a")
	wantCode(t, err, fault.UpstreamUnavailable)
	_, err = u.Subscribe(within(t), []mqtt.Filter{"a"}, 0)
	wantCode(t, err, fault.UpstreamUnavailable)
	wantCode(t, u.Barrier(within(t), func() {}), fault.UpstreamUnavailable)
	if u.Run(within(t)) == nil {
		t.Error("a second Run was accepted")
	}
}
