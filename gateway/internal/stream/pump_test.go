package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/wire"
)

// sink is a connection that is busy now and then.
type sink struct {
	t      *testing.T
	stream *stream.Stream
	every  int           // busy after one in so many offers; 0: never
	fails  int           // the offer that fails; 0: none
	hasty  bool          // busy after each offer, and free again while the pump looks for the next
	asked  int           // while busy
	beats  time.Duration // between two ticks
	using  atomic.Int32
	closed atomic.Bool // Close has returned: nobody may call

	mu     sync.Mutex // guards what follows
	busy   bool
	offers int
	ticks  int
	got    bytes.Buffer
	end    *wire.End
	freed  sync.WaitGroup
}

// enter finds two calls at a time, and calls after Close.
func (k *sink) enter(what string) func() {
	if k.using.Add(1) != 1 {
		k.t.Errorf("%s while another call runs", what)
	}
	if k.closed.Load() {
		k.t.Errorf("%s after Close", what)
	}
	return func() { k.using.Add(-1) }
}

func (k *sink) Free() bool {
	defer k.enter("Free")()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.hasty && k.busy {
		if k.asked++; k.asked == 3 {
			k.busy, k.asked = false, 0
			k.stream.Freed() // before the pump has made anything of the answer
		}
		return false
	}
	return !k.busy
}

func (k *sink) Offer(b []byte, _ time.Time) error {
	defer k.enter("Offer")()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.offers++; k.offers == k.fails {
		return errors.New("gone")
	}
	if k.busy || k.end != nil {
		k.t.Errorf("offered while busy (%v) or behind the end (%v)", k.busy, k.end)
	}
	k.got.Write(b)
	if k.hasty {
		k.busy = true
	} else if k.every > 0 && rand.IntN(k.every) == 0 {
		k.busy = true
		k.freed.Go(func() {
			time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond) // a slow line, of the bubble's time
			k.mu.Lock()
			k.busy = false
			k.mu.Unlock()
			k.stream.Freed()
		})
	}
	return nil
}

func (k *sink) Tick(now time.Time) time.Time {
	defer k.enter("Tick")()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ticks++
	return now.Add(k.beats)
}

func (k *sink) Finish(end wire.End) {
	defer k.enter("Finish")()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.end = &end
}

// numbers is a format of which each message is its Seq and a space.
var numbers = &stream.Format{
	Open:  func(dst []byte) []byte { return dst },
	Close: func(dst []byte, _ int) []byte { return dst },
	Message: func(dst []byte, f *hub.Frame, _ uint64) []byte {
		return fmt.Appendf(dst, "%d ", f.Seq)
	},
	Event: func(dst []byte, e *wire.Event) []byte { return append(append(dst, e.Name...), ' ') },
}

func (b *bench) attach(s *stream.Stream, k *sink) *sink {
	k.t, k.stream = b.t, s
	if k.beats == 0 {
		k.beats = time.Hour
	}
	s.Attach(k, numbers)
	return k
}

func (k *sink) close() {
	k.stream.Close()
	k.closed.Store(true)
	k.freed.Wait()
}

func (k *sink) read() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.got.String()
}

