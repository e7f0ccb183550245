package hub_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/mqtt"
)

// world is a broker with readers whose every filter it knows: it checks after each
// change of its subscriptions that all who were granted something still get it.
// Its answers take time, fail at random and refuse some filters.
type world struct {
	t   *testing.T
	hub *hub.Hub

	mu       sync.Mutex // guards what follows
	random   *rand.Rand
	failing  int // one call in so many fails, with or without effect; 0: none
	refusing map[mqtt.Filter]bool
	held     map[mqtt.Filter]bool
	granted  map[grant]int64 // and since which publication
	packets  int
	missed   []miss
	sent     int64
}

type grant struct {
	reader *reader
	filter mqtt.Filter
}

// miss is a message that no subscription brought, and the hub's position then.
type miss struct {
	topic mqtt.Topic
	seq   uint64
}

func (w *world) delay() {
	w.mu.Lock()
	d := time.Duration(w.random.IntN(30)) * time.Millisecond
	w.mu.Unlock()
	time.Sleep(d) // of the bubble: a broker's answer takes its time
}

// fails reports whether the call that is being made fails, and whether in vain.
func (w *world) fails() (failed, effect bool) {
	if w.failing == 0 || w.random.IntN(w.failing) > 0 {
		return false, true
	}
	return true, w.random.IntN(2) == 0
}

func (w *world) Subscribe(_ context.Context, filters []mqtt.Filter, _ mqtt.QoS) ([]error, error) {
	w.delay()
	w.mu.Lock()
	failed, effect := w.fails()
	answers := make([]error, len(filters))
	w.packets++
	for n, f := range filters {
		if w.refusing[f] {
			answers[n] = fault.New(fault.NotAuthorized, "refused")
		} else if effect {
			w.held[f] = true
		}
	}
	w.mu.Unlock()
	w.delay()
	if failed {
		return nil, errors.New("no answer")
	}
	return answers, nil
}

func (w *world) Unsubscribe(_ context.Context, filters []mqtt.Filter) error {
	w.delay()
	w.mu.Lock()
	defer w.mu.Unlock()
	failed, effect := w.fails()
	for _, f := range filters {
		if effect {
			delete(w.held, f)
		}
	}
	for g := range w.granted {
		if !w.brings(g.filter) {
			w.t.Errorf("after the end of %q nothing brings %q any more", filters, g.filter)
		}
	}
	if failed {
		return errors.New("no answer")
	}
	return nil
}

func (w *world) Barrier(_ context.Context, reached func()) error {
	reached()
	return nil
}

func (w *world) Retained(context.Context, mqtt.Filter) ([]mqtt.Message, bool, error) {
	return nil, true, nil
}

func (w *world) brings(f mqtt.Filter) bool {
	for g := range w.held {
		if g.Contains(f) {
			return true
		}
	}
	return false
}

func (w *world) draw(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.IntN(n)
}

var churnLevels = []string{"a", "b", "c", "+"}

func (w *world) filter() mqtt.Filter {
	f := churnLevels[w.draw(4)]
	for range w.draw(3) {
		f += "/" + churnLevels[w.draw(4)]
	}
	if w.draw(3) == 0 {
		f += "/#"
	}
	if w.draw(40) == 0 {
		f = "#"
	}
	return mqtt.Filter(f)
}

// publish sends a message as a broker would: to the hub if a subscription brings it.
func (w *world) publish(topic mqtt.Topic) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent++
	for f := range w.held {
		if f.Matches(topic) {
			w.hub.Deliver(mqtt.Message{Topic: topic})
			return
		}
	}
	w.missed = append(w.missed, miss{topic, position(w.t, w.hub)})
}

func position(t *testing.T, h *hub.Hub) (seq uint64) {
	var epoch string
	if _, err := fmt.Sscanf(h.Cursor(), "%8s-%d", &epoch, &seq); err != nil {
		t.Errorf("the cursor %q: %v", h.Cursor(), err)
	}
	return seq
}

// checkSince holds the hub's word that it has all after a position against what
// was missed.
func (w *world) checkSince(f mqtt.Filter) {
	since, ok := w.hub.Covered(f)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.missed {
		if m.seq > since && f.Matches(m.topic) {
			w.t.Errorf("%q is said to be covered since %d, but a message on %q was missed at %d", f, since, m.topic, m.seq)
		}
	}
}

