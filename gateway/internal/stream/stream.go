// Package stream is what one client is owed: its filters, narrowed by its grants;
// a bounded queue; the snapshot on joining; gaps told; the end at expiry. The doors
// (SSE, NDJSON, WebSocket) only turn it into bytes, so nothing of this is written
// twice.
package stream

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// Limits bound each stream and all of them; New wants every one to be positive.
type Limits struct {
	QueueMessages, QueueBytes int // live messages waiting for one client
	Filters                   int // requested by one stream at a time
	PerSubject, PerAddress    int // streams
	Total                     int
}

// maxEvents bounds the answers and events that wait for a client which does not
// read; it is ended as a slow consumer beyond that.
const maxEvents = 1000

// expiryWarning is how long before its token's end a stream is told.
const expiryWarning = 60 * time.Second

// maxReconnectDelay spreads the clients of a stopping gateway.
const maxReconnectDelay = 5 * time.Second

// Stream is one client's live subscription. Its methods are safe for concurrent
// use; Take has one caller, the door.
type Stream struct {
	id       string
	address  string
	hub      *hub.Hub
	registry *Registry
	limits   Limits
	log      *slog.Logger
	metrics  *metrics
	wake     chan struct{}
	slots    chan struct{}   // one for each join of the client's that is not done
	expired  atomic.Bool     // past the token's end
	ctx      context.Context // done when the stream is closed
	cancel   context.CancelFunc
	wg       sync.WaitGroup // goroutines of joins

	mu         sync.Mutex // guards what follows; Hub's lock may be taken under it, never the other way round
	principal  auth.Principal
	queue      queue
	last       uint64 // Seq of the last live message
	subs       map[mqtt.Filter]*subscription
	effective  map[mqtt.Filter]int // narrowed filters, by how many subscriptions need them
	confirming context.CancelFunc  // of confirm after the last reconnect
	joins      []*join
	aside      aside
	ended      bool        // an end event is queued: nothing more is
	expiry     *time.Timer // to the token's end; nil without one
	warning    *time.Timer // to the warning before it
	warned     bool
}

// ID is the stream's name, unguessable and unique.
func (s *Stream) ID() string { return s.id }

// Principal is who reads the stream.
func (s *Stream) Principal() auth.Principal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.principal
}

// Deliver implements hub.Subscriber.
func (s *Stream) Deliver(f *hub.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || f.Seq <= s.last { // once, however many filters match
		return
	}
	s.last = f.Seq
	if len(s.joins) > 0 && s.joining(f.Topic) {
		s.aside.push(f, s.limits.QueueMessages, s.limits.QueueBytes)
		return
	}
	s.push(f)
	s.signal()
}

// push needs s.mu.
func (s *Stream) push(f *hub.Frame) {
	if dropped := s.queue.pushFrame(f); dropped > 0 {
		s.metrics.dropped.Add(float64(dropped))
	}
}

// Upstream implements hub.Subscriber. After a reconnect nobody knows what was
// published meanwhile, so the stream tells a gap and takes a fresh snapshot.
func (s *Stream) Upstream(up bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	if up {
		s.abortJoins()
	}
	s.pushEvent(wire.NewEvent("upstream", wire.Upstream{Connected: up}))
	if up {
		s.gap(nil, wire.GapUpstream)
		s.resync()
	}
}

// abortJoins stops the joins whose work resync does again, and queues what they
// kept aside. Needs s.mu.
func (s *Stream) abortJoins() {
	var waiting []*join
	for _, j := range s.joins {
		if j.announced {
			j.cancel()
			s.freeSlot(j)
		} else {
			waiting = append(waiting, j) // Subscribe goes on with it
		}
	}
	s.joins = waiting
	s.release()
}

// resync starts one join for all filters whose snapshot the client wants. Needs
// s.mu.
func (s *Stream) resync() {
	again := &join{announced: true}
	var granted []mqtt.Filter
	for _, sub := range s.subs {
		if !sub.announced {
			continue
		}
		granted = union(granted, sub.granted)
		if !sub.snapshot {
			continue
		}
		again.filters = union(again.filters, sub.granted)
		if sub.named {
			again.requested = append(again.requested, string(sub.filter))
		}
	}
	if s.confirming != nil {
		s.confirming()
	}
	var ctx context.Context
	ctx, s.confirming = context.WithCancel(s.ctx)
	s.wg.Go(func() { s.confirm(ctx, granted) })
	if len(again.filters) > 0 {
		s.begin(again)
		s.run(again)
	}
}

// confirm ends the stream if the broker no longer grants one of its filters
// after a reconnect: to go on with less than was granted would be silent loss.
func (s *Stream) confirm(ctx context.Context, filters []mqtt.Filter) {
	for _, f := range filters {
		if err := s.hub.Await(ctx, f); fault.Is(err, fault.NotAuthorized) && s.holds(f) {
			s.End(wire.CloseFrom(err), "the broker no longer grants "+string(f))
			return
		}
	}
}

func (s *Stream) holds(f mqtt.Filter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.effective[f] > 0
}

// Send queues an answer or event for the client.
func (s *Stream) Send(e *wire.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pushEvent(e)
}

// pushEvent needs s.mu.
func (s *Stream) pushEvent(e *wire.Event) { s.pushEventThen(e, nil) }

// pushEventThen calls taken, under s.mu, when the event is taken. Needs s.mu.
func (s *Stream) pushEventThen(e *wire.Event, taken func()) {
	if s.ended {
		return
	}
	if s.queue.events() >= maxEvents {
		s.end(wire.CloseSlowConsumer, "too many answers wait for a client that does not read")
		return
	}
	s.queue.pushEvent(e, taken)
	s.greeted()
	s.signal()
}

func (s *Stream) gap(missed *int, reason string) {
	s.pushEvent(wire.NewEvent("gap", wire.Gap{Missed: missed, Reason: reason}))
}

func (s *Stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Wake is signalled when there may be something to take.
func (s *Stream) Wake() <-chan struct{} { return s.wake }

// Take appends up to max waiting items to into, in the order in which the client
// must see them. When fewer than max come, wait for Wake.
func (s *Stream) Take(into []Item, max int) []Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.take(into, max)
}

// End queues the last event, behind what waits already; nothing is delivered
// after it.
func (s *Stream) End(code wire.CloseCode, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(code, reason)
}

// end needs s.mu.
func (s *Stream) end(code wire.CloseCode, reason string) {
	if s.ended {
		return
	}
	e := wire.End{Code: code, Reason: reason, Reconnect: code.Reconnect()}
	if e.Reconnect {
		e.AfterMS = rand.Int64N(maxReconnectDelay.Milliseconds()) //nolint:gosec // not a secret: it only spreads load
	}
	s.queue.pushEvent(wire.NewEvent(EndEvent, e), nil)
	s.ended = true
	s.signal()
}

// Expired reports whether the token's time is over. A door that is still busy with
// what it took before must stop: nothing is delivered any more but the end.
func (s *Stream) Expired() bool { return s.expired.Load() }

// EndEvent is the name of the event after which a door closes.
const EndEvent = "end"

// Close frees the stream. The door calls it once, when it is done.
func (s *Stream) Close() {
	s.cancel()
	s.hub.Leave(s)
	s.mu.Lock()
	s.ended = true
	for _, timer := range []*time.Timer{s.expiry, s.warning} {
		if timer != nil {
			timer.Stop()
		}
	}
	s.queue.clear()
	s.mu.Unlock()
	s.wg.Wait()
	s.registry.remove(s)
}
