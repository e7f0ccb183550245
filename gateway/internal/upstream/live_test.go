package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

func TestSubscribeReportsEachFilter(t *testing.T) {
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		sub, ok := p.(*packets.SubscribePacket)
		if !ok {
			return false
		}
		codes := slices.Clone(sub.Qoss)
		for i, topic := range sub.Topics {
			if codes[i] > 1 {
				t.Errorf("%s: subscribed at QoS %d", topic, codes[i])
			}
			if strings.HasPrefix(topic, "no/") {
				codes[i] = 0x80
			}
		}
		c.suback(sub.MessageID, codes...)
		return true
	})
	u := ready(t, quick(s.url()))
	answers, err := u.Subscribe(within(t), []mqtt.Filter{"yes/#", "no/#", "yes/2", "no/2", "yes/#"}, 2)
	if err != nil || len(answers) != 5 {
		t.Fatalf("%v, %v", answers, err)
	}
	for i, answer := range answers {
		if refused := i == 1 || i == 3; refused != fault.Is(answer, fault.NotAuthorized) || !refused && answer != nil {
			t.Errorf("filter %d: %v", i, answer)
		}
	}
	if !strings.Contains(fault.From(answers[1]).Detail, `"no/#"`) {
		t.Errorf("the refusal does not name the filter: %v", answers[1])
	}
}

func TestSubscribeSplitsLongLists(t *testing.T) {
	var packetsSeen, filtersSeen atomic.Int64
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		if sub, ok := p.(*packets.SubscribePacket); ok && !strings.HasPrefix(sub.Topics[0], "flyscreen-barrier/") {
			packetsSeen.Add(1)
			filtersSeen.Add(int64(len(sub.Topics)))
		}
		return false
	})
	u := ready(t, quick(s.url()))
	var filters []mqtt.Filter
	for i := range 1000 {
		filters = append(filters, mqtt.Filter(fmt.Sprintf("f/%d/+", i)))
	}
	answers, err := u.Subscribe(within(t), filters, 1)
	if err != nil || len(answers) != 1000 || slices.ContainsFunc(answers, func(err error) bool { return err != nil }) {
		t.Fatalf("%d answers, %v", len(answers), err)
	}
	if packetsSeen.Load() != 10 || filtersSeen.Load() != 1000 {
		t.Errorf("%d packets with %d filters, want 10 with 1,000", packetsSeen.Load(), filtersSeen.Load())
	}
	if err := u.Unsubscribe(within(t), filters); err != nil {
		t.Error(err)
	}
	long := []mqtt.Filter{mqtt.Filter(strings.Repeat("a", 40_000)), mqtt.Filter(strings.Repeat("b", 40_000))}
	if answers, err := u.Subscribe(within(t), long, 1); err != nil || len(answers) != 2 || packetsSeen.Load() != 12 {
		t.Errorf("two long filters: %v, %v, %d packets in all", answers, err, packetsSeen.Load())
	}
}

// What waits on the live connection fails at once when it is lost.
func TestLossFailsWhatIsPending(t *testing.T) {
	var armed atomic.Bool
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		if !armed.Load() || c.role != "live" {
			return false
		}
		switch p.(type) {
		case *packets.SubscribePacket, *packets.UnsubscribePacket, *packets.PublishPacket:
			_ = c.Close()
			return true
		}
		return false
	})
	u := ready(t, quick(s.url()))
	for name, call := range map[string]func() error{
		"Subscribe":   func() error { _, err := u.Subscribe(within(t), []mqtt.Filter{"a/#"}, 1); return err },
		"Unsubscribe": func() error { return u.Unsubscribe(within(t), []mqtt.Filter{"a/#"}) },
		"Barrier":     func() error { return u.Barrier(within(t), func() {}) },
	} {
		if err := call(); err != nil {
			t.Errorf("%s on a sound connection: %v", name, err)
		}
		armed.Store(true)
		wantCode(t, call(), fault.UpstreamUnavailable)
		armed.Store(false)
		waitReady(t, u)
	}
}

func TestBarrierObeysItsContext(t *testing.T) {
	var mute atomic.Bool
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		_, ok := p.(*packets.PublishPacket)
		return ok && c.role == "live" && mute.Load()
	})
	u := ready(t, quick(s.url()))
	reached := false
	if err := u.Barrier(within(t), func() { reached = true }); err != nil || !reached {
		t.Fatalf("a marker that comes back: %v, reached %t", err, reached)
	}
	mute.Store(true)
	ctx := canceled()
	if err := u.Barrier(ctx, func() { t.Error("reached was called") }); !errors.Is(err, ctx.Err()) {
		t.Errorf("got %v, want %v", err, ctx.Err())
	}
}

