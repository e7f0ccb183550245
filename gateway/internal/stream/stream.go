// Package stream is what one client is owed: its filters, narrowed by its grants;
// a bounded queue; the snapshot on joining; gaps told; the end at expiry. The doors
// (SSE, NDJSON, WebSocket) only turn it into bytes, so nothing of this is written
// twice.
package stream

import (
	"context"
	"math"
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

// maxReconnectDelay spreads the clients of a stopping gateway.
const maxReconnectDelay = 5 * time.Second

// Stream is one client's live subscription. Its methods are safe for concurrent
// use. What it owes goes to the sink that Attach gives it; without one, Take.
//
// The fields that each delivery needs lie together: a message to a thousand streams
// costs little more than fetching them from memory.
type Stream struct {
	shard    *shard
	format   atomic.Pointer[Format]
	expired  atomic.Bool // past the token's end
	serving  sync.Mutex  // held while the sink is used; guards the next two
	finished bool        // the sink gets nothing more
	sink     Sink

	mu      sync.Mutex // guards what follows up to subscribing; Hub's and shard's locks may be taken under it, never the other way round
	marked  bool       // among the shard's ready ones
	ended   bool       // an end event is queued: nothing more is
	gone    bool       // nothing can be written any more
	closed  bool
	uniform bool   // mode is that of all subs
	last    uint64 // Seq of the last live message
	mode    Mode
	joins   []*join
	queue   queue
	wake    chan struct{}
	endsAt  time.Time // the token's end; zero: none
	aside   aside

	fence     uint64 // up to this message each is held against the grants; 0: none
	principal auth.Principal
	known     bool          // Authenticate was called
	rights    uint64        // how often the principal has been replaced
	lifted    []mqtt.Filter // rules that denied something until a refresh that is under way

	subs       []*subscription
	effective  counts        // narrowed filters
	unread     int           // joins of the client's that it has not read to the end
	slotFree   chan struct{} // made by who waits for a slot
	confirming context.CancelFunc
	end        wire.End
	warnAt     time.Time     // when the token's end is announced; zero: never, or done
	over       chan struct{} // closed when gone; made by who needs it

	subscribing sync.Mutex     // held through Subscribe
	pending     sync.WaitGroup // goroutines of confirm

	// The shard's, guarded by shard.mu:
	duty   int // index among its duties, or -1
	dutyAt time.Time

	id       string
	address  string
	hub      *hub.Hub
	registry *Registry
}

// ID is the stream's name, unguessable and unique.
func (s *Stream) ID() string { return s.id }

// Principal is who reads the stream.
func (s *Stream) Principal() auth.Principal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.principal
}

// Attach gives s the connection that it writes to from now on, in format.
func (s *Stream) Attach(sink Sink, format *Format) {
	s.format.Store(format)
	s.serving.Lock()
	s.sink = sink
	next := sink.Tick(time.Now())
	s.serving.Unlock()
	s.shard.schedule(s, next)
	s.Freed()
}

// SetFormat changes the format, from the next write on.
func (s *Stream) SetFormat(format *Format) { s.format.Store(format) }

// Freed is called by a sink that takes bytes again.
func (s *Stream) Freed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signal()
}

// Deliver implements hub.Subscriber.
func (s *Stream) Deliver(f *hub.Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || f.Seq <= s.last { // once, however many filters match
		return
	}
	s.last = f.Seq
	if s.forbids(f.Topic, f.Seq) {
		return
	}
	if len(s.joins) > 0 && s.joining(f.Topic) {
		s.keepAside(f)
		return
	}
	s.push(f)
	s.signal()
}

// push queues a live message as its topic's mode says. Needs s.mu.
func (s *Stream) push(f *hub.Frame) {
	if s.ended {
		return
	}
	mode := s.mode
	if !s.uniform {
		mode = s.modeOf(f.Topic)
	}
	q := &s.queue
	switch {
	case mode.Latest:
		dropped := q.pushLatest(f, mode.Interval, time.Now())
		if s.count(dropped); dropped > 0 && mode.OnSlow == OnSlowClose {
			s.tooSlow()
		}
	case mode.OnSlow == OnSlowLatest && q.newest != nil && q.newest.waits(f.Topic):
		s.count(q.pushLatest(f, 0, time.Now()))
	default:
		for !s.ended && q.full(f) {
			s.makeRoom()
		}
		if !s.ended {
			q.pushFrame(f)
		}
	}
}

