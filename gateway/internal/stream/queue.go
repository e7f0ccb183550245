package stream

import (
	"slices"
	"time"

	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/wire"
)

// Item is one thing that a client is owed: a message or a control event.
type Item struct {
	Frame *hub.Frame  // a message, or
	Event *wire.Event // an event
	// Position, where it is not 0, is the position to resume from behind this
	// message, in place of its own: something older still waits.
	Position uint64
}

// queue holds what a client has not been given yet, bounded in number and bytes.
// Beyond the bounds the stream's mode decides: the oldest live message is dropped
// and a gap event stands where it was, or messages move to newest, where only the
// last of each topic is kept. Events and snapshots are not dropped: the stream
// bounds how many there can be, and their frames are shared by all streams of a
// round.
//
// Live messages lie in a ring and are numbered; head and tail are the numbers of
// the oldest and of the next. Controls are a short list, each with the number of
// the live message that it comes before.
type queue struct {
	maxFrames, maxBytes int

	ring       []*hub.Frame // length is zero or a power of two
	few        [4]*hub.Frame
	head, tail int
	bytes      int    // of the frames in the ring
	high       uint64 // the largest Seq among them
	late       int    // behind the last one that came later than a larger Seq, because of a join
	lateFloor  uint64 // no cursor may pass this before late is reached
	controls   []control
	batches    int // controls that hold snapshots
	newest     *latest
	turn       bool // newest comes before the ring in the next take
}

type control struct {
	at    int // comes before the live message of this number
	event *wire.Event
	batch []*hub.Frame // of a snapshot or a replay
	gap   int          // > 0: a gap event for so many messages of a slow client
	taken func()       // called when the event is taken; may be nil
	last  bool         // the end: nothing comes behind it
}

func (q *queue) pushEvent(e *wire.Event, taken func()) {
	q.controls = append(q.controls, control{at: q.tail, event: e, taken: taken, last: e.Name == EndEvent})
}

func (q *queue) pushBatch(frames []*hub.Frame) {
	if len(frames) > 0 {
		q.controls = append(q.controls, control{at: q.tail, batch: frames})
		q.batches++
	}
}

// pushBatchFirst puts frames before the oldest live message.
func (q *queue) pushBatchFirst(frames []*hub.Frame) {
	if len(frames) == 0 {
		return
	}
	at := 0
	for at < len(q.controls) && q.controls[at].at <= q.head {
		at++
	}
	q.controls = slices.Insert(q.controls, at, control{at: q.head, batch: frames})
	q.batches++
}

// pushGap tells of n messages that are left out.
func (q *queue) pushGap(n int) {
	if at := len(q.controls) - 1; at >= 0 && q.controls[at].gap > 0 && q.controls[at].at == q.tail {
		q.controls[at].gap += n
		return
	}
	q.controls = append(q.controls, control{at: q.tail, gap: n})
}

// full reports whether one of the waiting messages must go before f can come.
func (q *queue) full(f *hub.Frame) bool {
	return q.tail > q.head && (q.tail-q.head >= q.maxFrames || q.bytes+len(f.JSON) > q.maxBytes)
}

func (q *queue) oldest() *hub.Frame { return q.ring[q.head&q.mask()] }

// pushFrame appends f; the caller has made room for it.
func (q *queue) pushFrame(f *hub.Frame) {
	if q.tail-q.head == len(q.ring) {
		q.grow()
	}
	inOrder := q.tail == q.head || f.Seq > q.high
	if inOrder {
		q.high = f.Seq
	}
	q.ring[q.tail&q.mask()] = f
	q.tail++
	if !inOrder {
		if q.head >= q.late {
			q.lateFloor = f.Seq - 1
		}
		q.late, q.lateFloor = q.tail, min(q.lateFloor, f.Seq-1)
	}
	q.bytes += len(f.JSON)
}

// pushLatest keeps f as its topic's newest message and reports how many messages
// were dropped for want of room.
func (q *queue) pushLatest(f *hub.Frame, interval time.Duration, now time.Time) (dropped int) {
	if dropped = q.latest().push(f, interval, now); dropped > 0 {
		q.pushGap(dropped)
	}
	return dropped
}

// The bounds of a client's newest messages.
const (
	maxLatestTopics = 20_000
	maxLatestBytes  = 8 << 20
)

func (q *queue) mask() int { return len(q.ring) - 1 }

func (q *queue) grow() {
	if q.ring == nil {
		q.ring = q.few[:]
		return
	}
	ring := make([]*hub.Frame, 2*len(q.ring))
	for n := q.head; n < q.tail; n++ {
		ring[n&(len(ring)-1)] = q.ring[n&q.mask()]
	}
	q.ring = ring
	clear(q.few[:])
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
	q.controls = slices.Insert(q.controls, at, control{at: q.head, gap: 1})
}

// conflate moves the waiting messages that may be replaced by newer ones of their
// topic to newest, and reports how many were dropped on the way.
func (q *queue) conflate(may func(*hub.Frame) bool, now time.Time) (dropped int) {
	q.sift(func(f *hub.Frame) bool {
		out := may(f)
		if out {
			dropped += q.latest().push(f, 0, now)
		}
		return out
	})
	if dropped > 0 {
		q.pushGap(dropped)
	}
	return dropped
}

