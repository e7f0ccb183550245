package stream

import (
	"container/heap"
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/wire"
)

// The pump writes what streams owe. A write to a socket costs as much as
// everything else that a delivery needs ten times over, so the two things that
// count are that no goroutine has to be woken for it, and that what waits for a
// client goes out in one write. There is a shard for each core, with one
// goroutine, that goes through the streams with something to take and never waits
// for any of them.
//
// A pass that comes soon after another waits a little, so that at high rates each
// write carries several messages. The wait grows with what a pass costs: a few
// streams with many messages are written every few milliseconds, a lone message
// after a quiet time at once.

const (
	shortestPause = time.Millisecond
	longestPause  = 20 * time.Millisecond
	pauseFactor   = 4 // a pass takes at most about this part of the time
)

// batch bounds one write to a client, so that a large backlog is passed on in
// steps that others wait for.
var batch = budget{items: 256, bytes: 32 << 10}

// batchesAPass is how many writes a stream gets before others have their turn.
const batchesAPass = 4

// Format is how a stream looks on the line. Streams of one format and with the
// same items share the bytes, so the functions must have no state. They append to
// dst and return it.
type Format struct {
	// Open begins a write, Close ends the one that begins at dst[start].
	Open  func(dst []byte) []byte
	Close func(dst []byte, start int) []byte
	// Message appends a message. position, where it is not 0, takes the place of the
	// cursor's.
	Message func(dst []byte, f *hub.Frame, position uint64) []byte
	Event   func(dst []byte, e *wire.Event) []byte
}

// Sink is a client's connection. No method may wait. The pump's goroutine calls
// them, never two at a time.
type Sink interface {
	// Free reports whether the connection takes bytes. When it is free again it
	// calls Stream.Freed.
	Free() bool
	// Offer gives the connection b, which is the caller's again when Offer returns.
	// After an error the connection is lost.
	Offer(b []byte, now time.Time) error
	// Tick is called when the time comes that it last returned, and at first when
	// the sink is attached; for signs of life.
	Tick(now time.Time) (next time.Time)
	// Finish is called behind the last event: nothing more is offered.
	Finish(end wire.End)
}

type pump struct {
	shards []*shard
	next   atomic.Uint32
}

func newPump() *pump {
	p := &pump{shards: make([]*shard, runtime.GOMAXPROCS(0))}
	for i := range p.shards {
		p.shards[i] = &shard{wake: make(chan struct{}, 1)}
	}
	return p
}

// shard is the next stream's shard: they take turns.
func (p *pump) shard() *shard {
	return p.shards[int(p.next.Add(1))%len(p.shards)]
}

// run serves the streams until ctx is done.
func (p *pump) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range p.shards {
		wg.Go(func() { s.run(ctx) })
	}
	wg.Wait()
}

// shard serves its part of the streams.
type shard struct {
	wake chan struct{}

	mu    sync.Mutex // guards what follows; a leaf
	ready []*Stream
	duty  duties

	// The goroutine's own.
	spare       []*Stream
	items, same []Item // of this stream, and of the one that encoded holds
	format      *Format
	encoded     []byte
}

// add puts s, which is not there yet, among those that have something to take.
func (p *shard) add(s *Stream) {
	p.mu.Lock()
	p.ready = append(p.ready, s)
	first := len(p.ready) == 1
	p.mu.Unlock()
	if first {
		p.poke()
	}
}

func (p *shard) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// schedule makes s's duties due at the latest at at.
func (p *shard) schedule(s *Stream, at time.Time) {
	p.mu.Lock()
	sooner := p.duty.schedule(s, at)
	p.mu.Unlock()
	if sooner {
		p.poke()
	}
}

// remove takes s out; it may still be in a pass that is under way.
func (p *shard) remove(s *Stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.duty.remove(s)
}

func (p *shard) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var ended, begun time.Time
	for {
		timer.Reset(p.untilDuty())
		select {
		case <-p.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		pace := min(max(shortestPause, pauseFactor*ended.Sub(begun)), longestPause)
		if wait := pace - time.Since(begun); wait > 0 && !begun.IsZero() {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		}
		begun = time.Now()
		p.pass(begun)
		ended = time.Now()
	}
}

// untilDuty is how long nothing is due, an hour at most.
func (p *shard) untilDuty() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.duty) == 0 {
		return time.Hour
	}
	return min(time.Hour, max(0, time.Until(p.duty[0].dutyAt)))
}

