package stream_test

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// refresh gives s new grants and wants these effective filters.
func (b *bench) refresh(s *stream.Stream, p auth.Principal, want ...mqtt.Filter) {
	b.t.Helper()
	granted, err := s.Refresh(b.t.Context(), p, func(granted []mqtt.Filter) *wire.Event {
		return wire.NewEvent("authack", struct{}{})
	})
	if err != nil || fmt.Sprint(granted) != fmt.Sprint(want) {
		b.t.Errorf("the filters are %v, %v; want %v", granted, err, want)
	}
}

func TestRefreshNarrows(t *testing.T) {
	inBubble(t, func(b *bench) {
		s := b.open(reader("#"))
		defer s.Close()
		b.subscribe(s, "a/#", "b/#", "c")
		b.expect(s, `answer{} live{"snapshot":0,"complete":true}`)
		b.publish("a/x", "1") // these three wait when the rights change
		b.publish("a/y", "2")
		b.publish("c", "3")
		b.refresh(s, reader("a/x", "b/+"), "a/x", "b/+")
		for _, topic := range []string{"a/x", "a/y", "b/1", "b/1/2", "c"} {
			b.publish(topic, "4")
		}
		b.expect(s, `a/x=1 authack{} a/x=4 b/1=4`)
	})
}

func TestRefreshTakesSnapshotsThatWaitBack(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.retain("a/x", "1")
		b.retain("a/y", "2")
		one, two := b.open(reader("a/#")), b.open(reader("a/#"))
		defer one.Close()
		defer two.Close()
		b.subscribe(one, "a/#")
		b.subscribe(two, "a/#")
		time.Sleep(time.Second)
		synctest.Wait() // both have the snapshot, and share it
		b.refresh(one, reader("a/y"), "a/y")
		b.expect(one, `answer{} a/y=2! live{"snapshot":2,"complete":true} authack{}`)
		b.expect(two, `answer{} a/x=1! a/y=2! live{"snapshot":2,"complete":true}`)
	})
}

// A snapshot that is on its way when the rights change brings what is left.
func TestRefreshDuringASnapshot(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.retain("a/x", "1")
		b.retain("a/y", "2")
		s := b.open(reader("a/#"))
		defer s.Close()
		var once sync.Once
		b.broker.set(func() {
			b.broker.during = func() {
				once.Do(func() {
					b.publish("a/x", "3")
					b.publish("a/y", "4")
					b.refresh(s, reader("a/y"), "a/y")
					b.publish("a/x", "5")
					b.publish("a/y", "6")
				})
			}
		})
		b.subscribe(s, "a/#")
		b.expect(s, `answer{} authack{} a/y=2! live{"snapshot":1,"complete":true} a/y=4 a/y=6`)
	})
}

func TestRefreshWidens(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.retain("a/x", "1")
		b.retain("a/y", "2")
		b.retain("b", "3")
		s := b.open(reader("a/x"))
		defer s.Close()
		b.subscribe(s, "a/#")
		b.expect(s, `answer{} a/x=1! live{"snapshot":1,"complete":true}`)
		b.broker.set(func() { b.broker.during = func() { b.publish("a/x", "4"); b.publish("a/y", "5") } })
		b.refresh(s, reader("a/#", "b"), "a/#") // b was never asked for
		// What the client had comes on at once, once; what is new has its snapshot first.
		b.expect(s, `authack{} a/x=4 a/y=2! live{"snapshot":1,"complete":true} a/y=5`)
		b.publish("a/z", "6")
		b.expect(s, `a/z=6`)
	})
}

func TestRefreshLiftsARule(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.retain("a/x", "1")
		b.retain("a/y", "2")
		s := b.open(denied("a/y", "a/#"))
		defer s.Close()
		b.subscribe(s, "a/#")
		b.expect(s, `answer{} a/x=1! live{"snapshot":1,"complete":true}`)
		b.refresh(s, denied("a/x", "a/#"), "a/#")
		b.publish("a/x", "3")
		b.publish("a/y", "4")
		b.expect(s, `authack{} a/y=2! live{"snapshot":1,"complete":true} a/y=4`)
	})
}

func TestRefreshWithTheSameGrantsMovesTheEndOnly(t *testing.T) {
	inBubble(t, func(b *bench) {
		until := func(d time.Duration) auth.Principal {
			p := reader("#")
			p.Expires = time.Now().Add(d)
			p.Ends = p.Expires.Add(30 * time.Second)
			return p
		}
		s := b.open(until(2 * time.Minute))
		defer s.Close()
		b.subscribe(s, "a")
		b.expect(s, `answer{} live{"snapshot":0,"complete":true}`)
		time.Sleep(65 * time.Second)
		b.expect(s, `token_expiring{"seconds":60}`)
		b.refresh(s, until(5*time.Minute), "a")
		time.Sleep(3 * time.Minute) // well past the first end
		b.publish("a", "1")
		b.expect(s, `authack{} a=1`)
		time.Sleep(time.Minute)
		b.expect(s, `token_expiring{"seconds":60}`)
		time.Sleep(90 * time.Second)
		b.publish("a", "2")
		b.expect(s, `end{"code":4401,"reason":"the token has expired","reconnect":false,"after_ms":0}`)
		if _, err := s.Refresh(b.t.Context(), until(time.Hour), nil); err == nil {
			t.Error("a stream that has ended was refreshed")
		}
	})
}

