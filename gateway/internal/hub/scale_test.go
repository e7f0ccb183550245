package hub_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/mqtt"
)

// counted is a source that notes when it was asked, and for how much.
type counted struct {
	*source
	at      []time.Time
	largest int
}

func (c *counted) Subscribe(ctx context.Context, filters []mqtt.Filter, qos mqtt.QoS) ([]error, error) {
	c.mu.Lock()
	c.at = append(c.at, time.Now())
	c.largest = max(c.largest, len(filters))
	c.mu.Unlock()
	return c.source.Subscribe(ctx, filters, qos)
}

// busiest is the largest number of calls in any second.
func (c *counted) busiest() (most int) {
	for first := range c.at {
		n := first
		for n < len(c.at) && c.at[n].Sub(c.at[first]) < time.Second {
			n++
		}
		most = max(most, n-first)
	}
	return most
}

// Thousands of filters a second come and go; the broker is asked at most 50 times a
// second, at once after quiet, and those that are gone within a turn never reach it.
func TestChurnIsPaced(t *testing.T) {
	for name, linger := range map[string]time.Duration{"lingering": 0, "not lingering": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &counted{source: newSource()}
				h := hub.New(hub.Options{Source: c, Retainer: c, Linger: linger, Logger: slog.New(slog.DiscardHandler)})
				run(t, h)
				begun := time.Now()
				subscribe(t, h, &reader{}, "first")
				if took := time.Since(begun); took != 0 {
					t.Errorf("the first SUBSCRIBE waited %s", took)
				}
				var all sync.WaitGroup
				for n := range 12_000 { // 3,000 a second
					all.Go(func() {
						time.Sleep(time.Duration(n) * time.Second / 3000)
						r, f := &reader{}, filters(fmt.Sprintf("t/%d/#", n))
						if err := h.Subscribe(t.Context(), r, f)[0]; err != nil {
							t.Error(err)
						}
						h.Leave(r)
					})
				}
				all.Wait()
				if busiest := c.busiest(); busiest > 50 || c.largest > 100 {
					t.Errorf("up to %d SUBSCRIBE a second with up to %d filters, want at most 50 and 100", busiest, c.largest)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if n := len(c.held); n != 1 { // "first"
					t.Errorf("%d subscriptions are left, want 1", n)
				}
			})
		})
	}
}

func TestShortInterestsNeverReachTheBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counted{source: newSource()}
		h := hub.New(hub.Options{Source: c, Retainer: c, Linger: -1, Logger: slog.New(slog.DiscardHandler)})
		run(t, h)
		for n := range 10 { // uses the burst up
			subscribe(t, h, &reader{}, fmt.Sprintf("burst/%d", n))
		}
		time.Sleep(time.Millisecond)
		asked := len(c.calls)
		for n := range 1000 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Microsecond)
			r := &reader{}
			if err := h.Subscribe(ctx, r, filters(fmt.Sprintf("short/%d", n)))[0]; err == nil {
				t.Error("granted without the broker")
			}
			h.Leave(r)
			cancel()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(c.calls) != asked {
			t.Errorf("the broker was asked for %q", c.calls[asked:])
		}
	})
}

// 5,000 filters, 50 of which contain 90 others each: after a reconnect the broker is
// asked for the widest ones only, in few packets, and everybody gets each message once.
func TestFiveThousandFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counted{source: newSource()}
		h := hub.New(hub.Options{Source: c, Retainer: c, Logger: slog.New(slog.DiscardHandler)})
		run(t, h)
		r := &reader{}
		var all []mqtt.Filter
		for wide := range 50 {
			all = append(all, mqtt.Filter(fmt.Sprintf("p/%d/#", wide)))
			for n := range 90 {
				all = append(all, mqtt.Filter(fmt.Sprintf("p/%d/%d", wide, n)))
			}
		}
		for n := range 450 {
			all = append(all, mqtt.Filter(fmt.Sprintf("q/%d", n)))
		}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for n, err := range h.Subscribe(t.Context(), r, all) {
			if err != nil {
				t.Fatalf("%s: %v", all[n], err)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(c.held) != 500 {
			t.Errorf("%d subscriptions are held, want the 500 widest", len(c.held))
		}
		before, begun := len(c.at), time.Now()
		h.Link(false)
		clear(c.held)
		h.Link(true)
		for _, f := range all {
			if err := h.Await(t.Context(), f); err != nil {
				t.Error(err)
			}
		}
		if packets, took := len(c.at)-before, time.Since(begun); packets != 5 || took > time.Second || len(c.held) != 500 {
			t.Errorf("after a reconnect %d packets in %s for %d subscriptions, want 5 at once for 500", packets, took, len(c.held))
		}
	})
}

