package hub_test

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/mqtt"
)

// lingerFor runs a hub in front of s.
func lingerFor(t *testing.T, s *source, linger time.Duration) *hub.Hub {
	h := hub.New(hub.Options{Source: s, Retainer: s, Linger: linger, Logger: slog.New(slog.DiscardHandler)})
	run(t, h)
	return h
}

func TestFilterLingersForWhoComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		h := lingerFor(t, s, 0) // the default
		first, second := &reader{}, &reader{}
		subscribe(t, h, first, "a/+")
		since, ok := h.Covered("a/+")
		h.Leave(first)
		time.Sleep(5*time.Minute - time.Second)
		begun := time.Now()
		subscribe(t, h, second, "a/+")
		if again, still := h.Covered("a/+"); !ok || !still || again != since {
			t.Errorf("covered since %d (%v), want %d as before (%v)", again, still, since, ok)
		}
		if s.count("+a/+") != 1 || time.Since(begun) != 0 {
			t.Errorf("%d subscriptions, answered after %s", s.count("+a/+"), time.Since(begun))
		}
		time.Sleep(time.Hour)
		if s.count("-a/+") != 0 {
			t.Error("unsubscribed although somebody came back")
		}
		h.Leave(second)
		time.Sleep(5*time.Minute - time.Second)
		synctest.Wait()
		if s.count("-a/+") != 0 {
			t.Error("unsubscribed too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s.count("-a/+") != 1 {
			t.Errorf("%d unsubscriptions when the time was over, want 1", s.count("-a/+"))
		}
		if n, lingering, empty := h.Interests(); n != 0 || lingering != 0 || !empty {
			t.Errorf("%d interests are left, %d linger, the trees are empty: %v", n, lingering, empty)
		}
	})
}

func TestLingeringIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		h := lingerFor(t, s, time.Hour)
		r := &reader{}
		for n := range 10_050 {
			f := fmt.Sprintf("t/%d", n)
			subscribe(t, h, r, f)
			h.Unsubscribe(r, filters(f))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, lingering, _ := h.Interests(); lingering != 10_000 {
			t.Errorf("%d filters linger, want 10,000", lingering)
		}
		if s.count("-t/49") != 1 || s.count("-t/50") != 0 {
			t.Error("not the oldest 50 were given up")
		}
	})
}

// A refused filter does not linger: the next who asks gets the broker's answer of
// that day.
func TestRefusedFilterIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.refuse["a"] = true
		h := lingerFor(t, s, time.Hour)
		r := &reader{}
		if err := h.Subscribe(t.Context(), r, filters("a"))[0]; !fault.Is(err, fault.NotAuthorized) {
			t.Errorf("the refused filter: %v", err)
		}
		delete(s.refuse, "a")
		subscribe(t, h, r, "a")
	})
}

func TestReconnectBringsLingeringFiltersBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		h := lingerFor(t, s, time.Hour)
		r := &reader{}
		subscribe(t, h, r, "a", "b")
		h.Leave(r)
		h.Link(false)
		if _, ok := h.Covered("a"); ok {
			t.Error("covered without a connection")
		}
		h.Link(true)
		synctest.Wait()
		if _, ok := h.Covered("a"); !ok || s.count("+a") != 2 {
			t.Errorf("%d subscriptions after a reconnect, covered: %v", s.count("+a"), ok)
		}
	})
}

func TestCoveredSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newSource())
		r := &reader{}
		deliver := func(n int) {
			for range n {
				h.Deliver(mqtt.Message{Topic: "tick"})
			}
		}
		want := func(f mqtt.Filter, seq uint64) {
			t.Helper()
			if since, ok := h.Covered(f); !ok || since != seq {
				t.Errorf("%q is covered since %d (%v), want %d", f, since, ok, seq)
			}
		}
		subscribe(t, h, r, "tick") // the connection takes number 1, each answer of the broker one more
		deliver(3)
		subscribe(t, h, r, "a/#")
		want("a/#", 6)
		deliver(2)
		subscribe(t, h, r, "a/1") // the wider one brought it before
		subscribe(t, h, r, "b")
		want("a/1", 6)
		want("b", 9)
		want("a/2", 6) // whoever would ask for it
		h.Unsubscribe(r, filters("a/#"))
		deliver(2)
		synctest.Wait() // "a/1" has its own subscription now, made before the end of the other
		want("a/1", 6)
		if _, ok := h.Covered("a/2"); ok {
			t.Error("a/2 is covered by nothing")
		}
		deliver(1)
		subscribe(t, h, r, "#")
		want("#", 14)
		want("b", 9) // what takes a subscription's place leaves no hole
		want("c", 14)
	})
}

// The broker refuses the wide filter: who asked for it is told, the narrow ones go
// on, and those that waited for it are asked for themselves.
func TestRefusedCover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.refuse["a/#"] = true
		h := start(t, s)
		early, wide, late := &reader{}, &reader{}, &reader{}
		subscribe(t, h, early, "a/1")
		s.hold = make(chan struct{})
		answers := make(chan error, 2)
		go func() { answers <- h.Subscribe(t.Context(), wide, filters("a/#"))[0] }()
		synctest.Wait()
		go func() { answers <- h.Subscribe(t.Context(), late, filters("a/2"))[0] }()
		synctest.Wait()
		close(s.hold)
		one, two := <-answers, <-answers
		if one == nil {
			one, two = two, one
		}
		if !fault.Is(one, fault.NotAuthorized) || two != nil {
			t.Errorf("the answers are %v and %v, want a refusal and a grant", one, two)
		}
		synctest.Wait()
		h.Deliver(mqtt.Message{Topic: "a/1"})
		h.Deliver(mqtt.Message{Topic: "a/2"})
		if early.got() != 1 || late.got() != 1 || wide.got() != 0 {
			t.Errorf("delivered %d, %d and %d, want 1, 1 and 0", early.got(), late.got(), wide.got())
		}
		if want := []string{"+a/1", "+a/#", "+a/2"}; !slices.Equal(s.calls, want) {
			t.Errorf("the broker was asked %q, want %q", s.calls, want)
		}
	})
}

// The narrow subscriptions end only after the wide one is granted, and come back
// before it ends.
func TestMakeBeforeBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		h := start(t, s)
		r := &reader{}
		for _, f := range []string{"a/1", "a/#", "a/2"} {
			subscribe(t, h, r, f)
			synctest.Wait()
		}
		h.Unsubscribe(r, filters("a/#"))
		time.Sleep(time.Second)
		synctest.Wait()
		slices.Sort(s.calls[3:5]) // in which order the two come is free
		if want := []string{"+a/1", "+a/#", "-a/1", "+a/1", "+a/2", "-a/#"}; !slices.Equal(s.calls, want) {
			t.Errorf("the broker was asked %q, want %q", s.calls, want)
		}
	})
}
