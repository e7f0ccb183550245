package hub

import (
	"context"
	"slices"
	"sync"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// A stream that joins gets each matching retained message once, then the live
// messages, and nothing is lost or doubled between the two. MQTT 3.1.1 does not
// offer that on a shared connection: a live message on an existing subscription
// always has retain 0, a second SUBSCRIBE makes the broker send the retained set
// again in the midst of the live messages, and nothing marks its end. So the
// retained set is read on a second connection Q while the live connection S goes
// on undisturbed:
//
//  1. The stream is attached to the fan-out as pending: live messages that match
//     are kept aside for it. S holds a subscription to the filter (SUBACK seen).
//  2. Wait SettleBefore, and for the round's turn. All who ask for the same filter
//     at least SettleBefore before step 3 share the round.
//  3. On Q: SUBSCRIBE the filter at QoS 0, publish a barrier to Q's own topic,
//     collect what comes with retain 1 until the barrier is back, UNSUBSCRIBE.
//  4. Wait SettleAfter, then send a barrier through S and wait until it is back:
//     Mark is the last live message before it.
//  5. The stream drops a retained message if a live message up to Mark, kept aside
//     for it, has the same topic and payload.
//  6. It sends what remains, then the messages kept aside, and is live.
//
// Why it is right. Let v be the retained value of a topic when the broker handled
// Q's SUBSCRIBE. Either v was published after S's subscription existed: then the
// broker queued v for S before the barrier of step 4, v is among the messages
// kept aside, and step 5 drops the retained copy: no double, no step back. Or v
// was published before: then it is not among them, all of those are newer, and
// sending v first is the right order. Every later value is kept aside or still to
// come: no gap. If v only happens to equal a later payload, the stream gets that
// payload once, as live. Events that are not retained, on a topic that has a
// retained value too, are never dropped, because only retained copies are.
// If the value is cleared meanwhile, the clear arrives live, as an empty payload,
// behind v or without it: nothing comes back to life.
//
// The settle times are for brokers that are not one queue: SettleBefore for those
// that store retained values behind the delivery, SettleAfter for those that serve
// each publisher in a thread of its own. The barrier on S is QoS 1 because a QoS 0
// one may overtake QoS 1 messages, the one on Q QoS 0 because all there is.
//
// Limits. A broker that sends retained messages later than a barrier that follows
// the SUBSCRIBE can cut a snapshot short without notice. A snapshot beyond the
// bounds of messages or bytes is told as incomplete. If S reconnects during a
// join, the stream starts it again (package stream).

// maxRounds is how many snapshots are taken at once; more wait.
const maxRounds = 32

// roundPause is the least time between the beginnings of two rounds for one
// filter, so that many who come one after the other cost the broker a few.
const roundPause = 100 * time.Millisecond

// Snapshot is the retained state of one filter, shared by all who asked for it in
// the same round.
type Snapshot struct {
	Frames   []*Frame
	Complete bool
	Mark     uint64 // Seq of the last live message before the barrier
	Bytes    int    // of the frames' encodings
}

type snapshots struct {
	ctx   context.Context // of Run; nil before it
	slots chan struct{}

	mu     sync.Mutex // guards what follows; never held together with Hub.mu
	wg     sync.WaitGroup
	closed bool
	rounds map[mqtt.Filter]*round // filters whose rounds have a goroutine
}

// round is the next round of one filter.
type round struct {
	waiting []waiter // in order of coming
}

type waiter struct {
	ctx  context.Context
	came time.Time
	done func(*Snapshot, error)
}

// beginner is a Retainer that says when it asks the broker: until then more may join.
type beginner interface {
	// RetainedFrom is Retained, and calls begin with the time at which the broker
	// was asked, before it returns and on the same goroutine.
	RetainedFrom(ctx context.Context, filter mqtt.Filter, begin func(time.Time)) (messages []mqtt.Message, complete bool, err error)
}

func (s *snapshots) start(ctx context.Context) {
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
}

func (s *snapshots) stop() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wg.Wait()
}

