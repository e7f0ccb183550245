package stream

import (
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/wire"
)

// Item is one thing that a client is owed: a message or a control event.
type Item struct {
	Frame *hub.Frame  // a message, or
	Event *wire.Event // an event
}

// queue holds what a client has not been given yet. Live messages are bounded in
// number and bytes; beyond that the oldest is dropped and a gap event stands where
// it was. Events and snapshots are not dropped: the stream bounds how many events
// there can be, and a snapshot's frames are shared by all streams of its round.
//
// Live messages lie in a ring and are numbered; head and tail are the numbers of
// the oldest and of the next. The rest is a short list, each with the number of
// the live message that it comes before.
type queue struct {
	maxFrames, maxBytes int

	ring       []*hub.Frame // length is zero or a power of two
	head, tail int
	bytes      int // of the frames in the ring
	controls   []control
}

type control struct {
	at    int // comes before the live message of this number
	event *wire.Event
	batch []*hub.Frame // of a snapshot
	gap   int          // > 0: a gap event for so many messages of a slow client
	taken func()       // called when the event is taken; may be nil
}

func (q *queue) pushEvent(e *wire.Event, taken func()) {
	q.controls = append(q.controls, control{at: q.tail, event: e, taken: taken})
}

func (q *queue) pushBatch(frames []*hub.Frame) {
	if len(frames) > 0 {
		q.controls = append(q.controls, control{at: q.tail, batch: frames})
	}
}

// pushFrame reports how many older messages had to go for f.
func (q *queue) pushFrame(f *hub.Frame) (dropped int) {
	for q.tail > q.head && (q.tail-q.head >= q.maxFrames || q.bytes+len(f.JSON) > q.maxBytes) {
		q.dropOldest()
		dropped++
	}
	if q.tail-q.head == len(q.ring) {
		q.grow()
	}
	q.ring[q.tail&q.mask()] = f
	q.tail++
	q.bytes += len(f.JSON)
	return dropped
}

func (q *queue) mask() int { return len(q.ring) - 1 }

func (q *queue) grow() {
	ring := make([]*hub.Frame, max(8, 2*len(q.ring)))
	for n := q.head; n < q.tail; n++ {
		ring[n&(len(ring)-1)] = q.ring[n&q.mask()]
	}
	q.ring = ring
}

func (q *queue) takeOldest() *hub.Frame {
	slot := &q.ring[q.head&q.mask()]
	f := *slot
	*slot = nil
	q.head++
	q.bytes -= len(f.JSON)
	return f
}

// dropOldest leaves a gap where the oldest live message was, behind the controls
// that came before it and before those that came after.
func (q *queue) dropOldest() {
	at := 0
	for at < len(q.controls) && q.controls[at].at <= q.head {
		at++
	}
	q.takeOldest()
	if at > 0 && q.controls[at-1].gap > 0 {
		q.controls[at-1].gap++
		return
	}
	q.controls = append(q.controls, control{})
	copy(q.controls[at+1:], q.controls[at:])
	q.controls[at] = control{at: q.head, gap: 1}
}

// take appends up to max items, in order, to into.
func (q *queue) take(into []Item, max int) []Item {
	for ; max > 0; max-- {
		if len(q.controls) > 0 && q.controls[0].at <= q.head {
			into = append(into, q.takeControl())
			continue
		}
		if q.head == q.tail {
			break
		}
		into = append(into, Item{Frame: q.takeOldest()})
	}
	if q.empty() {
		q.ring, q.controls = nil, nil // an idle stream costs no buffer
	}
	return into
}

func (q *queue) takeControl() Item {
	c := &q.controls[0]
	if len(c.batch) > 1 {
		f := c.batch[0]
		c.batch = c.batch[1:]
		return Item{Frame: f}
	}
	done := *c
	q.controls = q.controls[1:]
	if done.taken != nil {
		done.taken()
	}
	switch {
	case len(done.batch) == 1:
		return Item{Frame: done.batch[0]}
	case done.gap > 0:
		return Item{Event: wire.NewEvent("gap", wire.Gap{Missed: &done.gap, Reason: wire.GapSlow})}
	}
	return Item{Event: done.event}
}

func (q *queue) empty() bool { return q.head == q.tail && len(q.controls) == 0 }

// events is how many events wait.
func (q *queue) events() int { return len(q.controls) }

// clear drops everything without a trace; the caller ends the stream.
func (q *queue) clear() {
	q.ring, q.controls, q.bytes = nil, nil, 0
	q.head = q.tail
}
