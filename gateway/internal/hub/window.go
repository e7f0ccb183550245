package hub

import (
	"sort"
	"sync"
	"time"
)

// window keeps the recent live messages, in order, bounded by age and by bytes,
// for streams that resume. It is safe for concurrent use; its lock is a leaf.
type window struct {
	maxAge   time.Duration
	maxBytes int

	mu      sync.Mutex // guards what follows
	frames  []*Frame   // a ring; its length is zero or a power of two
	head, n int
	bytes   int
	evicted uint64 // Seq of the newest message that is not kept any more
}

// add appends f and lets go what is beyond the bounds.
func (w *window) add(f *Frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n == len(w.frames) {
		w.grow()
	}
	w.frames[(w.head+w.n)&(len(w.frames)-1)] = f
	w.n++
	w.bytes += f.size()
	w.expire(f.received)
}

func (w *window) grow() {
	ring := make([]*Frame, max(64, 2*len(w.frames)))
	for i := range w.n {
		ring[i] = w.at(i)
	}
	w.frames, w.head = ring, 0
}

func (w *window) at(i int) *Frame { return w.frames[(w.head+i)&(len(w.frames)-1)] }

// expire needs w.mu.
func (w *window) expire(now time.Time) {
	for w.n > 0 {
		oldest := w.at(0)
		if w.bytes <= w.maxBytes && now.Sub(oldest.received) <= w.maxAge {
			return
		}
		w.frames[w.head] = nil
		w.head = (w.head + 1) & (len(w.frames) - 1)
		w.n--
		w.bytes -= oldest.size()
		w.evicted = oldest.Seq
	}
}

// between returns the messages after position from up to to that wanted accepts.
// ok is false when some of them are not kept any more.
func (w *window) between(from, to uint64, wanted func(*Frame) bool) (frames []*Frame, ok bool) {
	w.mu.Lock()
	if from < w.evicted {
		w.mu.Unlock()
		return nil, false
	}
	first := sort.Search(w.n, func(i int) bool { return w.at(i).Seq > from })
	last := sort.Search(w.n, func(i int) bool { return w.at(i).Seq > to })
	for i := first; i < last; i++ {
		frames = append(frames, w.at(i))
	}
	w.mu.Unlock() // matching takes its time, and messages keep coming
	kept := frames[:0]
	for _, f := range frames {
		if wanted(f) {
			kept = append(kept, f)
		}
	}
	clear(frames[len(kept):])
	return kept, true
}

// holds is how many messages are kept, and their bytes.
func (w *window) holds() (messages, bytes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n, w.bytes
}
