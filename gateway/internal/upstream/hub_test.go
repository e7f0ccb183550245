package upstream_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/internal/upstream"
	"flyscreen/gateway/mqtt"
)

// follower checks that each topic's numbers go up by one from the first that it gets.
type follower struct {
	t    *testing.T
	mu   sync.Mutex // guards the following
	seq  uint64
	last map[mqtt.Topic]int
	got  int
}

func (f *follower) Deliver(m *hub.Frame) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.Seq <= f.seq { // several of its filters match
		return
	}
	f.seq = m.Seq
	f.got++
	var body struct{ Payload int }
	err := json.Unmarshal(m.JSON, &body)
	if last, seen := f.last[m.Topic]; err != nil || seen && body.Payload != last+1 {
		f.t.Errorf("%s after %d (%v)", m.JSON, last, err)
	}
	f.last[m.Topic] = body.Payload
}

func (f *follower) Missed(mqtt.Topic) { f.t.Error("told of a message that is missing") }
func (f *follower) Upstream(bool)     { f.t.Error("the link changed") }

// The hub's widest filters, made before they are broken, at a broker that sends a copy
// for each overlapping one: whoever joins and leaves whatever, nobody misses a
// message or gets one twice.
func TestHubAtABrokerThatCopies(t *testing.T) {
	b := startCopier(t)
	t.Cleanup(b.stop)
	o := quick(b.url())
	var h *hub.Hub
	o.Deliver = func(m mqtt.Message) { h.Deliver(m) }
	o.Link = func(up bool) { h.Link(up) }
	u, err := upstream.New(o)
	if err != nil {
		t.Fatal(err)
	}
	h = hub.New(hub.Options{Source: u, Retainer: u, Linger: -1, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = u.Run(ctx) })
	running.Go(func() { _ = h.Run(ctx) })
	defer running.Wait()
	defer cancel()
	waitFor(t, "the link", h.Up)

	stop := make(chan struct{})
	var publishers, readers sync.WaitGroup
	for _, topic := range []string{"a/x", "a/y", "b/x", "b/y"} {
		publishers.Go(func() {
			pace := time.NewTicker(time.Millisecond)
			defer pace.Stop()
			for n := 1; ; n++ {
				select {
				case <-stop:
					return
				case <-pace.C:
				}
				if _, err := u.Publish(within(t), message(topic, strconv.Itoa(n), 1)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var got atomic.Int64
	for range 6 {
		readers.Go(func() {
			for range 12 {
				got.Add(int64(follow(t, h)))
			}
		})
	}
	readers.Wait()
	close(stop)
	publishers.Wait()
	t.Logf("%d messages", got.Load())
	if b.connections("live") != 1 || b.connections("live6") != 1 {
		t.Error("a live connection was replaced")
	}
}

// follow joins some filters, is there until it has got some messages, and leaves.
func follow(t *testing.T, h *hub.Hub) int {
	f := &follower{t: t, last: map[mqtt.Topic]int{}}
	all := []mqtt.Filter{"a/+", "+/x", "a/#", "#", "a/x", "+/y", "b/y"}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	mine := all[:1+rand.IntN(3)]
	_, errs := h.Join(within(t), f, mine)
	f.mu.Lock()
	clear(f.last) // what came before the grant may have holes
	f.mu.Unlock()
	for n, err := range errs {
		if err != nil {
			t.Errorf("%s: %v", mine[n], err)
		}
	}
	enough := 20 + rand.IntN(200)
	waitFor(t, "messages", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.got >= enough
	})
	h.Leave(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.got
}
