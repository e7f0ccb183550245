package upstream_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/upstream"
	"flyscreen/gateway/mqtt"
)

// retaining answers SUBSCRIBEs of the snapshot connection with the messages that
// kept lists for the filter, topic=payload, after calling held.
func retaining(t *testing.T, held func(filter string) (kept []string)) *stub {
	return startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		sub, ok := p.(*packets.SubscribePacket)
		if !ok || c.role != "snapshot" || strings.HasPrefix(sub.Topics[0], "flyscreen-barrier/") {
			return false
		}
		if sub.Qoss[0] != 0 {
			t.Errorf("a snapshot at QoS %d", sub.Qoss[0])
		}
		c.answer(p)
		for _, m := range held(sub.Topics[0]) {
			topic, payload, _ := strings.Cut(m, "=")
			c.message(topic, payload, true)
			c.message(topic, "live", false) // and live ones between them
		}
		return true
	})
}

func contents(messages []mqtt.Message) string {
	var list []string
	for _, m := range messages {
		list = append(list, fmt.Sprintf("%s=%s", m.Topic, m.Payload))
	}
	return strings.Join(list, " ")
}

func TestRetainedCollects(t *testing.T) {
	s := retaining(t, func(string) []string {
		return []string{"a/1=x", "a/2=y", "b=of another filter", "flyscreen-barrier/x/live=marker", "a/1=z"}
	})
	var r record
	u := ready(t, r.into(quick(s.url())))
	messages, complete, err := u.Retained(within(t), "a/#")
	if got := contents(messages); got != "a/1=z a/2=y" || !complete || err != nil {
		t.Errorf("%q, complete %t, %v", got, complete, err)
	}
	for _, m := range messages {
		if !m.Retain || m.Time.IsZero() {
			t.Errorf("got %+v", m)
		}
	}
	if got := r.list(t); len(got) != 1 || got[0] != "link true" {
		t.Errorf("the live connection was told %q", got)
	}
	waitFor(t, "the subscription to end", func() bool { return s.packets("snapshot", "UNSUBSCRIBE") == 1 })
	if s.connections("snapshot") != 1 {
		t.Error("the snapshot connection was replaced")
	}
}

func TestRetainedRefused(t *testing.T) {
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		sub, ok := p.(*packets.SubscribePacket)
		if ok && sub.Topics[0] == "no" {
			c.suback(sub.MessageID, 0x80)
			return true
		}
		return false
	})
	u := ready(t, quick(s.url()))
	_, _, err := u.Retained(within(t), "no")
	wantCode(t, err, fault.NotAuthorized)
	if _, complete, err := u.Retained(within(t), "yes"); err != nil || !complete {
		t.Errorf("complete %t, %v", complete, err)
	}
}

func TestRetainedCaps(t *testing.T) {
	s := retaining(t, func(filter string) []string {
		if strings.HasPrefix(filter, "small") {
			return []string{"small/1=x"}
		}
		return []string{"big/1=xxxx", "big/2=xxxx", "big/3=xxxx"}
	})
	for name, capped := range map[string]func(*upstream.Options){
		"messages": func(o *upstream.Options) { o.SnapshotMessages = 2 },
		"bytes":    func(o *upstream.Options) { o.SnapshotBytes = 20 },
	} {
		t.Run(name, func(t *testing.T) {
			o := quick(s.url())
			capped(&o)
			u := ready(t, o)
			before := s.connections("snapshot")
			for range 10 {
				messages, complete, err := u.Retained(within(t), "big/#")
				if got := contents(messages); got != "big/1=xxxx big/2=xxxx" || complete || err != nil {
					t.Fatalf("%q, complete %t, %v", got, complete, err)
				}
			}
			messages, complete, err := u.Retained(within(t), "small/#")
			if got := contents(messages); got != "small/1=x" || !complete || err != nil {
				t.Errorf("afterwards: %q, complete %t, %v", got, complete, err)
			}
			if n := s.connections("snapshot") - before; n != 0 {
				t.Errorf("the snapshot connection was replaced %d times", n)
			}
		})
	}
}

