package upstream_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/upstream"
	"flyscreen/gateway/mqtt"
)

// A broker that takes a publish and closes must never make it look delivered.
func TestPublishSucceedsOnlyWhenAcknowledged(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	seen, acked := 0, map[string]bool{}
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		pub, ok := p.(*packets.PublishPacket)
		if !ok || c.role != "publish" {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if seen++; seen%3 == 0 {
			_ = c.Close()
			return true
		}
		acked[string(pub.Payload)] = true
		return false
	})
	u := ready(t, quick(s.url()))
	succeeded, failed := 0, 0
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 25 {
				payload := fmt.Sprintf("%d/%d", worker, i)
				delivery, err := u.Publish(within(t), message("t", payload, 1))
				mu.Lock()
				switch {
				case err != nil:
					failed++
					wantCode(t, err, fault.UpstreamTimeout, fault.UpstreamUnavailable)
				case delivery != mqtt.Acknowledged || !acked[payload]:
					t.Errorf("publish %s: %q, which the broker never acknowledged", payload, delivery)
				default:
					succeeded++
				}
				mu.Unlock()
				waitReady(t, u)
			}
		})
	}
	wg.Wait()
	if succeeded == 0 || failed == 0 {
		t.Errorf("%d succeeded and %d failed: the test needs both", succeeded, failed)
	}
}

func TestPublishByQoS(t *testing.T) {
	u := ready(t, quick(startStub(t, nil).url()))
	for qos, want := range []mqtt.Delivery{mqtt.Sent, mqtt.Acknowledged, mqtt.Acknowledged} {
		got, err := u.Publish(within(t), message("t", "x", mqtt.QoS(qos)))
		if err != nil || got != want {
			t.Errorf("qos %d: %q, %v; want %q", qos, got, err, want)
		}
	}
}

// An answer of the wrong kind must not count, nor harm the process.
func TestPublishIgnoresWrongAnswers(t *testing.T) {
	id := func(p *packets.PublishPacket) (byte, byte) { return byte(p.MessageID >> 8), byte(p.MessageID) }
	for name, test := range map[string]struct {
		qos    mqtt.QoS
		answer func(c *stubConn, p *packets.PublishPacket)
	}{
		"no answer":             {1, func(*stubConn, *packets.PublishPacket) {}},
		"no answer to qos 2":    {2, func(*stubConn, *packets.PublishPacket) {}},
		"another id":            {1, func(c *stubConn, p *packets.PublishPacket) { c.ack(packets.Puback, p.MessageID+1) }},
		"suback":                {1, func(c *stubConn, p *packets.PublishPacket) { c.suback(p.MessageID, 1) }},
		"unsuback":              {1, func(c *stubConn, p *packets.PublishPacket) { c.ack(packets.Unsuback, p.MessageID) }},
		"pubcomp to qos 1":      {1, func(c *stubConn, p *packets.PublishPacket) { c.ack(packets.Pubcomp, p.MessageID) }},
		"puback to qos 2":       {2, func(c *stubConn, p *packets.PublishPacket) { c.ack(packets.Puback, p.MessageID) }},
		"pubcomp before pubrec": {2, func(c *stubConn, p *packets.PublishPacket) { c.ack(packets.Pubcomp, p.MessageID) }},
		"truncated puback":      {1, func(c *stubConn, p *packets.PublishPacket) { hi, _ := id(p); c.raw(0x40, 1, hi) }},
		"long puback":           {1, func(c *stubConn, p *packets.PublishPacket) { hi, lo := id(p); c.raw(0x40, 3, hi, lo, 0) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
				pub, ok := p.(*packets.PublishPacket)
				if ok && pub.TopicName == "wrong" {
					test.answer(c, pub)
				}
				return ok && pub.TopicName == "wrong"
			})
			u := ready(t, quick(s.url()))
			ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
			defer cancel()
			_, err := u.Publish(ctx, message("wrong", "x", test.qos))
			wantCode(t, err, fault.UpstreamTimeout)
			waitReady(t, u)
			if got, err := u.Publish(within(t), message("right", "x", test.qos)); err != nil || got != mqtt.Acknowledged {
				t.Errorf("a publish that is answered: %q, %v", got, err)
			}
		})
	}
}