// Whatever lines are busy and when they are free again, every stream gets all, in
// order, and a stream that leaves in the middle is left alone.
func TestPumpLosesNoWakeUp(t *testing.T) {
	const streams, messages = 40, 1500
	inBubbleWith(t, roomy, func(b *bench) {
		var sinks []*sink
		for n := range streams {
			s := b.open(reader("#"))
			b.ask(s, stream.Subscription{Requests: []stream.Request{{Filter: "t", QoS: 1}}})
			sinks = append(sinks, b.attach(s, &sink{every: n % 4, beats: time.Millisecond}))
		}
		want := "answer live "
		for n := range messages {
			b.publish("t", "1")
			want += fmt.Sprintf("%d ", b.seq())
			if rand.IntN(20) == 0 {
				time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
			}
			if n == messages/2 {
				for _, k := range sinks[:streams/4] {
					k.close()
				}
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for n, k := range sinks[streams/4:] {
			if got := k.read(); got != want {
				t.Errorf("stream %d: %d bytes, want %d; it ends %q", n, len(got), len(want), got[max(0, len(got)-30):])
			}
			if k.ticks < 1000 {
				t.Errorf("stream %d: %d ticks in a minute", n, k.ticks)
			}
			k.close()
		}
		if n := b.streams.Count(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

// seq is the number of the last message.
func (b *bench) seq() uint64 {
	position, err := b.hub.ParsePosition(b.hub.Cursor())
	if err != nil {
		b.t.Fatal(err)
	}
	return position.Seq()
}

// A line that is free again before the pump has noted that it was busy, and more
// than a pass takes.
func TestPumpComesBack(t *testing.T) {
	inBubbleWith(t, roomy, func(b *bench) {
		for what, k := range map[string]*sink{"hasty": {hasty: true}, "free": {}} {
			s := b.open(reader("#"))
			b.ask(s, stream.Subscription{Requests: []stream.Request{{Filter: "t", QoS: 1}}})
			b.attach(s, k)
			want := "answer live "
			for range 5000 {
				if k.hasty {
					time.Sleep(time.Second)
					synctest.Wait()
				}
				b.publish("t", "1")
				want += fmt.Sprintf("%d ", b.seq())
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if got := k.read(); got != want {
				t.Errorf("%s: %d bytes, want %d", what, len(got), len(want))
			}
			k.close()
		}
	})
}

// What waited before there was a connection comes when there is one; behind the end
// nothing does.
func TestAttachBringsWhatWaits(t *testing.T) {
	inBubbleWith(t, roomy, func(b *bench) {
		s := b.open(reader("#"))
		b.ask(s, stream.Subscription{Requests: []stream.Request{{Filter: "t", QoS: 1}}})
		time.Sleep(time.Second) // the pump has looked, and found no sink
		synctest.Wait()
		k := b.attach(s, &sink{})
		time.Sleep(time.Second)
		synctest.Wait()
		if got := k.read(); got != "answer live " {
			t.Errorf("got %q", got)
		}
		s.End(wire.CloseNormal, "enough")
		b.publish("t", "1")
		time.Sleep(time.Second)
		synctest.Wait()
		if got := k.read(); got != "answer live end " || k.end == nil || k.end.Code != wire.CloseNormal {
			t.Errorf("got %q and %v", got, k.end)
		}
		k.close()
	})
}

// A connection that breaks ends its own stream only.
func TestSinkThatFails(t *testing.T) {
	inBubbleWith(t, roomy, func(b *bench) {
		bad, good := b.open(reader("#")), b.open(reader("#"))
		for _, s := range []*stream.Stream{bad, good} {
			b.ask(s, stream.Subscription{Requests: []stream.Request{{Filter: "t", QoS: 1}}})
		}
		broken, whole := b.attach(bad, &sink{fails: 2}), b.attach(good, &sink{})
		for range 3 {
			time.Sleep(time.Second)
			b.publish("t", "1")
		}
		<-bad.Gone()
		time.Sleep(time.Second)
		synctest.Wait()
		if broken.offers != 2 {
			t.Errorf("%d offers to a connection that broke at the second", broken.offers)
		}
		if got, want := whole.read(), fmt.Sprintf("answer live %d %d %d ", b.seq()-2, b.seq()-1, b.seq()); got != want {
			t.Errorf("the other got %q, want %q", got, want)
		}
		broken.close()
		whole.close()
	})
}

// Signs of life come in time on thousands of streams, and those that have left ask
// for none.
func TestDutiesOfManyStreams(t *testing.T) {
	limits := stream.Limits{QueueMessages: 10, QueueBytes: 1000, Filters: 1, PerSubject: 9999, PerAddress: 9999, Total: 9999}
	inBubbleWith(t, limits, func(b *bench) {
		var sinks []*sink
		for range 3000 {
			sinks = append(sinks, b.attach(b.open(reader("#")), &sink{beats: 15 * time.Second}))
			time.Sleep(time.Millisecond)
		}
		for _, k := range sinks[:1000] {
			k.close()
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		for n, k := range sinks[1000:] {
			if k.ticks < 20 || k.ticks > 22 {
				t.Fatalf("stream %d: %d ticks in five minutes and three seconds", n, k.ticks)
			}
			k.close()
		}
	})
}

// A stream that closes while its filters are changed, as a PATCH does, is not left
// at the hub.
func TestCloseDuringSubscribe(t *testing.T) {
	inBubbleWith(t, roomy, func(b *bench) {
		s := b.open(reader("#"))
		reached, goOn := make(chan struct{}), make(chan struct{})
		b.broker.set(func() {
			b.broker.asked = func() {
				close(reached)
				<-goOn
			}
		})
		var changed sync.WaitGroup
		changed.Go(func() {
			q := stream.Subscription{Requests: []stream.Request{{Filter: "t", QoS: 1}}}
			if _, err := s.Subscribe(context.Background(), q, func(stream.Outcome) []*wire.Event { return nil }); err == nil {
				t.Error("subscribed on a closed stream")
			}
		})
		<-reached
		s.Close()
		close(goOn)
		changed.Wait()
		time.Sleep(6 * time.Minute) // longer than filters linger
		synctest.Wait()
		if len(b.broker.ended) != 1 {
			t.Errorf("the broker was asked to end %v", b.broker.ended)
		}
	})
}
