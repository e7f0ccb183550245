package stream

import (
	"slices"

	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/mqtt"
)

// A subscription is granted as a whole, but for two cases in which each message is
// looked at: a rule denies something inside a granted wildcard, and the grants have
// just changed (refresh.go). What a client may not see leaves no trace: no gap is
// told, and it counts in no snapshot.

// forbids reports whether the client may not see a message of t that has the number
// seq; 0 for what has none. Without deny rules and changes it costs two
// comparisons. Needs s.mu.
func (s *Stream) forbids(t mqtt.Topic, seq uint64) bool {
	grants := &s.principal.Grants
	if len(grants.Deny) > 0 && grants.Denied(t) {
		return true
	}
	return s.fence > 0 && seq <= s.fence &&
		!slices.ContainsFunc(grants.Sub, func(grant mqtt.Filter) bool { return grant.Matches(t) })
}

// permitted leaves out of a snapshot or a replay what the client may not see. The
// slice may be shared, so it is not changed. Needs s.mu.
func (s *Stream) permitted(frames []*hub.Frame) []*hub.Frame {
	if len(s.principal.Grants.Deny) == 0 && s.fence == 0 {
		return frames
	}
	return slices.DeleteFunc(slices.Clone(frames), func(f *hub.Frame) bool { return s.forbids(f.Topic, f.Seq) })
}

// purge takes out of all that waits what the client may not see any more. Needs
// s.mu.
func (s *Stream) purge() {
	s.queue.remove(func(f *hub.Frame) bool { return s.forbids(f.Topic, f.Seq) })
	if s.queue.newest != nil {
		s.queue.newest.release(func(t mqtt.Topic) bool { return s.forbids(t, 0) })
	}
	a := &s.aside
	a.frames = slices.DeleteFunc(a.frames, func(f *hub.Frame) bool {
		out := s.forbids(f.Topic, f.Seq)
		if out {
			a.bytes -= len(f.JSON)
		}
		return out
	})
}

// remove takes out of the live messages, the snapshots and the replays that wait
// those that out names, without a trace.
func (q *queue) remove(out func(*hub.Frame) bool) {
	q.sift(out)
	q.controls = slices.DeleteFunc(q.controls, func(c control) bool {
		return c.batch != nil && !slices.ContainsFunc(c.batch, func(f *hub.Frame) bool { return !out(f) })
	})
	q.batches = 0
	for i := range q.controls {
		c := &q.controls[i]
		if c.batch == nil {
			continue
		}
		c.batch = slices.DeleteFunc(slices.Clone(c.batch), out) // many streams share one
		q.batches++
	}
}