func TestPublishWhileDown(t *testing.T) {
	u, err := upstream.New(quick("tcp://127.0.0.1:1"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = u.Publish(within(t), message("t", "x", 1))
	wantCode(t, err, fault.UpstreamUnavailable)
	if fault.From(err).RetryAfter <= 0 {
		t.Error("nothing is said about when to try again")
	}
	run(t, u)
	waitFor(t, "an attempt", func() bool { return strings.Contains(u.Ready().Error(), "refused") })
	_, err = u.Publish(within(t), message("t", "x", 1))
	wantCode(t, err, fault.UpstreamUnavailable)
}

func TestPublishRefusesWhatMQTTCannotCarry(t *testing.T) {
	s := startStub(t, nil)
	u := ready(t, quick(s.url()))
	for name, test := range map[string]struct {
		m    mqtt.Message
		code fault.Code
	}{
		"empty topic": {message("", "x", 1), fault.InvalidTopic},
		"long topic":  {message(strings.Repeat("a", 65_536), "x", 1), fault.InvalidTopic},
		"wildcard":    {message("a/#", "x", 1), fault.InvalidTopic},
		"NUL":         {message("a\x00", "x", 1), fault.InvalidTopic},
		"marker":      {message("flyscreen-barrier/x/live", "x", 1), fault.InvalidTopic},
		"qos 3":       {message("a", "x", 3), fault.BadRequest},
		"too large":   {mqtt.Message{Topic: "a", Payload: make([]byte, 268_435_455)}, fault.TooLarge},
	} {
		if _, err := u.Publish(within(t), test.m); !fault.Is(err, test.code) {
			t.Errorf("%s: got %v, want %s", name, err, test.code)
		}
	}
	if _, err := u.Publish(within(t), message(strings.Repeat("a", 65_535), "x", 1)); err != nil {
		t.Errorf("the longest topic: %v", err)
	}
	if n := s.connections("publish"); n != 1 {
		t.Errorf("%d publish connections, want 1", n)
	}
}

// unanswering acknowledges nothing on the publish connection until it is told to.
func unanswering(t *testing.T) (s *stub, received chan uint16) {
	received = make(chan uint16, 100)
	return startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		pub, ok := p.(*packets.PublishPacket)
		if ok && c.role == "publish" {
			received <- pub.MessageID
			return true
		}
		return false
	}), received
}

func TestPublishBoundsTheUnanswered(t *testing.T) {
	s, received := unanswering(t)
	o := quick(s.url())
	o.MaxInflight = 2
	u := ready(t, o)
	for range 2 { // both callers leave, but their packets stay unanswered
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() {
			_, err := u.Publish(ctx, message("t", "x", 1))
			done <- err
		}()
		<-received
		cancel()
		wantCode(t, <-done, fault.UpstreamTimeout)
	}
	_, err := u.Publish(within(t), message("t", "x", 1))
	wantCode(t, err, fault.Overloaded)

	// An answer makes room.
	s.each("publish", func(c *stubConn) { c.ack(packets.Puback, 1) })
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-received
		cancel()
	}()
	waitFor(t, "room for another", func() bool {
		_, err := u.Publish(ctx, message("t", "x", 1))
		return fault.Is(err, fault.UpstreamTimeout)
	})
}

func TestPublishRecyclesAFullConnection(t *testing.T) {
	t.Parallel()
	s, received := unanswering(t)
	o := quick(s.url())
	o.MaxInflight = 1
	u, err := upstream.New(o)
	if err != nil {
		t.Fatal(err)
	}
	u.SetOverdue(time.Millisecond)
	run(t, u)
	waitReady(t, u)
	first := make(chan error)
	go func() {
		_, err := u.Publish(within(t), message("t", "x", 1))
		first <- err
	}()
	<-received
	_, err = u.Publish(within(t), message("t", "x", 1))
	wantCode(t, err, fault.Overloaded)
	wantCode(t, <-first, fault.UpstreamTimeout) // because its connection was given up
	waitFor(t, "a second connection", func() bool { return s.connections("publish") == 2 })
	if n := s.connections("live"); n != 1 {
		t.Errorf("%d live connections, want 1", n)
	}
}

func TestStopWaitsForPublishes(t *testing.T) {
	s, received := unanswering(t)
	u, err := upstream.New(quick(s.url()))
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, u)
	waitReady(t, u)
	type outcome struct {
		d   mqtt.Delivery
		err error
	}
	done := make(chan outcome)
	go func() {
		d, err := u.Publish(within(t), message("t", "x", 1))
		done <- outcome{d, err}
	}()
	id := <-received
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	waitFor(t, "refusing new publishes", func() bool {
		_, err := u.Publish(within(t), message("", "x", 1))
		_, late := u.Publish(canceled(), message("t", "x", 1))
		return fault.Is(err, fault.InvalidTopic) && fault.Is(late, fault.Draining)
	})
	s.each("publish", func(c *stubConn) { c.ack(packets.Puback, id) })
	if got := <-done; got.err != nil || got.d != mqtt.Acknowledged {
		t.Errorf("a publish under way at the stop: %q, %v", got.d, got.err)
	}
	<-stopped
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