// Snapshot reads the retained messages for filter. The caller must have been
// subscribed to filter, with the broker's grant, before the call.
func (h *Hub) Snapshot(ctx context.Context, filter mqtt.Filter) (*Snapshot, error) {
	type result struct {
		snapshot *Snapshot
		err      error
	}
	results := make(chan result, 1)
	if err := h.SnapshotAsync(ctx, filter, func(s *Snapshot, err error) { results <- result{s, err} }); err != nil {
		return nil, err
	}
	select {
	case r := <-results:
		return r.snapshot, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// SnapshotAsync is Snapshot for who does not want to wait: if it returns nil, done
// is called exactly once, on a goroutine that many share, so it must not block. A
// ctx that ends is noticed when the round begins or ends, not at once.
func (h *Hub) SnapshotAsync(ctx context.Context, filter mqtt.Filter, done func(*Snapshot, error)) error {
	s := &h.snapshots
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.ctx == nil {
		return fault.New(fault.Draining, "the gateway is not running")
	}
	r := s.rounds[filter]
	if r == nil {
		r = &round{}
		s.rounds[filter] = r
		s.wg.Go(func() { h.takeRounds(s.ctx, filter, r) })
	}
	r.waiting = append(r.waiting, waiter{ctx, time.Now(), done})
	return nil
}

// takeRounds takes one round after the other until nobody waits for the next.
func (h *Hub) takeRounds(ctx context.Context, filter mqtt.Filter, r *round) {
	for {
		begun := h.takeRound(ctx, filter, r)
		_ = pause(ctx, time.Until(begun.Add(roundPause))) // when ctx is done, the next round ends at once
		h.snapshots.mu.Lock()
		if len(r.waiting) == 0 {
			delete(h.snapshots.rounds, filter)
			h.snapshots.mu.Unlock()
			return
		}
		h.snapshots.mu.Unlock()
	}
}

// takeRound does one round and tells its waiters how it ended.
func (h *Hub) takeRound(ctx context.Context, filter mqtt.Filter, r *round) (begun time.Time) {
	err := pause(ctx, h.options.SettleBefore)
	if err == nil {
		select {
		case h.snapshots.slots <- struct{}{}:
			defer func() { <-h.snapshots.slots }()
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	var mine []waiter
	begin := func(at time.Time) {
		if begun.IsZero() {
			begun = at
			mine = h.snapshots.settled(r, begun.Add(-h.options.SettleBefore))
		}
	}
	if err != nil {
		begun = time.Now()
		mine = h.snapshots.settled(r, begun) // all: the hub is at its end
	}
	var snapshot *Snapshot
	if err == nil && h.snapshots.wanted(r) {
		snapshot, err = h.take(ctx, filter, begin)
	}
	begin(time.Now())
	for _, w := range mine {
		if gone := w.ctx.Err(); gone != nil {
			w.done(nil, gone)
		} else {
			w.done(snapshot, err)
		}
	}
	return begun
}

// settled takes those out of r who came until then.
func (s *snapshots) settled(r *round, then time.Time) (mine []waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(r.waiting) && !r.waiting[n].came.After(then) {
		n++
	}
	mine, r.waiting = r.waiting[:n:n], slices.Clone(r.waiting[n:])
	return mine
}

// wanted reports whether somebody still waits for r.
func (s *snapshots) wanted(r *round) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(r.waiting, func(w waiter) bool { return w.ctx.Err() == nil })
}

// take does steps 3 and 4.
func (h *Hub) take(ctx context.Context, filter mqtt.Filter, begin func(time.Time)) (*Snapshot, error) {
	h.metrics.snapshots.Inc()
	ctx, cancel := context.WithTimeout(ctx, 2*h.options.Timeout)
	defer cancel()
	messages, complete, err := h.retained(ctx, filter, begin)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, h.options.SettleAfter); err != nil {
		return nil, err
	}
	snapshot := &Snapshot{Frames: make([]*Frame, len(messages)), Complete: complete}
	if err := h.source.Barrier(ctx, func() { snapshot.Mark = h.seq.Load() }); err != nil {
		return nil, err
	}
	for i, m := range messages {
		snapshot.Frames[i] = NewFrame(m, "", 0)
		snapshot.Bytes += len(snapshot.Frames[i].JSON)
	}
	return snapshot, nil
}

func (h *Hub) retained(ctx context.Context, filter mqtt.Filter, begin func(time.Time)) (messages []mqtt.Message, complete bool, err error) {
	if b, is := h.retainer.(beginner); is {
		return b.RetainedFrom(ctx, filter, begin)
	}
	begin(time.Now())
	return h.retainer.Retained(ctx, filter)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
