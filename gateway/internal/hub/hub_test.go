package hub_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/mqtt"
)

// source is a broker whose answers a test chooses. It is here because a real one
// cannot be made to refuse, to hang and to disappear at a given instant.
type source struct {
	mu       sync.Mutex // guards what follows
	calls    []string   // "+filter" and "-filter", in order
	held     map[mqtt.Filter]int
	refuse   map[mqtt.Filter]bool
	fail     int // so many calls fail as a whole
	retained []mqtt.Message
	hold     chan struct{} // Subscribe waits for it
}

func newSource() *source {
	return &source{held: map[mqtt.Filter]int{}, refuse: map[mqtt.Filter]bool{}}
}

func (s *source) Subscribe(ctx context.Context, filters []mqtt.Filter, _ mqtt.QoS) ([]error, error) {
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail > 0 {
		s.fail--
		return nil, errors.New("no answer")
	}
	errs := make([]error, len(filters))
	for i, f := range filters {
		s.calls = append(s.calls, "+"+string(f))
		s.held[f]++
		if s.refuse[f] {
			errs[i] = fault.New(fault.NotAuthorized, "refused")
			s.held[f] = 0
		}
	}
	return errs, nil
}

func (s *source) Unsubscribe(_ context.Context, filters []mqtt.Filter) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail > 0 {
		s.fail--
		return errors.New("no answer")
	}
	for _, f := range filters {
		s.calls = append(s.calls, "-"+string(f))
		delete(s.held, f)
	}
	return nil
}

func (s *source) Barrier(_ context.Context, reached func()) error {
	reached()
	return nil
}

func (s *source) Retained(context.Context, mqtt.Filter) ([]mqtt.Message, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "snapshot")
	return s.retained, true, nil
}

func (s *source) count(call string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		if c == call {
			n++
		}
	}
	return n
}

// reader is a subscriber that keeps what it gets.
type reader struct {
	mu     sync.Mutex // guards what follows
	topics []mqtt.Topic
	links  []bool
	missed int
}

func (r *reader) Deliver(f *hub.Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.topics = append(r.topics, f.Topic)
}

func (r *reader) Upstream(up bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.links = append(r.links, up)
}

func (r *reader) Missed(mqtt.Topic) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missed++
}

func (r *reader) got() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.topics)
}

// start runs a hub in a bubble of test time.
func start(t *testing.T, s *source) *hub.Hub {
	h := hub.New(hub.Options{Source: s, Retainer: s, Linger: -1, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	h.Link(true)
	synctest.Wait()
	return h
}

func filters(names ...string) (all []mqtt.Filter) {
	for _, n := range names {
		all = append(all, mqtt.Filter(n))
	}
	return all
}

func subscribe(t *testing.T, h *hub.Hub, r *reader, names ...string) {
	t.Helper()
	for i, err := range h.Subscribe(t.Context(), r, filters(names...)) {
		if err != nil {
			t.Fatalf("%s: %v", names[i], err)
		}
	}
}

func TestOneUpstreamSubscriptionServesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		h := start(t, s)
		readers := []*reader{{}, {}, {}}
		for _, r := range readers {
			subscribe(t, h, r, "a/+")
		}
		h.Deliver(mqtt.Message{Topic: "a/1", Payload: []byte("x")})
		h.Deliver(mqtt.Message{Topic: "b/1", Payload: []byte("x")})
		for _, r := range readers {
			if r.got() != 1 {
				t.Errorf("a reader got %d messages, want 1", r.got())
			}
		}
		if n := s.count("+a/+"); n != 1 {
			t.Errorf("%d upstream subscriptions, want 1", n)
		}
		for _, r := range readers[:2] {
			h.Leave(r)
		}
		synctest.Wait()
		if s.count("-a/+") != 0 {
			t.Error("unsubscribed while somebody is still there")
		}
		h.Leave(readers[2])
		synctest.Wait()
		if s.count("-a/+") != 1 {
			t.Error("not unsubscribed after the last one left")
		}
	})
}

func TestMissedIsToldOnceToThoseItWasFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newSource())
		several, one, other := &reader{}, &reader{}, &reader{}
		subscribe(t, h, several, "a/#", "a/+", "a/1")
		subscribe(t, h, one, "a/+")
		subscribe(t, h, other, "b/#")
		h.Missed("a/1")
		h.Missed("c")
		h.Deliver(mqtt.Message{Topic: "b/1"})
		if several.missed != 1 || one.missed != 1 || other.missed != 0 {
			t.Errorf("told %d, %d and %d times, want 1, 1 and 0", several.missed, one.missed, other.missed)
		}
		if several.got() != 0 || other.got() != 1 {
			t.Errorf("delivered %d and %d, want 0 and 1", several.got(), other.got())
		}
	})
}

