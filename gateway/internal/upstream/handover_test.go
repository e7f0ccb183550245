package upstream_test

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/upstream"
	"flyscreen/gateway/mqtt"
)

// copier is a broker that hands a message out once for each matching subscription of
// a client, in one order for all, over lines of different and changing speed.
type copier struct {
	*stub
	mu    sync.Mutex // guards the following; held while a message is handed out
	subs  map[*stubConn]map[mqtt.Filter]bool
	lines map[*stubConn]chan [2]string
	most  int // subscriptions at one client that matched one message
}

func startCopier(t *testing.T) *copier {
	b := &copier{subs: map[*stubConn]map[mqtt.Filter]bool{}, lines: map[*stubConn]chan [2]string{}}
	b.stub = startStub(t, b.handle)
	return b
}

func (b *copier) handle(c *stubConn, p packets.ControlPacket) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch p := p.(type) {
	case *packets.ConnectPacket:
		b.subs[c] = map[mqtt.Filter]bool{}
		line := make(chan [2]string, 1<<16)
		b.lines[c] = line
		b.all.Go(func() { b.carry(c, line) })
	case *packets.SubscribePacket:
		for _, f := range p.Topics {
			b.subs[c][mqtt.Filter(f)] = true
		}
	case *packets.UnsubscribePacket:
		for _, f := range p.Topics {
			delete(b.subs[c], mqtt.Filter(f))
		}
	case *packets.DisconnectPacket:
		b.end(c)
	case *packets.PublishPacket:
		if p.Qos == 1 {
			c.ack(packets.Puback, p.MessageID)
		}
		for to, subs := range b.subs {
			copies := 0
			for f := range subs {
				if f.Matches(mqtt.Topic(p.TopicName)) {
					copies++
					b.lines[to] <- [2]string{p.TopicName, string(p.Payload)}
				}
			}
			if !strings.HasPrefix(p.TopicName, "flyscreen-barrier/") {
				b.most = max(b.most, copies)
			}
		}
		return true
	}
	return false
}

// carry brings messages to a client, with a pause now and then.
func (b *copier) carry(c *stubConn, line chan [2]string) {
	for m := range line {
		if rand.IntN(20) == 0 {
			<-time.After(time.Duration(rand.IntN(2000)) * time.Microsecond)
		}
		c.message(m[0], m[1], false)
	}
}

// stop ends the lines that are left.
func (b *copier) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.lines {
		b.end(c)
	}
}

func (b *copier) end(c *stubConn) {
	if line := b.lines[c]; line != nil {
		close(line)
	}
	delete(b.lines, c)
	delete(b.subs, c)
}

// tally checks that each topic's numbers come one by one.
type tally struct {
	mu    sync.Mutex // guards the following
	last  map[mqtt.Topic]int
	wrong []string
	links []bool
}

func (y *tally) deliver(m mqtt.Message) {
	y.mu.Lock()
	defer y.mu.Unlock()
	n, err := strconv.Atoi(string(m.Payload))
	if last := y.last[m.Topic]; err != nil || n != last+1 {
		y.wrong = append(y.wrong, fmt.Sprintf("%s: %q after %d", m.Topic, m.Payload, last))
	}
	y.last[m.Topic] = n
}

func (y *tally) link(up bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.links = append(y.links, up)
}

func (y *tally) at(topic mqtt.Topic) int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.last[topic]
}

func copying(t *testing.T, b *copier, y *tally) *upstream.Upstream {
	y.last = map[mqtt.Topic]int{}
	t.Cleanup(b.stop)
	o := quick(b.url())
	o.Deliver, o.Link = y.deliver, y.link
	return ready(t, o)
}

