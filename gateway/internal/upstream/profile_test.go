package upstream_test

import (
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

// A broker that delivers once gets one live connection, and keeps nothing of the probe.
func TestProbeOfABrokerThatDeliversOnce(t *testing.T) {
	s := startStub(t, nil)
	ready(t, quick(s.url()))
	if s.connections("live") != 1 || s.connections("live2") != 0 {
		t.Errorf("%d and %d live connections, want 1 and 0", s.connections("live"), s.connections("live2"))
	}
	if subscribed, ended := s.packets("live", "SUBSCRIBE"), s.packets("live", "UNSUBSCRIBE"); subscribed != 2 || ended != 1 {
		t.Errorf("%d SUBSCRIBE and %d UNSUBSCRIBE, want those of the marker and the probe, and the end of the latter", subscribed, ended)
	}
}

func TestProfileNeedsNoProbe(t *testing.T) {
	for name, legs := range map[string]int{"mosquitto": 0, "nats": 1} {
		s := startStub(t, nil)
		o := quick(s.url())
		o.Profile = name
		ready(t, o)
		if s.packets("live", "UNSUBSCRIBE") != 0 || s.connections("live4") != legs {
			t.Errorf("%s: %d probes, %d fourth connections", name, s.packets("live", "UNSUBSCRIBE"), s.connections("live4"))
		}
	}
	o := quick("tcp://127.0.0.1:1")
	o.Profile = "rabbit"
	if _, err := upstream.New(o); err == nil || !strings.Contains(err.Error(), `the profile "rabbit" is none of aws-iot, emqx, hivemq, mosquitto, nats`) {
		t.Errorf("an unknown profile: %v", err)
	}
}

// What AWS IoT bounds is kept: 8 filters a packet, 50 subscriptions a connection, QoS 1.
func TestBoundsOfAProfile(t *testing.T) {
	var mu sync.Mutex
	largest := 0
	s := startStub(t, func(_ *stubConn, p packets.ControlPacket) bool {
		if sub, is := p.(*packets.SubscribePacket); is {
			mu.Lock()
			largest = max(largest, len(sub.Topics))
			mu.Unlock()
		}
		return false
	})
	o := quick(s.url())
	o.Profile = "aws-iot"
	u := ready(t, o)
	var filters []mqtt.Filter
	for n := range 6*49 + 3 {
		filters = append(filters, mqtt.Filter(fmt.Sprintf("t/%d", n)))
	}
	answers, err := u.Subscribe(within(t), filters, 1)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, answer := range answers {
		if answer != nil {
			wantCode(t, answer, fault.Overloaded)
			refused++
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if refused != 3 || largest != 8 {
		t.Errorf("%d refused and up to %d filters a packet, want 3 and 8", refused, largest)
	}
	_, err = u.Publish(within(t), message("t", "x", 2))
	wantCode(t, err, fault.BadRequest)
	if _, err := u.Publish(within(t), message("t", "x", 1)); err != nil {
		t.Error(err)
	}
}

// Retained messages that come behind the marker still belong to the snapshot.
func TestLateRetainedMessages(t *testing.T) {
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		sub, is := p.(*packets.SubscribePacket)
		if is && sub.Topics[0] == "a/+" {
			c.answer(p)
			c.s.all.Go(func() {
				for n := range 3 {
					<-time.After(100 * time.Millisecond)
					c.message(fmt.Sprintf("a/%d", n), "x", true)
				}
			})
			return true
		}
		return false
	})
	for name, want := range map[string]string{"emqx": "a/0=x a/1=x a/2=x", "mosquitto": ""} {
		o := quick(s.url())
		o.Profile = name
		u := ready(t, o)
		messages, _, err := u.Retained(within(t), "a/+")
		if got := contents(messages); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
}

// A filter whose round does not end costs its company one more round, not the result.
func TestEndlessSnapshotInCompany(t *testing.T) {
	hold := make(chan struct{})
	var once sync.Once
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		switch p := p.(type) {
		case *packets.SubscribePacket:
			if c.role != "snapshot" || strings.HasPrefix(p.Topics[0], "flyscreen-barrier/") {
				return false
			}
			once.Do(func() { <-hold })
			c.endless = false
			for _, f := range p.Topics {
				c.endless = c.endless || f == "endless"
			}
			c.answer(p)
			for _, f := range p.Topics {
				c.message(f, "x", true)
			}
			return true
		case *packets.PublishPacket: // the marker never comes back
			return c.endless
		}
		return false
	})
	u := ready(t, quick(s.url()))
	u.SetRoundLimit(500 * time.Millisecond)
	var all sync.WaitGroup
	for n, f := range []mqtt.Filter{"first", "a", "endless", "b"} {
		all.Go(func() {
			messages, complete, err := u.Retained(within(t), f)
			if err != nil || complete != (f != "endless") || contents(messages) != string(f)+"=x" {
				t.Errorf("%s: %q, complete %v, %v", f, contents(messages), complete, err)
			}
		})
		if n > 0 {
			waitFor(t, "the others to wait", func() bool { return u.Waiting(f) == 1 })
		} else {
			waitFor(t, "the first to have its turn", func() bool { return u.Waiting(f) == 0 && s.packets("snapshot", "SUBSCRIBE") == 2 })
		}
	}
	close(hold)
	all.Wait()
}

// Many filters that wait share packets; one that is refused or too much does not
// hurt the others.
func TestSnapshotsShareTheirPackets(t *testing.T) {
	hold := make(chan struct{})
	var once sync.Once
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		sub, is := p.(*packets.SubscribePacket)
		if !is || c.role != "snapshot" || strings.HasPrefix(sub.Topics[0], "flyscreen-barrier/") {
			return false
		}
		once.Do(func() { <-hold }) // until all the others wait
		codes := make([]byte, len(sub.Topics))
		for n, f := range sub.Topics {
			if f == "f/13" {
				codes[n] = 0x80
			}
		}
		c.suback(sub.MessageID, codes...)
		for _, f := range sub.Topics {
			c.message(f, "x", true)
			c.message("common", "y", true)
		}
		return true
	})
	u := ready(t, quick(s.url()))
	before := s.packets("snapshot", "SUBSCRIBE")
	var all sync.WaitGroup
	for n := range 161 {
		f := mqtt.Filter(fmt.Sprintf("f/%d", n))
		all.Go(func() {
			messages, complete, err := u.Retained(within(t), f)
			switch {
			case n == 13:
				wantCode(t, err, fault.NotAuthorized)
			case err != nil || !complete || contents(messages) != string(f)+"=x":
				t.Errorf("%s: %q, complete %v, %v", f, contents(messages), complete, err)
			}
		})
		if n == 0 {
			waitFor(t, "the first to have its turn", func() bool { return s.packets("snapshot", "SUBSCRIBE") == before+1 })
		} else {
			waitFor(t, "the others to wait", func() bool { return u.Waiting(f) == 1 })
		}
	}
	close(hold)
	all.Wait()
	if n := s.packets("snapshot", "SUBSCRIBE") - before; n != 11 {
		t.Errorf("%d SUBSCRIBE for 1 and 160 filters, want 1 and 10", n)
	}
}