func TestRefreshThatLeavesNothing(t *testing.T) {
	inBubble(t, func(b *bench) {
		s := b.open(reader("#"))
		defer s.Close()
		b.subscribe(s, "a", "b")
		b.expect(s, `answer{} live{"snapshot":0,"complete":true}`)
		b.publish("a", "1")
		if _, err := s.Refresh(b.t.Context(), reader("c"), nil); !fault.Is(err, fault.NotAuthorized) {
			t.Errorf("%v", err)
		}
		b.expect(s, `end{"code":4403,"reason":"the new grants allow nothing of the stream's filters","reconnect":false,"after_ms":0}`)

		idle := b.open(reader("#")) // it has no filters, so it loses none
		defer idle.Close()
		b.refresh(idle, reader("c"))
		b.subscribe(idle, "c")
		b.publish("c", "2")
		b.expect(idle, `authack{} answer{} live{"snapshot":0,"complete":true} c=2`)
	})
}

func TestRefreshOfAStrictFilter(t *testing.T) {
	inBubble(t, func(b *bench) {
		s := b.open(reader("a/#", "b"))
		defer s.Close()
		b.ask(s, stream.Subscription{Requests: []stream.Request{{Filter: "a/#", Strict: true}, {Filter: "b"}}})
		b.refresh(s, reader("a/x", "b"), "b")
		b.publish("a/x", "1")
		b.publish("b", "2")
		b.expect(s, `answer{} live{"snapshot":0,"complete":true} authack{} b=2`)
	})
}

// While rights change back and forth under a publisher's hands, what stays
// permitted comes all the time, once and in order, without a gap.
func TestRefreshLosesNothing(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.streams = stream.NewRegistry(b.hub, roomy, slog.New(slog.DiscardHandler), nil)
		s := b.open(reader("#"))
		defer s.Close()
		b.ask(s, stream.Subscription{Requests: []stream.Request{{Filter: "a/#", QoS: 1, Snapshot: true}}})
		b.expect(s, `answer{} live{"snapshot":0,"complete":true}`)
		grants := []auth.Principal{reader("a/keep/#", "a/+/1"), reader("a/keep/+"), denied("a/x/1", "a/#"), reader("a/#"), reader("#"), reader("a/keep/1", "a/x/#")}
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				case <-time.After(700 * time.Microsecond):
				}
				b.publish("a/keep/1", fmt.Sprint(n))
				b.publish("a/x/1", fmt.Sprint(n))
			}
		})
		var items []stream.Item
		wg.Go(func() { // the client reads all the time
			for over := false; !over; {
				select {
				case <-done:
					over = true
				case <-time.After(3 * time.Millisecond):
				}
				items = s.Take(items, 1000)
			}
		})
		for round := range 60 {
			if _, err := s.Refresh(b.t.Context(), grants[round%len(grants)], nil); err != nil {
				b.t.Error(err)
			}
			time.Sleep(time.Duration(round) * 971 * time.Microsecond)
		}
		close(done)
		wg.Wait()
		time.Sleep(time.Second)
		items = s.Take(items, 1000)
		next := 0
		for _, one := range strings.Fields(say(t, items)) {
			if value, is := strings.CutPrefix(one, "a/keep/1="); is {
				if value != fmt.Sprint(next) {
					b.t.Fatalf("%s came, want %d", one, next)
				}
				next++
			}
			if strings.HasPrefix(one, "gap") || strings.HasPrefix(one, "end") {
				b.t.Fatal(one)
			}
		}
		if next < 500 {
			t.Errorf("only %d messages came", next)
		}
	})
}

func TestRecheck(t *testing.T) {
	inBubble(t, func(b *bench) {
		worth := func(p auth.Principal) (auth.Principal, error) { return p, nil }
		b.streams.Trust(func(p auth.Principal) (auth.Principal, error) { return worth(p) })
		who := func(name string, grants ...mqtt.Filter) auth.Principal {
			p := reader(grants...)
			p.Subject = name
			return p
		}
		gone, less, same := b.open(who("gone", "#")), b.open(who("less", "#")), b.open(who("same", "#"))
		for _, s := range []*stream.Stream{gone, less, same} {
			defer s.Close()
			b.subscribe(s, "a/#")
			b.expect(s, `answer{} live{"snapshot":0,"complete":true}`)
		}
		b.publish("a/x", "1")
		worth = func(p auth.Principal) (auth.Principal, error) {
			switch p.Subject {
			case "gone":
				return auth.Principal{}, fault.New(fault.TokenInvalid, "it is withdrawn")
			case "less":
				p.Grants = auth.Grants{Sub: []mqtt.Filter{"a/y"}}
			}
			return p, nil
		}
		var told []string
		b.streams.Recheck(b.t.Context(), func(p auth.Principal, address string, err error) {
			told = append(told, p.Subject+" at "+address+": "+err.Error())
		})
		b.publish("a/x", "2")
		b.publish("a/y", "3")
		b.expect(gone, `end{"code":4401,"reason":"it is withdrawn","reconnect":false,"after_ms":0}`)
		b.expect(less, `a/y=3`)
		b.expect(same, `a/x=1 a/x=2 a/y=3`)
		if fmt.Sprint(told) != "[gone at 192.0.2.1: token-invalid: it is withdrawn]" {
			t.Errorf("told: %v", told)
		}
		gone.Close()
		late, err := b.streams.Open("192.0.2.1")
		if err != nil {
			b.t.Fatal(err)
		}
		defer late.Close()
		if err := late.Authenticate(who("gone", "#")); !fault.Is(err, fault.TokenInvalid) {
			t.Errorf("who was withdrawn between its check and its stream: %v", err)
		}
	})
}