func TestRefusedFilterIsReportedToThoseWhoAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.refuse["no/#"] = true
		h := start(t, s)
		r := &reader{}
		errs := h.Subscribe(t.Context(), r, filters("no/#", "yes/#"))
		if !fault.Is(errs[0], fault.NotAuthorized) {
			t.Errorf("the refused filter: %v", errs[0])
		}
		if errs[1] != nil {
			t.Errorf("the granted filter: %v", errs[1])
		}
		h.Deliver(mqtt.Message{Topic: "no/1"})
		h.Deliver(mqtt.Message{Topic: "yes/1"})
		if len(r.topics) != 1 || r.topics[0] != "yes/1" {
			t.Errorf("delivered %q", r.topics)
		}
	})
}

func TestReconnectSubscribesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		h := start(t, s)
		r := &reader{}
		subscribe(t, h, r, "a", "b/#")
		h.Link(false)
		s.refuse["a"] = true // the broker's mind has changed
		h.Link(true)
		if err := h.Await(t.Context(), "b/#"); err != nil {
			t.Errorf("b/#: %v", err)
		}
		if err := h.Await(t.Context(), "a"); !fault.Is(err, fault.NotAuthorized) {
			t.Errorf("a: %v", err)
		}
		if s.count("+a") != 2 || s.count("+b/#") != 2 {
			t.Errorf("calls: %q", s.calls)
		}
		if len(r.links) != 2 || r.links[0] || !r.links[1] {
			t.Errorf("the reader was told %v", r.links)
		}
	})
}

// An answer that arrives after its connection has gone says nothing about the
// next one.
func TestLateAnswerOfAnOldConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.hold = make(chan struct{})
		h := start(t, s)
		r := &reader{}
		var errs []error
		var wg sync.WaitGroup
		wg.Go(func() { errs = h.Subscribe(t.Context(), r, filters("a")) })
		synctest.Wait() // the hub waits in source.Subscribe
		h.Link(false)
		h.Link(true)
		close(s.hold) // the first call succeeds, on the connection that is gone
		wg.Wait()
		synctest.Wait()
		if errs[0] != nil {
			t.Error(errs[0])
		}
		if n := s.count("+a"); n != 2 {
			t.Errorf("subscribed %d times, want once for each connection", n)
		}
	})
}

func TestFailedCallsAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		h := start(t, s)
		r := &reader{}
		s.fail = 3
		subscribe(t, h, r, "a")
		s.mu.Lock()
		s.fail = 3
		s.mu.Unlock()
		h.Leave(r)
		time.Sleep(time.Minute) // of the bubble's time
		synctest.Wait()
		if len(s.held) != 0 {
			t.Errorf("still held: %v", s.held)
		}
	})
}

func TestSubscribeGivesUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.hold = make(chan struct{})
		h := start(t, s)
		r := &reader{}
		begun := time.Now()
		errs := h.Subscribe(t.Context(), r, filters("a"))
		if !fault.Is(errs[0], fault.UpstreamUnavailable) || time.Since(begun) != 5*time.Second {
			t.Errorf("%v after %s", errs[0], time.Since(begun))
		}
		close(s.hold)
		synctest.Wait()
		h.Deliver(mqtt.Message{Topic: "a"})
		if r.got() != 0 {
			t.Error("delivered to a subscriber that was refused")
		}
	})
}

func TestManyFiltersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		h := start(t, s)
		var wg sync.WaitGroup
		for n := range 300 {
			wg.Go(func() {
				r := &reader{}
				f := mqtt.Filter("pets/" + string(rune('a'+n%20)) + "/#")
				for range 5 {
					if err := h.Subscribe(t.Context(), r, []mqtt.Filter{f})[0]; err != nil {
						t.Error(err)
					}
					h.Unsubscribe(r, []mqtt.Filter{f})
				}
				h.Leave(r)
			})
		}
		wg.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		if len(s.held) != 0 {
			t.Errorf("still held: %v", s.held)
		}
	})
}

// After an UNSUBSCRIBE whose outcome nobody knows, a filter that is wanted again
// is subscribed to again.
func TestUnknownUnsubscribeIsNotTrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		h := start(t, s)
		r := &reader{}
		subscribe(t, h, r, "a")
		s.mu.Lock()
		s.fail = 1
		s.mu.Unlock()
		h.Leave(r)
		synctest.Wait() // the call has failed, the next try waits
		subscribe(t, h, r, "a")
		if n := s.count("+a"); n != 2 {
			t.Errorf("subscribed %d times, want a second time", n)
		}
	})
}