// live is a reader that comes and goes with its filters.
func (w *world) live(r *reader, steps int) (mine map[mqtt.Filter]bool) {
	mine = map[mqtt.Filter]bool{}
	for range steps {
		time.Sleep(time.Duration(w.draw(60)) * time.Millisecond)
		f := w.filter()
		switch {
		case len(mine) > 0 && w.draw(3) == 0:
			for f = range mine {
				break
			}
			w.set(func() { delete(w.granted, grant{r, f}) })
			w.hub.Unsubscribe(r, []mqtt.Filter{f})
			delete(mine, f)
		case !mine[f]:
			err := w.hub.Subscribe(w.t.Context(), r, []mqtt.Filter{f})[0]
			if err == nil {
				mine[f] = true
				w.set(func() {
					w.granted[grant{r, f}] = w.sent
					if !w.brings(f) {
						w.t.Errorf("%q was granted and nothing brings it", f)
					}
				})
				w.checkSince(f)
			} else if !w.refusing[f] && w.failing == 0 {
				w.t.Errorf("%q: %v", f, err)
			}
		}
	}
	return mine
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// churn lets readers come and go and returns what they have at the end.
func (w *world) churn(readers, steps int) map[mqtt.Filter]bool {
	ticking := &reader{}
	w.hub.Subscribe(w.t.Context(), ticking, filters("tick"))
	ctx, stop := context.WithCancel(w.t.Context())
	var publisher, all sync.WaitGroup
	publisher.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(time.Millisecond)
			w.publish("tick")
			topic := mqtt.Topic(churnLevels[w.draw(3)])
			for range w.draw(3) {
				topic += mqtt.Topic("/" + churnLevels[w.draw(3)])
			}
			w.publish(topic)
		}
	})
	wanted := map[mqtt.Filter]bool{"tick": true}
	for range readers {
		all.Go(func() {
			mine := w.live(&reader{}, steps)
			w.set(func() {
				for f := range mine {
					wanted[f] = true
				}
			})
		})
	}
	all.Wait()
	stop()
	publisher.Wait()
	time.Sleep(2 * time.Minute) // until Run has nothing more to do
	synctest.Wait()
	return wanted
}

// The invariants of reconcile.go under random churn of overlapping filters: what
// was granted is brought at every moment, and in the end exactly the widest filters
// are held.
func TestChurnOfOverlappingFilters(t *testing.T) {
	for name, tune := range map[string]func(*world){
		"honest":  func(*world) {},
		"failing": func(w *world) { w.failing = 4 },
		"refusing": func(w *world) {
			w.refusing = map[mqtt.Filter]bool{"#": true, "a/#": true, "+": true, "b/c": true, "+/a": true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(25) {
				synctest.Test(t, func(t *testing.T) { churnOnce(t, seed, tune) })
			}
		})
	}
}

func churnOnce(t *testing.T, seed uint64, tune func(*world)) {
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, 7)), held: map[mqtt.Filter]bool{}, granted: map[grant]int64{}}
	tune(w)
	w.hub = hub.New(hub.Options{Source: w, Retainer: w, Linger: time.Minute * time.Duration(seed%2*2-1), Logger: slog.New(slog.DiscardHandler)})
	run(t, w.hub)
	wanted := w.churn(8, 40)
	for f := range wanted {
		if !w.brings(f) {
			t.Errorf("seed %d: in the end nothing brings %q", seed, f)
		}
	}
	if w.refusing != nil {
		return // a wider one may be held for a narrower one that was refused
	}
	widest := map[mqtt.Filter]bool{}
	for f := range wanted {
		widest[f] = true
		for g := range wanted {
			if above(g, f) {
				delete(widest, f)
			}
		}
	}
	for f := range widest {
		if !w.held[f] {
			t.Errorf("seed %d: %q is not held", seed, f)
		}
	}
	for f := range w.held {
		if !widest[f] {
			t.Errorf("seed %d: %q is held and need not be", seed, f)
		}
	}
}

// run runs h in the bubble, with the link up.
func run(t *testing.T, h *hub.Hub) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	h.Link(true)
	synctest.Wait()
}
