package stream_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

func TestSnapshotThenLive(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.retain("a/1", "1")
		b.retain("b/1", "1")
		s := b.open(reader("#"))
		defer s.Close()
		b.subscribe(s, "a/#")
		b.publish("a/1", "2")
		b.expect(s, `answer{} a/1=1! live{"snapshot":1,"complete":true} a/1=2`)
		b.publish("a/1", "3")
		b.publish("b/1", "3")
		b.expect(s, `a/1=3`)
	})
}

// A value that is published while the stream joins comes once, as live, although
// it is in the snapshot too.
func TestNoDoubleBetweenSnapshotAndLive(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.retain("a/1", "1")
		b.broker.set(func() { b.broker.during = func() { b.publish("a/1", "1"); b.publish("a/2", "7") } })
		s := b.open(reader("#"))
		defer s.Close()
		b.subscribe(s, "a/#")
		b.expect(s, `answer{} live{"snapshot":0,"complete":true} a/1=1 a/2=7`)
	})
}

// Behind the barrier a payload like the retained one is news: the retained one
// comes all the same, first.
func TestSamePayloadBehindTheBarrierIsAnotherMessage(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.retain("a/1", "1")
		b.broker.set(func() { b.broker.after = func() { b.publish("a/1", "2"); b.publish("a/1", "1") } })
		s := b.open(reader("#"))
		defer s.Close()
		b.subscribe(s, "a/#")
		b.expect(s, `answer{} a/1=1! live{"snapshot":1,"complete":true} a/1=2 a/1=1`)
	})
}

// An event that is not retained does not hide the retained value of its topic.
func TestEventDoesNotHideTheRetainedValue(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.retain("a/1", "1")
		b.broker.set(func() { b.broker.during = func() { b.publish("a/1", "99") } })
		s := b.open(reader("#"))
		defer s.Close()
		b.subscribe(s, "a/#")
		b.expect(s, `answer{} a/1=1! live{"snapshot":1,"complete":true} a/1=99`)
	})
}

func TestOverlappingFiltersDeliverOnce(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.retain("a/1", "1")
		s := b.open(reader("#"))
		defer s.Close()
		b.subscribe(s, "a/#", "+/1", "a/1")
		b.expect(s, `answer{} a/1=1! live{"snapshot":1,"complete":true}`)
		b.publish("a/1", "2")
		b.expect(s, `a/1=2`)
	})
}

// A message that a running join keeps aside keeps its place in its topic's order,
// also when an older subscription matches it.
func TestJoinDoesNotReorderATopic(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.retain("a/1", "1")
		s := b.open(reader("#"))
		defer s.Close()
		b.subscribe(s, "a/#")
		b.expect(s, `answer{} a/1=1! live{"snapshot":1,"complete":true}`)
		b.broker.set(func() { b.broker.during = func() { b.publish("a/1", "2"); b.publish("a/2", "9") } })
		b.subscribe(s, "+/1")
		b.expect(s, `answer{} a/2=9 a/1=1! live{"snapshot":1,"complete":true} a/1=2`)
	})
}

func TestReconnectTellsTheGapAndHeals(t *testing.T) {
	inBubble(t, func(b *bench) {
		s := b.open(reader("#"))
		defer s.Close()
		b.subscribe(s, "a/#")
		b.expect(s, `answer{} live{"snapshot":0,"complete":true}`)
		b.hub.Link(false)
		b.expect(s, `upstream{"connected":false}`)
		b.retain("a/1", "5") // while nobody listened
		b.hub.Link(true)
		b.publish("a/1", "6")
		b.expect(s, `upstream{"connected":true} gap{"missed":null,"reason":"upstream"} a/1=5! live{"snapshot":1,"complete":true} a/1=6`)
	})
}

func TestReconnectDuringAJoin(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.retain("a/1", "1")
		once := sync.OnceFunc(func() { b.publish("a/1", "2"); b.hub.Link(false); b.hub.Link(true) })
		b.broker.set(func() { b.broker.during = once })
		s := b.open(reader("#"))
		defer s.Close()
		b.subscribe(s, "a/#")
		b.expect(s, `answer{} upstream{"connected":false} a/1=2 upstream{"connected":true} gap{"missed":null,"reason":"upstream"} `+
			`a/1=1! live{"snapshot":1,"complete":true}`)
	})
}

func TestFilterRefusedAfterAReconnectEndsTheStream(t *testing.T) {
	inBubble(t, func(b *bench) {
		s := b.open(reader("#"))
		defer s.Close()
		b.subscribe(s, "a/#")
		b.expect(s, `answer{} live{"snapshot":0,"complete":true}`)
		b.hub.Link(false)
		b.broker.set(func() { b.broker.refuse["a/#"] = true })
		b.hub.Link(true)
		time.Sleep(time.Second)
		if got := say(b.t, s.Take(nil, 100)); !strings.Contains(got, `end{"code":4403,"reason":"the broker no longer grants a/#","reconnect":false`) {
			t.Error(got)
		}
	})
}