// makeRoom lets the oldest waiting message go, as its own topic's mode says. Needs
// s.mu.
func (s *Stream) makeRoom() {
	switch oldest := s.queue.oldest(); s.modeOf(oldest.Topic).OnSlow {
	case OnSlowClose:
		s.tooSlow()
	case OnSlowLatest:
		s.count(s.queue.conflate(func(f *hub.Frame) bool { return s.modeOf(f.Topic).conflates() }, time.Now()))
	default:
		s.queue.dropOldest()
		s.count(1)
	}
}

// tooSlow ends a stream that would rather end than miss something. Needs s.mu.
func (s *Stream) tooSlow() {
	s.queue.clear()
	s.endWith(wire.CloseSlowConsumer, "the client reads too slowly")
}

func (s *Stream) count(dropped int) {
	if dropped > 0 {
		s.registry.metrics.dropped.Add(float64(dropped))
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
	ctx, s.confirming = context.WithCancel(context.Background())
	s.pending.Go(func() { s.confirm(ctx, granted) })
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
	return s.effective.has(f)
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
		s.endWith(wire.CloseSlowConsumer, "too many answers wait for a client that does not read")
		return
	}
	s.queue.pushEvent(e, taken)
	s.greeted()
	s.signal()
}

func (s *Stream) gap(missed *int, reason string) {
	s.pushEvent(wire.NewEvent("gap", wire.Gap{Missed: missed, Reason: reason}))
}

// signal tells that there may be something to take. Needs s.mu.
func (s *Stream) signal() {
	if !s.marked && !s.closed {
		s.marked = true
		s.shard.add(s)
	}
	if s.wake != nil {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (s *Stream) unmark() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marked = false
}

// Wake is signalled when there may be something to take, for who reads a stream
// without a sink.
func (s *Stream) Wake() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wake == nil {
		s.wake = make(chan struct{}, 1)
		s.wake <- struct{}{}
	}
	return s.wake
}

// Take appends up to max waiting items to into, in the order in which the client
// must see them. When fewer than max come, wait for Wake.
func (s *Stream) Take(into []Item, max int) []Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.take(into, budget{items: max, bytes: math.MaxInt}, time.Now())
}

// takeMarked takes a write's worth of items for the pump. end is set when the last
// event is among them.
func (s *Stream) takeMarked(into []Item, now time.Time) (items []Item, end *wire.End) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marked = false
	if !s.endsAt.IsZero() && !s.ended && !now.Before(s.endsAt) {
		s.expire()
	}
	items = s.take(into, batch, now)
	if len(items) > 0 && s.ended {
		if last := items[len(items)-1].Event; last != nil && last.Name == EndEvent {
			told := s.end // a later reason may take the field
			end = &told
		}
	}
	return items, end
}

// take needs s.mu.
func (s *Stream) take(into []Item, b budget, now time.Time) []Item {
	into = s.queue.take(into, b, now, s.last, s.hold())
	if next := s.queue.next(); !next.IsZero() {
		s.shard.schedule(s, next)
	}
	return into
}

// hold is a position that no cursor may pass, because older messages are kept
// aside; 0 if there are none. Needs s.mu.
func (s *Stream) hold() uint64 {
	if len(s.aside.frames) == 0 {
		return 0
	}
	return s.aside.frames[0].Seq - 1
}

// tick does what is due at now and returns when the next duty is; zero: none.
func (s *Stream) tick(now time.Time) time.Time {
	s.serving.Lock()
	var next time.Time
	if s.sink != nil && !s.finished {
		next = s.sink.Tick(now)
	}
	s.serving.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return time.Time{}
	}
	if !s.warnAt.IsZero() && !now.Before(s.warnAt) {
		s.warn(now)
	}
	if !s.endsAt.IsZero() && !now.Before(s.endsAt) {
		s.expire()
	}
	if s.queue.waiting(now) {
		s.signal()
	}
	return soonest(next, s.warnAt, s.endsAt, s.queue.next())
}

// soonest is the first of the times that are not zero.
func soonest(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