// Overlapping filters come and go, also the owners of topics that others share, while
// messages come without pause. Topics that some filter covered all the time must have
// come whole: each message once, in order.
func TestOverlappingFiltersAtABrokerThatCopies(t *testing.T) {
	b, y := startCopier(t), &tally{}
	u := copying(t, b, y)
	first, second := mqtt.Filter("+/+/loc"), mqtt.Filter("+/x/+")
	for _, f := range []mqtt.Filter{"a/#", first, second} {
		if answers, err := u.Subscribe(within(t), []mqtt.Filter{f}, 1); err != nil || answers[0] != nil {
			t.Fatalf("%s: %v, %v", f, answers, err)
		}
	}
	stop := make(chan struct{})
	var publishers sync.WaitGroup
	topics := []mqtt.Topic{"a/x/loc", "b/x/loc", "c/x/loc"}
	sent := make([]int, len(topics))
	for n, topic := range topics {
		publishers.Go(func() {
			pace := time.NewTicker(500 * time.Microsecond) // or the lines' queues would only grow
			defer pace.Stop()
			for {
				select {
				case <-stop:
					return
				case <-pace.C:
				}
				sent[n]++
				if _, err := u.Publish(within(t), message(string(topic), strconv.Itoa(sent[n]), 1)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	churn(t, u, first, second)
	close(stop)
	publishers.Wait()
	for n, topic := range topics {
		waitFor(t, "the last message on "+string(topic), func() bool { return y.at(topic) >= sent[n] })
	}
	if len(y.wrong) > 0 {
		t.Errorf("%d of %d messages came wrong, such as %s", len(y.wrong), sent[0]+sent[1]+sent[2], y.wrong[0])
	}
	t.Logf("%d messages", sent[0]+sent[1]+sent[2])
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.most != 1 {
		t.Errorf("%d subscriptions of one connection overlapped", b.most)
	}
	for _, role := range []string{"live", "live2", "live3", "live4", "live5", "live6"} {
		if n := b.connections(role); n != 1 {
			t.Errorf("%s connected %d times", role, n)
		}
	}
}

// churn lets filters come and go; one of first and second is always there.
func churn(t *testing.T, u *upstream.Upstream, first, second mqtt.Filter) {
	others := []mqtt.Filter{"a/#", "b/#", "a/x/loc", "c/+/loc", "#"}
	held := map[mqtt.Filter]bool{"a/#": true, first: true, second: true}
	refused := 0
	for range 250 {
		f := others[rand.IntN(len(others))]
		switch rand.IntN(4) {
		case 0:
			f = first
		case 1:
			f = second
		}
		if held[f] {
			if f == first && !held[second] || f == second && !held[first] {
				continue
			}
			if err := u.Unsubscribe(within(t), []mqtt.Filter{f}); err != nil {
				t.Fatal(err)
			}
			delete(held, f)
			continue
		}
		answers, err := u.Subscribe(within(t), []mqtt.Filter{f}, 1)
		switch {
		case err != nil:
			t.Fatal(err)
		case answers[0] == nil:
			held[f] = true
		case fault.Is(answers[0], fault.Overloaded) && len(held) >= 6:
			refused++
		default:
			t.Errorf("%s beside %v: %v", f, held, answers[0])
		}
	}
	t.Logf("%d filters were refused for want of a leg", refused)
}

// A barrier is back when all legs have it.
func TestBarrierAtABrokerThatCopies(t *testing.T) {
	b, y := startCopier(t), &tally{}
	u := copying(t, b, y)
	if answers, err := u.Subscribe(within(t), []mqtt.Filter{"a/+", "+/b", "#"}, 1); err != nil || fmt.Sprint(answers) != "[<nil> <nil> <nil>]" {
		t.Fatalf("%v, %v", answers, err)
	}
	for n := range 100 {
		topics := []mqtt.Topic{"a/b", "a/c", "c/b", "c"}
		for _, topic := range topics {
			if _, err := u.Publish(within(t), message(string(topic), strconv.Itoa(n+1), 1)); err != nil {
				t.Fatal(err)
			}
		}
		reached := false
		err := u.Barrier(within(t), func() {
			reached = true
			for _, topic := range topics {
				if y.at(topic) != n+1 {
					t.Errorf("at the barrier %s is at %d, want %d", topic, y.at(topic), n+1)
				}
			}
		})
		if err != nil || !reached {
			t.Fatalf("reached: %v, %v", reached, err)
		}
	}
	if len(y.wrong) > 0 {
		t.Errorf("came wrong: %q", y.wrong)
	}
}

// With one leg lost all of the live side goes, and comes back empty and whole.
func TestLostLegAtABrokerThatCopies(t *testing.T) {
	b, y := startCopier(t), &tally{}
	u := copying(t, b, y)
	for range 2 {
		if answers, err := u.Subscribe(within(t), []mqtt.Filter{"a/+", "+/b"}, 1); err != nil || fmt.Sprint(answers) != "[<nil> <nil>]" {
			t.Fatalf("%v, %v", answers, err)
		}
		y.mu.Lock()
		clear(y.last)
		y.mu.Unlock()
		if _, err := u.Publish(within(t), message("a/b", "1", 1)); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the message", func() bool { return y.at("a/b") == 1 })
		b.forget("live3")
		waitFor(t, "the loss and the return", func() bool {
			y.mu.Lock()
			defer y.mu.Unlock()
			return len(y.links)%2 == 1 && len(y.links) > 1
		})
		waitReady(t, u)
		y.mu.Lock()
		y.links = y.links[:1]
		y.mu.Unlock()
	}
	if len(y.wrong) > 0 {
		t.Errorf("came wrong: %q", y.wrong)
	}
}

// forget cuts the connections of a role, and what they were subscribed to.
func (b *copier) forget(role string) {
	b.each(role, func(c *stubConn) { _ = c.Close() })
}
