package stream

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

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
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// freeSlot gives back the slot that j holds, if any. Needs s.mu.
func (s *Stream) freeSlot(j *join) {
	if j.slot {
		j.slot = false
		<-s.slots
	}
}

// aside keeps live messages during joins, bounded like the queue.
type aside struct {
	frames  []*hub.Frame
	bytes   int
	dropped int // the oldest, because the bound was hit
}

func (a *aside) push(f *hub.Frame, maxFrames, maxBytes int) {
	for len(a.frames) > 0 && (len(a.frames) >= maxFrames || a.bytes+len(f.JSON) > maxBytes) {
		a.bytes -= len(a.frames[0].JSON)
		a.frames[0] = nil
		a.frames = a.frames[1:]
		a.dropped++
	}
	a.frames = append(a.frames, f)
	a.bytes += len(f.JSON)
}

// joining reports whether a join still waits for messages of t. Needs s.mu.
func (s *Stream) joining(t mqtt.Topic) bool {
	for _, j := range s.joins {
		for _, f := range j.filters {
			if f.Matches(t) {
				return true
			}
		}
	}
	return false
}

// begin starts to keep messages for j aside. Needs s.mu.
func (s *Stream) begin(j *join) { s.joins = append(s.joins, j) }

// run takes j's snapshots in the background and completes it. Needs s.mu.
func (s *Stream) run(j *join) {
	ctx, cancel := context.WithCancel(s.ctx)
	j.cancel = cancel
	if ctx.Err() != nil {
		return
	}
	filters := slices.Clone(j.filters)
	s.wg.Go(func() {
		defer cancel()
		rounds := s.snapshots(ctx, filters)
		if ctx.Err() == nil { // otherwise the stream ended, or a reconnect starts the join again
			s.complete(j, filters, rounds)
		}
	})
}

// snapshots asks for all filters; a round that failed, or that would make the join
// too large, is nil.
func (s *Stream) snapshots(ctx context.Context, filters []mqtt.Filter) []*hub.Snapshot {
	rounds := make([]*hub.Snapshot, len(filters))
	var wg sync.WaitGroup
	var bytes atomic.Int64
	few := make(chan struct{}, maxAtOnce)
	for n, f := range filters {
		few <- struct{}{}
		wg.Go(func() {
			defer func() { <-few }()
			err := s.hub.Await(ctx, f)
			var round *hub.Snapshot
			if err == nil {
				round, err = s.hub.Snapshot(ctx, f)
			}
			if err != nil && ctx.Err() == nil {
				s.log.Debug("a snapshot was not to be had", "stream", s.id, "filter", f, "err", err)
			}
			if round != nil && bytes.Add(int64(round.Bytes)) <= maxJoinBytes {
				rounds[n] = round
			}
		})
	}
	wg.Wait()
	return rounds
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
		if s.effective[f] == 0 {
			rounds[n] = nil // unsubscribed meanwhile
			continue
		}
		complete = complete && rounds[n] != nil && rounds[n].Complete
	}
	frames := s.fresh(rounds)
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
	live := map[mqtt.Topic][]*hub.Frame{}
	for _, f := range s.aside.frames {
		live[f.Topic] = append(live[f.Topic], f)
	}
	if len(rounds) == 1 && rounds[0] != nil && len(live) == 0 {
		return rounds[0].Frames // the common case shares the round's slice
	}
	var frames []*hub.Frame
	seen := map[mqtt.Topic]struct{}{}
	for _, round := range rounds {
		if round == nil {
			continue
		}
		for _, f := range round.Frames {
			if _, has := seen[f.Topic]; has || isAmong(live[f.Topic], f.Payload, round.Mark) {
				continue
			}
			seen[f.Topic] = struct{}{}
			frames = append(frames, f)
		}
	}
	return frames
}

func isAmong(live []*hub.Frame, payload []byte, mark uint64) bool {
	for _, f := range live {
		if f.Seq <= mark && string(f.Payload) == string(payload) {
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
		s.metrics.dropped.Add(float64(s.aside.dropped))
	}
	kept := s.aside.frames
	s.aside = aside{}
	for _, f := range kept {
		if s.joining(f.Topic) {
			s.aside.push(f, s.limits.QueueMessages, s.limits.QueueBytes)
		} else {
			s.push(f)
		}
	}
	s.signal()
}