func TestSnapshotThatFailsIsToldAsIncomplete(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.broker.set(func() { b.broker.down = true })
		s := b.open(reader("#"))
		defer s.Close()
		b.subscribe(s, "a/#")
		b.publish("a/1", "1")
		b.expect(s, `answer{} live{"snapshot":0,"complete":false} a/1=1`)
	})
}

func TestNarrowing(t *testing.T) {
	inBubble(t, func(b *bench) {
		s := b.open(reader("pets/1/#", "pets/2/status"))
		defer s.Close()
		results := b.subscribe(s, "pets/+/status", "chat/#")
		if fmt.Sprint(results[0].Granted) != "[pets/1/status pets/2/status]" || !fault.Is(results[1].Err, fault.NotAuthorized) {
			t.Errorf("%+v", results)
		}
		for n := range 3 {
			b.publish(fmt.Sprintf("pets/%d/status", n), "1")
		}
		b.expect(s, `answer{} live{"snapshot":0,"complete":true} pets/1/status=1 pets/2/status=1`)
	})
}

func TestStrictWantsOneGrantForAll(t *testing.T) {
	p := reader("pets/1/#")
	if _, err := stream.Narrow(p, "pets/#", true); !fault.Is(err, fault.NotAuthorized) {
		t.Errorf("pets/#: %v", err)
	}
	if granted, err := stream.Narrow(p, "pets/1/+", true); err != nil || len(granted) != 1 {
		t.Errorf("pets/1/+: %v, %v", granted, err)
	}
}

func TestUnsubscribeEndsDelivery(t *testing.T) {
	inBubble(t, func(b *bench) {
		s := b.open(reader("#"))
		defer s.Close()
		b.subscribe(s, "a/#", "a/1")
		b.expect(s, `answer{} live{"snapshot":0,"complete":true}`)
		s.Unsubscribe([]mqtt.Filter{"a/#", "never/asked"})
		b.publish("a/1", "1")
		b.publish("a/2", "1")
		b.expect(s, `a/1=1`)
	})
}

func TestFailedSubscribeLeavesTheOlderOne(t *testing.T) {
	inBubble(t, func(b *bench) {
		s := b.open(reader("a/1", "a/2"))
		defer s.Close()
		b.subscribe(s, "a/+")
		b.expect(s, `answer{} live{"snapshot":0,"complete":true}`)
		strict := []stream.Request{{Filter: "a/+", Strict: true}}
		o, err := s.Subscribe(b.t.Context(), stream.Subscription{Requests: strict}, func(stream.Outcome) []*wire.Event { return nil })
		if err != nil {
			t.Fatal(err)
		}
		results := o.Results
		if !fault.Is(results[0].Err, fault.NotAuthorized) {
			t.Errorf("%+v", results)
		}
		b.hub.Link(false)
		if down := b.subscribe(s, "a/+"); !fault.Is(down[0].Err, fault.UpstreamUnavailable) {
			t.Errorf("%+v", down)
		}
		b.expect(s, `upstream{"connected":false} answer{}`)
		b.hub.Link(true)
		b.publish("a/1", "1")
		b.expect(s, `upstream{"connected":true} gap{"missed":null,"reason":"upstream"} live{"snapshot":0,"complete":true} a/1=1`)
	})
}

// Snapshots are much more than the requests for them: who does not read what they
// brought gets no more of them.
func TestJoinsWaitForTheReader(t *testing.T) {
	inBubble(t, func(b *bench) {
		s := b.open(reader("#"))
		defer s.Close()
		var asked atomic.Int64
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 5 {
				b.subscribe(s, "a")
				asked.Add(1)
			}
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := asked.Load(); n != 2 {
			t.Errorf("%d joins of a client that reads nothing", n)
		}
		for asked.Load() < 5 {
			s.Take(nil, 100)
			time.Sleep(time.Second)
		}
		wg.Wait()
	})
}

func TestNarrowedFiltersAreBounded(t *testing.T) {
	inBubble(t, func(b *bench) {
		p := reader()
		for n := range 600 {
			p.Grants.Sub = append(p.Grants.Sub, mqtt.Filter(fmt.Sprintf("+/%d", n)))
		}
		s := b.open(p)
		defer s.Close()
		results := b.subscribe(s, "a/+", "b/+")
		if len(results[0].Granted) != 600 || !fault.Is(results[1].Err, fault.BadRequest) {
			t.Errorf("%d granted, then %v", len(results[0].Granted), results[1].Err)
		}
	})
}

func TestFiltersOfOneStreamAreBounded(t *testing.T) {
	inBubble(t, func(b *bench) {
		s := b.open(reader("#"))
		defer s.Close()
		results := b.subscribe(s, "a", "b", "c", "d")
		if results[2].Err != nil || !fault.Is(results[3].Err, fault.BadRequest) {
			t.Errorf("%+v", results)
		}
		if again := b.subscribe(s, "a"); again[0].Err != nil {
			t.Errorf("a second time: %v", again[0].Err)
		}
	})
}