// sift takes those live messages out of the ring that out names; the controls keep
// their places between the others.
func (q *queue) sift(out func(*hub.Frame) bool) {
	kept, next := q.head, 0
	for n := q.head; n < q.tail; n++ {
		for next < len(q.controls) && q.controls[next].at <= n {
			q.controls[next].at = kept
			next++
		}
		slot := &q.ring[n&q.mask()]
		f := *slot
		*slot = nil
		if out(f) {
			q.bytes -= len(f.JSON)
			continue
		}
		q.ring[kept&q.mask()] = f
		kept++
	}
	for ; next < len(q.controls); next++ {
		q.controls[next].at = min(q.controls[next].at, kept)
	}
	q.tail, q.late = kept, min(q.late, kept)
}

// latest is newest, made when it is needed.
func (q *queue) latest() *latest {
	if q.newest == nil {
		q.newest = &latest{maxTopics: maxLatestTopics, maxBytes: max(maxLatestBytes, q.maxBytes)}
	}
	return q.newest
}

// budget bounds one take.
type budget struct {
	items int
	bytes int // taking stops with the item that passes it
}

// take appends what waits, in order, to into. last is the position of the newest
// message that the stream got; hold, where it is not 0, a position that no cursor
// may pass.
func (q *queue) take(into []Item, b budget, now time.Time, last, hold uint64) []Item {
	begun := len(into)
	// With messages in both places each gets its part of the client's attention.
	share := b.items
	if q.turn = !q.turn; q.head < q.tail && q.newest != nil {
		share = b.items / 2
	}
	for len(into)-begun < b.items && b.bytes > 0 {
		var item Item
		fresh := q.batches == 0 && share > 0 && q.newest != nil && q.newest.ready(now)
		switch {
		case len(q.controls) > 0 && q.controls[0].at <= q.head && (!q.controls[0].last || !fresh):
			if item = q.takeControl(); item.Frame != nil && item.Frame.Seq > 0 {
				item.Position = q.position(item.Frame.Seq, hold)
			}
		case fresh && (q.turn || q.head == q.tail):
			item.Frame = q.newest.take(now, last)
			item.Position = q.position(last, hold)
			share--
		case q.head < q.tail:
			item.Frame = q.takeOldest()
			item.Position = q.position(item.Frame.Seq, hold)
		default:
			b.bytes = 0
			continue
		}
		if item.Frame != nil {
			b.bytes -= len(item.Frame.JSON)
			if item.Position == item.Frame.Seq {
				item.Position = 0 // the common case, encoded once for all
			}
		}
		into = append(into, item)
	}
	q.tidy()
	return into
}

// position is up to where the client has everything, or will have what replaced
// it, when it has seen a message and all before it; no more than most.
func (q *queue) position(most, hold uint64) uint64 {
	if q.newest != nil && q.newest.dirty > 0 {
		most = min(most, q.newest.floor)
	}
	if q.head < q.tail {
		most = min(most, q.oldest().Seq-1)
	}
	if q.head < q.late {
		most = min(most, q.lateFloor)
	}
	if hold > 0 {
		most = min(most, hold)
	}
	return most
}

// tidy lets an idle stream cost no buffer.
func (q *queue) tidy() {
	if q.newest != nil && q.newest.slots == nil {
		q.newest = nil
	}
	if q.head == q.tail && len(q.controls) == 0 {
		if len(q.ring) > len(q.few) {
			q.ring = nil
		}
		q.controls = nil
	}
}

func (q *queue) takeControl() Item {
	c := &q.controls[0]
	if len(c.batch) > 1 {
		f := c.batch[0]
		c.batch = c.batch[1:]
		return ofBatch(f)
	}
	done := *c
	q.controls = q.controls[1:]
	if done.taken != nil {
		done.taken()
	}
	switch {
	case len(done.batch) == 1:
		q.batches--
		return ofBatch(done.batch[0])
	case done.gap > 0:
		return Item{Event: wire.NewEvent("gap", wire.Gap{Missed: &done.gap, Reason: wire.GapSlow})}
	}
	return Item{Event: done.event}
}

// ofBatch is what a client sees of a snapshot's or a replay's message.
func ofBatch(f *hub.Frame) Item {
	if f.Lost {
		one := 1
		return Item{Event: wire.NewEvent("gap", wire.Gap{Missed: &one, Reason: wire.GapUpstream})}
	}
	return Item{Frame: f}
}

// waiting reports whether anything can be taken now.
func (q *queue) waiting(now time.Time) bool {
	return q.head < q.tail || len(q.controls) > 0 || q.newest != nil && q.newest.ready(now)
}

// next is when something that rests now can be taken; zero: nothing rests.
func (q *queue) next() time.Time {
	if q.newest == nil {
		return time.Time{}
	}
	return q.newest.next()
}

// events is how many events wait.
func (q *queue) events() int { return len(q.controls) }

// clear drops everything without a trace; the caller ends the stream.
func (q *queue) clear() {
	q.ring, q.controls, q.bytes, q.batches, q.newest = nil, nil, 0, 0, nil
	q.head = q.tail
	clear(q.few[:])
}
