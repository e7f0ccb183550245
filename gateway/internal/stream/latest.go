package stream

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/mqtt"
)

// latest keeps the newest message of each topic that a client has not been given.
// Topics take turns in the order in which they became due, so none starves
// however busy others are; a topic with an interval is due again when the interval
// has passed since its last turn. The cost is bounded by the topics.
//
// It also knows floor: a position up to which everything has been given to the
// client or was replaced by something newer that waits. Topics come in another
// order than their messages did, so a message's own position would promise too
// much. Those that wait are counted in two generations; when none of the older
// one is left, the position at which the younger one began is reached.
type latest struct {
	maxTopics, maxBytes int

	slots   map[mqtt.Topic]*slot
	due     []*slot // dirty, in turn
	resting resting // had their turn less than their interval ago
	dirty   int     // slots with a message
	bytes   int

	floor, mark uint64 // reached; reached when older is 0
	generation  int
	older       int
}

type slot struct {
	frame      *hub.Frame // nil: nothing waits
	topic      mqtt.Topic
	interval   time.Duration
	until      time.Time // the end of its rest
	index      int       // in resting, or -1
	generation int       // in which it became dirty
}

// push makes f its topic's message. It reports how many messages were left out
// without a newer one, because there is no room for so many topics.
func (l *latest) push(f *hub.Frame, interval time.Duration, now time.Time) (dropped int) {
	s := l.slots[f.Topic]
	if s != nil && s.frame != nil {
		l.bytes += len(f.JSON) - len(s.frame.JSON)
		s.frame, s.interval = f, interval
		return l.shrink()
	}
	l.rest(now)
	if s = l.slots[f.Topic]; s == nil {
		s = &slot{topic: f.Topic, index: -1}
		if l.slots == nil {
			l.slots = map[mqtt.Topic]*slot{}
		}
		l.slots[f.Topic] = s
	}
	if l.dirty == 0 {
		l.floor, l.mark, l.older = f.Seq-1, f.Seq-1, 0
	} else if f.Seq <= l.mark { // a join, or the ring, held it back while newer ones came
		l.floor, l.mark = min(l.floor, f.Seq-1), min(l.mark, f.Seq-1)
	}
	s.frame, s.interval, s.generation = f, interval, l.generation
	l.dirty++
	l.bytes += len(f.JSON)
	if s.index < 0 {
		l.due = append(l.due, s)
	}
	return l.shrink()
}

// waits reports whether a message of t waits here, which a newer one must replace.
func (l *latest) waits(t mqtt.Topic) bool {
	s := l.slots[t]
	return s != nil && s.frame != nil
}

// shrink keeps the bounds: first a rest is cut short, then the topic whose turn is
// next loses its message.
func (l *latest) shrink() (dropped int) {
	for len(l.slots) > l.maxTopics || l.bytes > l.maxBytes && l.dirty > 1 {
		switch {
		case len(l.slots) > l.maxTopics && len(l.resting) > 0:
			l.wake()
		case len(l.due) > 0 && l.dirty > 1:
			l.clean(l.due[0])
			l.forget(l.due[0])
			l.due = l.due[1:]
			dropped++
		case len(l.resting) > 0:
			l.wake()
		default:
			return dropped
		}
	}
	return dropped
}

// ready reports whether a topic is due.
func (l *latest) ready(now time.Time) bool {
	l.rest(now)
	return len(l.due) > 0
}

// take gives the message of the topic whose turn it is; ready has said that there
// is one. last is the position of the newest message that the stream got.
func (l *latest) take(now time.Time, last uint64) *hub.Frame {
	s := l.due[0]
	l.due[0] = nil
	l.due = l.due[1:]
	f := s.frame
	l.clean(s)
	if l.older == 0 {
		l.floor, l.mark = l.mark, last
		l.generation++
		l.older = l.dirty
	}
	if s.interval > 0 {
		s.until = now.Add(s.interval)
		heap.Push(&l.resting, s)
	} else {
		l.forget(s)
	}
	if l.dirty == 0 {
		l.due = nil
	}
	return f
}

// release takes the messages of topics that may leave out, in the order in which
// they came.
func (l *latest) release(may func(mqtt.Topic) bool) (frames []*hub.Frame) {
	for t, s := range l.slots {
		if !may(t) {
			continue
		}
		if s.frame != nil {
			frames = append(frames, s.frame)
			l.clean(s)
		}
		if s.index >= 0 {
			heap.Remove(&l.resting, s.index)
		}
		l.forget(s)
	}
	l.due = slices.DeleteFunc(l.due, func(s *slot) bool { return s.frame == nil })
	slices.SortFunc(frames, func(a, b *hub.Frame) int { return cmp.Compare(a.Seq, b.Seq) })
	return frames
}

func (l *latest) clean(s *slot) {
	l.bytes -= len(s.frame.JSON)
	s.frame = nil
	l.dirty--
	if s.generation < l.generation {
		l.older--
	}
}

func (l *latest) forget(s *slot) {
	delete(l.slots, s.topic)
	if len(l.slots) == 0 {
		l.slots = nil
	}
}

// rest ends the rests that are over.
func (l *latest) rest(now time.Time) {
	for len(l.resting) > 0 && !l.resting[0].until.After(now) {
		l.wake()
	}
}

// wake ends the rest that is over first.
func (l *latest) wake() {
	s := heap.Pop(&l.resting).(*slot)
	if s.frame != nil {
		l.due = append(l.due, s)
	} else {
		l.forget(s)
	}
}

// retime gives the topics that rest the intervals that a change of modes wants.
func (l *latest) retime(interval func(mqtt.Topic) time.Duration, now time.Time) {
	for _, s := range l.resting {
		s.interval = interval(s.topic)
		if latest := now.Add(s.interval); s.until.After(latest) {
			s.until = latest
		}
	}
	heap.Init(&l.resting)
}

// next is when a topic with a message is due; zero when none rests.
func (l *latest) next() time.Time {
	if l.dirty == len(l.due) || len(l.resting) == 0 {
		return time.Time{}
	}
	return l.resting[0].until
}

// resting is a heap of slots by the end of their rest.
type resting []*slot

func (r resting) Len() int           { return len(r) }
func (r resting) Less(i, j int) bool { return r[i].until.Before(r[j].until) }
func (r resting) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	r[i].index, r[j].index = i, j
}

// Push implements heap.Interface.
func (r *resting) Push(x any) {
	s := x.(*slot)
	s.index = len(*r)
	*r = append(*r, s)
}

// Pop implements heap.Interface.
func (r *resting) Pop() any {
	old := *r
	s := old[len(old)-1]
	old[len(old)-1] = nil
	s.index = -1
	*r = old[:len(old)-1]
	return s
}