func TestSlowReaderIsToldWhatItMissed(t *testing.T) {
	inBubble(t, func(b *bench) {
		slow, quick := b.open(reader("#")), b.open(reader("#"))
		defer slow.Close()
		defer quick.Close()
		b.subscribe(slow, "a")
		b.subscribe(quick, "a")
		b.expect(slow, `answer{} live{"snapshot":0,"complete":true}`)
		b.expect(quick, `answer{} live{"snapshot":0,"complete":true}`)
		for n := range 10 {
			b.publish("a", fmt.Sprint(n))
			b.expect(quick, fmt.Sprintf("a=%d", n))
		}
		b.expect(slow, `gap{"missed":7,"reason":"slow"} a=7 a=8 a=9`)
	})
}

func TestExpiryWarnsAndEnds(t *testing.T) {
	inBubble(t, func(b *bench) {
		p := reader("#")
		p.Expires = time.Now().Add(10 * time.Minute)
		p.Ends = p.Expires.Add(30 * time.Second)
		s := b.open(p)
		defer s.Close()
		b.subscribe(s, "a")
		b.expect(s, `answer{} live{"snapshot":0,"complete":true}`)
		time.Sleep(9*time.Minute - time.Second)
		b.expect(s, `token_expiring{"seconds":60}`)
		time.Sleep(89*time.Second - time.Millisecond)
		b.publish("a", "1") // not read in time
		time.Sleep(time.Second)
		b.publish("a", "2")
		b.expect(s, `end{"code":4401,"reason":"the token has expired","reconnect":false,"after_ms":0}`)
	})
}

// The warning of a token that expires soon comes behind the greeting.
func TestShortTokenIsWarnedOfAfterTheAnswer(t *testing.T) {
	inBubble(t, func(b *bench) {
		p := reader("#")
		p.Expires = time.Now().Add(20 * time.Second)
		p.Ends = p.Expires.Add(time.Second)
		s := b.open(p)
		defer s.Close()
		synctest.Wait()
		b.subscribe(s, "a")
		b.expect(s, `answer{} token_expiring{"seconds":20} live{"snapshot":0,"complete":true}`)
		b.expect(s, ``)
		time.Sleep(20 * time.Second)
		b.expect(s, `end{"code":4401,"reason":"the token has expired","reconnect":false,"after_ms":0}`)
	})
}

func TestStreamsAreBounded(t *testing.T) {
	inBubble(t, func(b *bench) {
		one, two := b.open(reader("#")), b.open(reader("#"))
		third, err := b.streams.Open("192.0.2.1")
		if err != nil {
			t.Fatal(err)
		}
		if err := third.Authenticate(reader("#")); !fault.Is(err, fault.RateLimited) {
			t.Errorf("a third stream of the subject: %v", err)
		}
		if _, err := b.streams.Open("192.0.2.1"); !fault.Is(err, fault.RateLimited) {
			t.Errorf("a fourth stream of the address: %v", err)
		}
		other, err := b.streams.Open("192.0.2.2")
		if err != nil {
			t.Errorf("another address: %v", err)
		}
		if _, err := b.streams.Open("192.0.2.3"); !fault.Is(err, fault.Overloaded) {
			t.Errorf("a fifth stream: %v", err)
		}
		third.Close()
		two.Close()
		if again := b.open(reader("#")); again != nil {
			again.Close()
		}
		other.Close()
		one.Close()
		if n := b.streams.Count(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

func TestNoStreamsWithoutTheBroker(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.hub.Link(false)
		if _, err := b.streams.Open("192.0.2.1"); !fault.Is(err, fault.UpstreamUnavailable) {
			t.Errorf("%v", err)
		}
		b.hub.Link(true)
		b.open(reader("#")).Close()
	})
}

func TestDrainEndsStreamsWithAHint(t *testing.T) {
	inBubble(t, func(b *bench) {
		s := b.open(reader("#"))
		defer s.Close()
		b.publish("a", "1")
		b.streams.Drain()
		items := s.Take(nil, 100)
		var end wire.End
		if err := json.Unmarshal(items[len(items)-1].Event.Fields, &end); err != nil {
			t.Fatal(err)
		}
		if end.Code != wire.CloseRestart || !end.Reconnect || end.AfterMS < 0 || end.AfterMS > 5000 {
			t.Errorf("%+v", end)
		}
		if _, err := b.streams.Open("192.0.2.1"); !fault.Is(err, fault.Draining) {
			t.Errorf("%v", err)
		}
	})
}

func TestAnswersToAClientThatDoesNotReadAreBounded(t *testing.T) {
	inBubble(t, func(b *bench) {
		s := b.open(reader("#"))
		defer s.Close()
		for range 5000 {
			s.Send(wire.NewEvent("pong", struct{}{}))
		}
		items := s.Take(nil, 10000)
		last := items[len(items)-1].Event
		if len(items) > 1001 || last.Name != "end" || !strings.Contains(string(last.Fields), "4008") {
			t.Errorf("%d answers, the last %s %s", len(items), last.Name, last.Fields)
		}
	})
}