// A broker that never ends its snapshot gets five seconds; the caller gets what
// there is, marked as incomplete. Who waits behind it gets a fresh connection and
// nothing of that.
func TestRetainedWithoutAnEnd(t *testing.T) {
	t.Parallel()
	var mute atomic.Pointer[stubConn]
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		switch p := p.(type) {
		case *packets.SubscribePacket:
			if slices.Contains(p.Topics, "a/#") {
				c.answer(p)
				c.message("a/1", "x", true)
				mute.Store(c)
				return true
			}
		case *packets.PublishPacket:
			return mute.Load() == c
		}
		return false
	})
	u := ready(t, quick(s.url()))
	var next sync.WaitGroup
	defer next.Wait()
	next.Go(func() {
		waitFor(t, "the round to begin", func() bool { return mute.Load() != nil })
		if _, complete, err := u.Retained(within(t), "b"); !complete || err != nil {
			t.Errorf("the next one: complete %t, %v", complete, err)
		}
	})
	messages, complete, err := u.Retained(within(t), "a/#")
	if got := contents(messages); got != "a/1=x" || complete || err != nil {
		t.Errorf("%q, complete %t, %v", got, complete, err)
	}
	waitFor(t, "a fresh connection", func() bool { return s.connections("snapshot") > 1 })
}

func TestRetainedLosesItsConnection(t *testing.T) {
	var hangUp atomic.Bool
	hangUp.Store(true)
	s := startStub(t, func(c *stubConn, p packets.ControlPacket) bool {
		sub, ok := p.(*packets.SubscribePacket)
		if ok && sub.Topics[0] == "a" && hangUp.Load() {
			_ = c.Close()
			return true
		}
		return false
	})
	u := ready(t, quick(s.url()))
	_, _, err := u.Retained(within(t), "a")
	wantCode(t, err, fault.UpstreamUnavailable)
	hangUp.Store(false)
	waitReady(t, u)
	if _, complete, err := u.Retained(within(t), "a"); err != nil || !complete {
		t.Errorf("complete %t, %v", complete, err)
	}
}

// Calls for a filter whose round has not begun share one; a call during a round
// gets the next.
func TestRetainedShares(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	rounds := map[string]int{}
	s := retaining(t, func(filter string) []string {
		mu.Lock()
		rounds[filter]++
		mu.Unlock()
		if filter == "first" {
			close(begun)
			<-release
		}
		return []string{filter + "=x"}
	})
	u := ready(t, quick(s.url()))
	var wg sync.WaitGroup
	ask := func(filter mqtt.Filter) {
		wg.Go(func() {
			messages, complete, err := u.Retained(within(t), filter)
			if contents(messages) != string(filter)+"=x" || !complete || err != nil {
				t.Errorf("%s: %q, complete %t, %v", filter, contents(messages), complete, err)
			}
		})
	}
	ask("first")
	<-begun
	for range 5 {
		ask("second")
	}
	if _, _, err := u.Retained(canceled(), "third"); err == nil { // leaves the queue again
		t.Error("a canceled call succeeded")
	}
	waitFor(t, "all to be waiting", func() bool { return u.Waiting("second") == 5 })
	close(release)
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	if rounds["first"] != 1 || rounds["second"] != 1 || rounds["third"] != 0 {
		t.Errorf("rounds %v, want one each for first and second", rounds)
	}
}

func TestRetainedWhileDown(t *testing.T) {
	u := start(t, quick("tcp://127.0.0.1:1"))
	_, _, err := u.Retained(within(t), "a")
	wantCode(t, err, fault.UpstreamUnavailable)
	if fault.From(err).RetryAfter != time.Second {
		t.Error("nothing is said about when to try again")
	}
}