// Readers come and go on a few filters, in the midst of deliveries: each message
// reaches exactly those who are there, whoever took whose place in the list.
func TestSeatsUnderChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newSource())
		random := rand.New(rand.NewPCG(3, 4))
		names := []string{"a/1", "a/2", "a/3"}
		readers := make([]*reader, 40)
		for n := range readers {
			readers[n] = &reader{}
		}
		there := map[*reader]map[string]bool{}
		for step := range 5000 {
			r, name := readers[random.IntN(len(readers))], names[random.IntN(3)]
			switch random.IntN(6) {
			case 0, 1, 2:
				subscribe(t, h, r, name)
				if there[r] == nil {
					there[r] = map[string]bool{}
				}
				there[r][name] = true
			case 3, 4:
				h.Unsubscribe(r, filters(name))
				delete(there[r], name)
			case 5:
				h.Leave(r)
				delete(there, r)
			}
			if random.IntN(3) > 0 {
				continue
			}
			h.Deliver(mqtt.Message{Topic: mqtt.Topic(name)})
			for n, r := range readers {
				want := 0
				if there[r][name] {
					want = 1
				}
				if r.got() != want {
					t.Fatalf("step %d: reader %d got %d messages on %s, want %d", step, n, r.got(), name, want)
				}
				r.topics = nil
			}
		}
	})
}

// All who leave one topic at once must not cost a copy of the list each, also while
// messages come, and a delivery under way must not see the list change (the race
// detector looks).
func TestManyLeaveAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many = 10_000
		h := start(t, newSource())
		readers := make([]*reader, many)
		for n := range readers {
			readers[n] = &reader{}
			subscribe(t, h, readers[n], "a")
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var delivering sync.WaitGroup
		delivering.Go(func() {
			for range 20 {
				h.Deliver(mqtt.Message{Topic: "a"})
			}
		})
		for _, r := range readers {
			h.Leave(r)
		}
		delivering.Wait()
		runtime.ReadMemStats(&after)
		copied := (after.TotalAlloc - before.TotalAlloc) >> 20
		// A copy for each who leaves would be 800 MB; 21 copies and what the readers keep are far less.
		if copied > 200 {
			t.Errorf("%d MB were allocated while %d left", copied, many)
		}
		for _, r := range readers {
			r.topics = nil
		}
		h.Deliver(mqtt.Message{Topic: "a"})
		for _, r := range readers {
			if r.got() != 0 {
				t.Fatal("somebody who left got a message")
			}
		}
	})
}

// To join what is granted already asks nobody and allocates little.
func TestCheapJoin(t *testing.T) {
	s := newSource()
	h := hub.New(hub.Options{Source: s, Retainer: s, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = h.Run(ctx) })
	defer running.Wait()
	defer cancel()
	h.Link(true)
	subscribe(t, h, &reader{}, "a/#")
	r := &reader{}
	for _, f := range [][]mqtt.Filter{filters("a/#"), filters("a/1")} {
		subscribe(t, h, r, string(f[0])) // and lingers from then on
		h.Leave(r)
		allocations := testing.AllocsPerRun(1000, func() {
			if h.Subscribe(ctx, r, f)[0] != nil {
				t.Error("not granted")
			}
			h.Leave(r)
		})
		if allocations > 6 {
			t.Errorf("%g allocations for a join and a leave of %s", allocations, f[0])
		}
	}
	if len(s.calls) != 1 {
		t.Errorf("the broker was asked %q", s.calls)
	}
}