// Once Barrier has returned an error, reached stays silent.
func TestBarrierLeftInTime(t *testing.T) {
	var leave atomic.Pointer[context.CancelFunc]
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		if _, ok := p.(*packets.PublishPacket); ok {
			if cancel := leave.Load(); cancel != nil {
				(*cancel)() // while the marker is on its way back
			}
		}
		return false
	})
	u := ready(t, quick(s.url()))
	left := 0
	for range 300 {
		ctx, cancel := context.WithCancel(within(t))
		leave.Store(&cancel)
		var reached, returned atomic.Bool
		err := u.Barrier(ctx, func() {
			if reached.Store(true); returned.Load() {
				t.Error("reached was called after Barrier had returned")
			}
		})
		returned.Store(true)
		if (err == nil) != reached.Load() {
			t.Errorf("%v, reached %t", err, reached.Load())
		}
		if err != nil {
			left++
		}
		cancel()
	}
	leave.Store(nil)
	if err := u.Barrier(within(t), func() {}); err != nil {
		t.Error(err)
	}
	if left == 0 {
		t.Error("no call left early: the test is blind")
	}
}

func TestDeliverLeavesOut(t *testing.T) {
	s := startStub(t, nil)
	var r record
	u := ready(t, r.into(quick(s.url())))
	s.each("live", func(c *stubConn) {
		c.message("a", "kept", true) // retained state, from our own subscribing
		c.message("flyscreen-barrier/another/live", "marker", false)
		c.message("a/+", "no topic", false)
		c.message("a\x00b", "no topic", false)
		c.message("a", "1", false)
		c.message("a", "", false)
		c.message("a", "2", false)
	})
	if err := u.Barrier(within(t), func() { r.note("reached") }); err != nil {
		t.Fatal(err)
	}
	want := []string{"link true", "a=1", "a=", "a=2", "reached"}
	if got := r.list(t); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestDeliveredMessage(t *testing.T) {
	s := startStub(t, nil)
	got := make(chan mqtt.Message, 1)
	o := quick(s.url())
	o.Deliver = func(m mqtt.Message) { got <- m }
	before := time.Now()
	_ = ready(t, o)
	s.each("live", func(c *stubConn) {
		p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		p.TopicName, p.Payload, p.Qos, p.MessageID = "a/b", []byte("\x00\xff"), 1, 7
		c.send(p)
	})
	m := <-got
	if m.Topic != "a/b" || string(m.Payload) != "\x00\xff" || m.QoS != 1 || m.Retain || m.Time.Before(before) || m.Time.After(time.Now()) {
		t.Errorf("got %+v", m)
	}
}

// Link brackets the deliveries of each connection, and nothing overlaps.
func TestLinkBracketsDeliveries(t *testing.T) {
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		if sub, ok := p.(*packets.SubscribePacket); ok && sub.Topics[0] == "flood" {
			c.answer(p)
			for i := range 300 { // and hang up while they are still coming in
				c.message("flood", fmt.Sprint(i), false)
			}
			_ = c.Close()
			return true
		}
		return false
	})
	var r record
	u := ready(t, r.into(quick(s.url())))
	for range 10 {
		waitReady(t, u)
		_, _ = u.Subscribe(within(t), []mqtt.Filter{"flood"}, 1) // the answer may or may not get through
		_ = u.Barrier(within(t), func() { r.note("reached") })
	}
	waitReady(t, u)
	up, delivered, losses := false, 0, 0
	for i, event := range r.list(t) {
		switch event {
		case "link true", "link false":
			if up == (event == "link true") {
				t.Fatalf("event %d: %q twice", i, event)
			}
			if up = !up; !up {
				losses++
			}
		default:
			delivered++
			if !up {
				t.Fatalf("event %d: %q while the link is down", i, event)
			}
		}
	}
	if delivered == 0 || losses == 0 {
		t.Errorf("%d deliveries and %d losses: the test needs both", delivered, losses)
	}
}

// A broker whose rules swallow the markers is told apart from a broken one.
func TestMarkersRefused(t *testing.T) {
	for name, face := range map[string]func(*stubConn, packets.ControlPacket) bool{
		"subscription refused": func(c *stubConn, p packets.ControlPacket) bool {
			sub, ok := p.(*packets.SubscribePacket)
			if ok {
				c.suback(sub.MessageID, 0x80)
			}
			return ok
		},
		"publish swallowed": func(c *stubConn, p packets.ControlPacket) bool {
			pub, ok := p.(*packets.PublishPacket)
			if ok && pub.Qos == 1 {
				c.ack(packets.Puback, pub.MessageID)
			}
			return ok
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := quick(startStub(t, face).url())
			o.ConnectTimeout = 200 * time.Millisecond
			u := start(t, o)
			waitFor(t, "an error that names the topics", func() bool {
				err := u.Ready()
				return err != nil && strings.Contains(err.Error(), "flyscreen-barrier/#")
			})
		})
	}
}