func (p *shard) pass(now time.Time) {
	p.mu.Lock()
	ready := p.ready
	p.ready = p.spare[:0]
	due := p.duty.due(now)
	p.mu.Unlock()
	for i, s := range ready {
		p.serve(s, now)
		ready[i] = nil
	}
	p.spare = ready
	for _, s := range due {
		if next := s.tick(now); !next.IsZero() {
			p.schedule(s, next)
		}
	}
	// What was written must not be kept alive by what would be reused.
	clear(p.items[:cap(p.items)])
	clear(p.same[:cap(p.same)])
	p.items, p.same, p.format = p.items[:0], p.same[:0], nil
	if cap(p.encoded) > 2*batch.bytes {
		p.encoded = nil
	}
}

// serve gives s's connection what it takes.
func (p *shard) serve(s *Stream, now time.Time) {
	s.serving.Lock()
	defer s.serving.Unlock()
	if s.finished {
		return // and stays marked
	}
	if s.sink == nil {
		s.unmark() // Attach brings s here again
		return
	}
	for range batchesAPass {
		if !s.sink.Free() {
			// Freed brings s here again; it may have come before the mark was gone.
			if s.unmark(); !s.sink.Free() {
				return
			}
		}
		var end *wire.End
		p.items, end = s.takeMarked(p.items[:0], now)
		if len(p.items) == 0 {
			return
		}
		if err := s.sink.Offer(p.encode(s.format.Load()), now); err != nil {
			s.finished = true
			s.Lost()
			return
		}
		if end != nil {
			s.finished = true
			s.sink.Finish(*end)
			return
		}
	}
	s.Freed()
}

// encode is the bytes of p.items.
func (p *shard) encode(format *Format) []byte {
	if format == p.format && slices.Equal(p.items, p.same) {
		return p.encoded
	}
	b := format.Open(p.encoded[:0])
	for _, i := range p.items {
		if i.Frame != nil {
			b = format.Message(b, i.Frame, i.Position)
		} else {
			b = format.Event(b, i.Event)
		}
	}
	p.encoded, p.format = format.Close(b, 0), format
	p.items, p.same = p.same, p.items
	return p.encoded
}

// duties are streams by the time at which tick must be called.
type duties []*Stream

func (d *duties) schedule(s *Stream, at time.Time) (sooner bool) {
	switch {
	case s.duty < 0:
		s.dutyAt = at
		heap.Push(d, s)
	case at.Before(s.dutyAt):
		s.dutyAt = at
		heap.Fix(d, s.duty)
	default:
		return false
	}
	return s.duty == 0
}

func (d *duties) remove(s *Stream) {
	if s.duty >= 0 {
		heap.Remove(d, s.duty)
	}
}

func (d *duties) due(now time.Time) (all []*Stream) {
	for len(*d) > 0 && !(*d)[0].dutyAt.After(now) {
		all = append(all, heap.Pop(d).(*Stream))
	}
	return all
}

func (d duties) Len() int           { return len(d) }
func (d duties) Less(i, j int) bool { return d[i].dutyAt.Before(d[j].dutyAt) }
func (d duties) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].duty, d[j].duty = i, j
}

// Push implements heap.Interface.
func (d *duties) Push(x any) {
	s := x.(*Stream)
	s.duty = len(*d)
	*d = append(*d, s)
}

// Pop implements heap.Interface.
func (d *duties) Pop() any {
	old := *d
	s := old[len(old)-1]
	old[len(old)-1] = nil
	s.duty = -1
	*d = old[:len(old)-1]
	return s
}

// Messages is a format of lines: each message is its object, events are typed
// objects, and every one ends in end.
func Messages(end string) *Format {
	return &Format{
		Open:  func(dst []byte) []byte { return dst },
		Close: func(dst []byte, _ int) []byte { return dst },
		Message: func(dst []byte, f *hub.Frame, position uint64) []byte {
			return append(AppendObject(dst, f, position), end...)
		},
		Event: func(dst []byte, e *wire.Event) []byte { return append(e.AppendTyped(dst), end...) },
	}
}

// AppendObject appends f's message object with the cursor for position, where that
// is not 0.
func AppendObject(dst []byte, f *hub.Frame, position uint64) []byte {
	if position == 0 || f.Seq == 0 {
		return append(dst, f.JSON...)
	}
	return f.AppendJSONAt(dst, position)
}

// AppendID appends f's cursor, or the one for position; nothing on snapshots.
func AppendID(dst []byte, f *hub.Frame, position uint64) []byte {
	if position == 0 || f.Seq == 0 {
		return append(dst, f.Cursor()...)
	}
	return f.AppendCursorAt(dst, position)
}
