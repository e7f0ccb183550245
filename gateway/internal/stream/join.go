package stream

import (
	"context"
	"errors"
	"slices"
	"sync"

	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// A join is the time between subscribing to filters and being live on them: live
// messages that match are kept aside until the snapshot is there (package hub,
// snapshot.go, steps 1, 5 and 6). A stream may have several joins at once; what
// is kept aside is kept for all of them, and a message leaves when the last join
// that it matches is complete, so its topic's order holds.
type join struct {
	filters   []mqtt.Filter // effective, narrowed
	requested []string      // as the client wrote them; nil on HTTP streams
	announced bool          // the client knows that the filters were granted
	cancel    context.CancelFunc
	slot      bool // holds one of the stream's slots
	narrowed  bool // by a refresh: filters may have become smaller ones meanwhile
	// except, where it is not nil, names topics that the client has anyway.
	except func(mqtt.Topic) bool
}

// maxJoins is how many joins a client may have at once, until it has read what
// they brought: a snapshot is much more than the request for it. Subscribe waits
// for a slot.
const maxJoins = 2

// maxJoinBytes bounds what the snapshots of one join hold together, before topics
// that several have are counted once; beyond it live says that they are incomplete.
const maxJoinBytes = 64 << 20

// maxAtOnce is how many snapshots one join asks for at a time.
const maxAtOnce = 64

// takeSlot waits until the client may begin another join.
func (s *Stream) takeSlot(ctx context.Context) error {
	for {
		s.mu.Lock()
		if s.gone {
			s.mu.Unlock()
			return errClosed
		}
		if s.unread < maxJoins {
			s.unread++
			s.mu.Unlock()
			return nil
		}
		if s.slotFree == nil {
			s.slotFree = make(chan struct{})
		}
		free := s.slotFree
		s.mu.Unlock()
		select {
		case <-free: // or the stream is gone
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var errClosed = errors.New("the stream is closed")

// freeSlot gives back the slot that j holds, if any. Needs s.mu.
func (s *Stream) freeSlot(j *join) {
	if j.slot {
		j.slot = false
		s.unread--
		s.wakeWaiting()
	}
}

// wakeWaiting lets those who wait for a slot look again. Needs s.mu.
func (s *Stream) wakeWaiting() {
	if s.slotFree != nil {
		close(s.slotFree)
		s.slotFree = nil
	}
}

// aside keeps live messages during joins, bounded like the queue.
type aside struct {
	frames  []*hub.Frame
	bytes   int
	dropped int // the oldest, because the bound was hit
}

// keepAside keeps f until the joins that it matches are complete. Needs s.mu.
func (s *Stream) keepAside(f *hub.Frame) {
	a := &s.aside
	if a.full(f, &s.queue) {
		a.conflate(func(t mqtt.Topic) bool { return s.modeOf(t).conflates() })
	}
	for a.full(f, &s.queue) {
		if s.modeOf(a.frames[0].Topic).OnSlow == OnSlowClose {
			s.tooSlow()
			return
		}
		a.bytes -= len(a.frames[0].JSON)
		a.frames[0] = nil
		a.frames = a.frames[1:]
		a.dropped++
	}
	a.frames = append(a.frames, f)
	a.bytes += len(f.JSON)
}

func (a *aside) full(f *hub.Frame, bounds *queue) bool {
	return len(a.frames) > 0 && (len(a.frames) >= bounds.maxFrames || a.bytes+len(f.JSON) > bounds.maxBytes)
}

// conflate keeps the newest message of each topic that may.
func (a *aside) conflate(may func(mqtt.Topic) bool) {
	newer := map[mqtt.Topic]struct{}{}
	kept := len(a.frames)
	for i := len(a.frames) - 1; i >= 0; i-- {
		f := a.frames[i]
		if _, has := newer[f.Topic]; has && may(f.Topic) {
			a.bytes -= len(f.JSON)
			continue
		}
		newer[f.Topic] = struct{}{}
		kept--
		a.frames[kept] = f
	}
	clear(a.frames[:kept])
	a.frames = a.frames[kept:]
}

// joining reports whether a join still waits for messages of t. Needs s.mu.
func (s *Stream) joining(t mqtt.Topic) bool {
	for _, j := range s.joins {
		for _, f := range j.filters {
			if f.Matches(t) && (j.except == nil || !j.except(t)) {
				return true
			}
		}
	}
	return false
}

// begin starts to keep messages for j aside. Needs s.mu.
func (s *Stream) begin(j *join) { s.joins = append(s.joins, j) }

// run asks for j's snapshots; the last one that comes completes it. Needs s.mu.
func (s *Stream) run(j *join) {
	ctx, cancel := context.WithCancel(context.Background())
	j.cancel = cancel
	if s.closed {
		cancel()
		return
	}
	g := &gathering{stream: s, join: j, ctx: ctx, filters: slices.Clone(j.filters)}
	g.rounds, g.left = make([]*hub.Snapshot, len(g.filters)), len(g.filters)
	g.next = min(maxAtOnce, len(g.filters))
	if s.hub.Granted(g.filters) {
		g.begin()
		return
	}
	s.pending.Go(func() { // after a reconnect: first the subscriptions must be back
		for _, f := range g.filters {
			_ = s.hub.Await(ctx, f) // a refusal ends the stream (confirm), the rest is as good as it gets
		}
		g.begin()
	})
}

// gathering collects the snapshots of one join. It has no goroutine: the hub's
// carry it on.
type gathering struct {
	stream  *Stream
	join    *join
	ctx     context.Context // done when the stream ended, or a reconnect starts the join again
	filters []mqtt.Filter

	mu     sync.Mutex      // guards what follows
	rounds []*hub.Snapshot // nil: failed, or would make the join too large
	bytes  int
	next   int // the first filter that was not asked for
	left   int // those without an answer
}

func (g *gathering) begin() {
	for n := range min(maxAtOnce, len(g.filters)) {
		g.ask(n)
	}
}

// ask is refused only when the hub is at its end, and the streams with it: then
// the join stays as it is.
func (g *gathering) ask(n int) {
	_ = g.stream.hub.SnapshotAsync(g.ctx, g.filters[n], func(round *hub.Snapshot, err error) { g.answer(n, round, err) })
}

func (g *gathering) answer(n int, round *hub.Snapshot, err error) {
	if err != nil && g.ctx.Err() == nil {
		g.stream.registry.log.Debug("a snapshot was not to be had", "stream", g.stream.id, "filter", g.filters[n], "err", err)
	}
	g.mu.Lock()
	if round != nil && g.bytes+round.Bytes <= maxJoinBytes {
		g.rounds[n] = round
		g.bytes += round.Bytes
	}
	g.left--
	done, ask := g.left == 0, -1
	if g.next < len(g.filters) {
		ask = g.next
		g.next++
	}
	g.mu.Unlock()
	switch {
	case ask >= 0:
		g.ask(ask)
	case done:
		defer g.join.cancel()
		if g.ctx.Err() == nil {
			g.stream.complete(g.join, g.filters, g.rounds)
		}
	}
}

// complete sends j's snapshot, then live, then what was kept aside, in one step.
func (s *Stream) complete(j *join, filters []mqtt.Filter, rounds []*hub.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.removeJoin(j) || s.ended {
		return
	}
	complete := true
	for n, f := range filters {
		if !s.effective.has(f) && !j.narrowed {
			rounds[n] = nil // unsubscribed meanwhile
			continue
		}
		complete = complete && rounds[n] != nil && rounds[n].Complete
	}
	frames := s.permitted(s.wanted(j, s.fresh(rounds)))
	s.queue.pushBatch(frames)
	s.pushEventThen(wire.NewEvent("live", wire.Live{Filters: j.requested, Snapshot: len(frames), Complete: complete}),
		func() { s.freeSlot(j) })
	s.release()
}

func (s *Stream) removeJoin(j *join) bool {
	i := slices.Index(s.joins, j)
	if i >= 0 {
		s.joins = slices.Delete(s.joins, i, i+1)
	}
	return i >= 0
}

// fresh merges rounds, each topic once, without the retained messages that stand
// among those kept aside (step 5). Needs s.mu.
func (s *Stream) fresh(rounds []*hub.Snapshot) []*hub.Frame {
	if len(rounds) == 1 && rounds[0] != nil && len(s.aside.frames) == 0 {
		return rounds[0].Frames // the common case shares the round's slice
	}
	live := map[mqtt.Topic][]*hub.Frame{}
	for _, f := range s.aside.frames {
		live[f.Topic] = append(live[f.Topic], f)
	}
	var frames []*hub.Frame
	seen := map[mqtt.Topic]struct{}{}
	for _, round := range rounds {
		if round == nil {
			continue
		}
		for _, f := range round.Frames {
			if _, has := seen[f.Topic]; has || isAmong(live[f.Topic], f, round.Mark) {
				continue
			}
			seen[f.Topic] = struct{}{}
			frames = append(frames, f)
		}
	}
	return frames
}

func isAmong(live []*hub.Frame, retained *hub.Frame, mark uint64) bool {
	for _, f := range live {
		if f.Seq <= mark && f.SamePayload(retained) {
			return true
		}
	}
	return false
}

// release queues what no join waits for any more. Needs s.mu.
func (s *Stream) release() {
	if s.ended {
		return
	}
	if s.aside.dropped > 0 {
		missed := s.aside.dropped
		s.gap(&missed, wire.GapSlow)
		s.count(s.aside.dropped)
	}
	kept := s.aside.frames
	s.aside = aside{}
	for _, f := range kept {
		if s.joining(f.Topic) {
			s.keepAside(f)
		} else {
			s.push(f)
		}
	}
	s.signal()
}
