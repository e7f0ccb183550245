package hub

import (
	"container/list"
	"time"
)

// A page that is loaded again, or a client that finds its network again, is back
// within seconds. Until then its filters stay wanted, so that the broker's
// subscription is still there and no message is missing from the window.

// maxLingering bounds the filters that linger; the oldest go first.
const maxLingering = 10_000

// lingering holds the interests without subscribers, the oldest first. Guarded by
// Hub.mu.
type lingering struct {
	patience time.Duration // 0: nothing lingers
	all      list.List     // of *linger
	armed    bool          // Run knows of the first one
}

// linger is an interest's stay in the list.
type linger struct {
	interest *interest
	until    time.Time
	element  *list.Element
}

func (l *lingering) lasts() bool { return l.patience > 0 }

// fresh reports whether Run has to learn when the first one goes.
func (l *lingering) fresh() bool { return !l.armed && l.all.Len() > 0 }

func (l *lingering) remove(i *interest) {
	if i.lingering != nil {
		l.all.Remove(i.lingering.element)
		i.lingering = nil
	}
}

// stay lets i linger. Needs Hub.mu.
func (h *Hub) stay(i *interest) {
	l := &linger{interest: i, until: time.Now().Add(h.lingering.patience)}
	i.lingering = l
	l.element = h.lingering.all.PushBack(l)
	if h.lingering.all.Len() > maxLingering {
		h.leave(h.lingering.all.Front())
	}
}

func (h *Hub) leave(e *list.Element) {
	i := e.Value.(*linger).interest
	h.lingering.remove(i)
	h.unwant(i)
}

// expire gives up what has lingered long enough, and returns when to look again.
func (h *Hub) expire(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	for first := h.lingering.all.Front(); first != nil; first = h.lingering.all.Front() {
		if left := first.Value.(*linger).until.Sub(now); left > 0 {
			h.lingering.armed = true
			return left
		}
		h.leave(first)
	}
	h.lingering.armed = false
	return time.Hour
}
