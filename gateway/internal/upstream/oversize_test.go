package upstream_test

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/prometheus/client_golang/prometheus"

	"flyscreen/gateway/internal/upstream"
	"flyscreen/gateway/mqtt"
)

// large is a payload that does not fit into small's packets.
var large = strings.Repeat("x", 100_000)

// small are options under which large is too large.
func small(url string) upstream.Options {
	o := quick(url)
	o.MaxPacket = 2048
	return o
}

// publish sends a PUBLISH of any kind.
func (c *stubConn) publish(topic, payload string, qos byte, id uint16, retained bool) {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.MessageID, p.Retain = topic, []byte(payload), qos, id, retained
	c.send(p)
}

func TestOversizedLive(t *testing.T) {
	for qos, name := range []string{"qos 0", "qos 1"} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var acknowledged []uint16
			s := startStub(t, func(_ *stubConn, p packets.ControlPacket) bool {
				ack, ok := p.(*packets.PubackPacket)
				if ok {
					mu.Lock()
					defer mu.Unlock()
					acknowledged = append(acknowledged, ack.MessageID)
				}
				return ok
			})
			var r record
			o := r.into(small(s.url()))
			reg := prometheus.NewRegistry()
			o.Metrics = reg
			u := ready(t, o)
			s.each("live", func(c *stubConn) {
				c.publish("a", "1", byte(qos), 1, false)
				c.publish("b/c", large, byte(qos), 2, false)
				c.publish("a", "2", byte(qos), 3, false)
				c.publish("kept", large, byte(qos), 4, true)
				c.publish(strings.Repeat("t", 65_535), "", byte(qos), 5, false) // large by its topic alone
				c.publish("flyscreen-barrier/x/live", large, byte(qos), 6, false)
				c.publish("a", "3", byte(qos), 7, false)
			})
			if err := u.Barrier(within(t), func() { r.note("reached") }); err != nil {
				t.Fatal(err)
			}
			want := []string{"link true", "a=1", "missed b/c", "a=2", "missed " + strings.Repeat("t", 65_535), "a=3", "reached"}
			if got := r.list(t); !slices.Equal(got, want) {
				t.Errorf("got  %.200q\nwant %.200q", got, want)
			}
			if n := gather(t, reg)["dropped_messages_total reason=too_large"]; n != 4 || s.connections("live") != 1 {
				t.Errorf("%v counted, want 4; %d connections", n, s.connections("live"))
			}
			if qos == 0 {
				return
			}
			waitFor(t, "all acknowledgements", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return slices.Equal(acknowledged, []uint16{1, 2, 3, 4, 5, 6, 7})
			})
		})
	}
}

// An oversized message that takes long is a sign of life all the while, although
// no ping is answered before its end.
func TestOversizedSlowly(t *testing.T) {
	t.Parallel()
	var slow atomic.Bool
	var pings atomic.Int64
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		_, ping := p.(*packets.PingreqPacket)
		if ping && c.role == "live" && slow.Load() {
			pings.Add(1)
			return true
		}
		return false
	})
	var r record
	o := r.into(small(s.url()))
	o.KeepAlive, o.PingTimeout = time.Second, 2*time.Second
	u := ready(t, o)
	slow.Store(true)
	s.each("live", func(c *stubConn) {
		rest := 1<<20 - 3
		c.raw(0x30, 0x80, 0x80, 0x40, 0, 1, 'a')
		waitFor(t, "many pings", func() bool { // longer than the patience with a ping
			c.raw('x')
			rest--
			return pings.Load() >= 5
		})
		slow.Store(false)
		c.raw([]byte(strings.Repeat("x", rest))...)
		c.message("a", "after", false)
	})
	if err := u.Barrier(within(t), func() {}); err != nil || s.connections("live") != 1 {
		t.Errorf("%v, %d connections", err, s.connections("live"))
	}
	if got, want := r.list(t), []string{"link true", "missed a", "a=after"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOversizedRetained(t *testing.T) {
	s := retaining(t, func(filter string) []string {
		return []string{"a/1=x", "a/2=" + large, "a/3=y"} // whatever the filter
	})
	u := ready(t, small(s.url()))
	messages, complete, err := u.Retained(within(t), "a/#")
	if got := contents(messages); got != "a/1=x a/3=y" || complete || err != nil {
		t.Errorf("%q, complete %t, %v", got, complete, err)
	}
	messages, complete, err = u.Retained(within(t), "a/3") // which the large one does not match
	if got := contents(messages); got != "a/3=y" || !complete || err != nil {
		t.Errorf("%q, complete %t, %v", got, complete, err)
	}
	if s.connections("snapshot") != 1 {
		t.Error("the snapshot connection was replaced")
	}
}

func TestMosquittoOversized(t *testing.T) {
	broker := startMosquitto(t)
	writer := ready(t, quick(broker.url("tcp")))
	put := func(topic, payload string) {
		t.Helper()
		m := message(topic, payload, 1)
		m.Retain = true
		if _, err := writer.Publish(within(t), m); err != nil {
			t.Fatal(err)
		}
	}
	put("a/kept", large)
	var r record
	o := r.into(small(broker.url("tcp")))
	reg := prometheus.NewRegistry()
	o.Metrics = reg
	u := ready(t, o)
	if _, err := u.Subscribe(within(t), []mqtt.Filter{"a/#"}, 1); err != nil { // brings a/kept
		t.Fatal(err)
	}
	want := []string{"link true"}
	for range 50 { // more than the broker sends without acknowledgements
		put("a/1", large)
		put("a/2", "x")
		want = append(want, "missed a/1", "a/2=x")
	}
	if err := u.Barrier(within(t), func() {}); err != nil {
		t.Fatal(err)
	}
	if got := r.list(t); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	messages, complete, err := u.Retained(within(t), "a/#")
	if got := contents(messages); got != "a/2=x" || complete || err != nil {
		t.Errorf("%q, complete %t, %v", got, complete, err)
	}
	messages, complete, err = u.Retained(within(t), "a/2")
	if got := contents(messages); got != "a/2=x" || !complete || err != nil {
		t.Errorf("%q, complete %t, %v", got, complete, err)
	}
	counts := gather(t, reg)
	if counts["connects_total role=live"] != 1 || counts["connects_total role=snapshot"] != 1 {
		t.Errorf("a connection was replaced: %v", counts)
	}
}
