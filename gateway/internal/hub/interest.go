package hub

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// holding says whether the broker has a subscription of the present connection.
type holding byte

const (
	notHeld holding = iota
	maybeHeld
	surelyHeld
)

// interest is a filter that is wanted, or that the broker still holds a
// subscription to. Its fields are guarded by Hub.mu.
type interest struct {
	filter mqtt.Filter
	// subscribers is shared with running deliveries: what was lent is appended to,
	// or replaced, never changed in place.
	subscribers []Subscriber
	lent        atomic.Bool // since subscribers was last replaced; set under a read lock
	verdict     error       // the answer, once decided is closed
	decided     chan struct{}
	known       bool // decided is closed: the present connection's answer is there

	wanted    bool    // by subscribers, or lingering
	lingering *linger // nil while there are subscribers

	held    holding
	asking  bool  // Run waits for the broker's answer about it
	queued  bool  // it stands in Hub.dirty
	refused error // the broker's refusal of this very filter, on this connection
	spread  bool  // Run has queued what needs to be held before this one is given up

	// covered says that the broker delivers the filter, by whatever subscription,
	// without an interruption since the message since: later ones have all come.
	covered bool
	since   uint64
}

func newInterest(f mqtt.Filter) *interest {
	return &interest{filter: f, decided: make(chan struct{})}
}

func (i *interest) appendTo(into [][]Subscriber) [][]Subscriber {
	if i == nil || len(i.subscribers) == 0 {
		return into
	}
	if !i.lent.Load() {
		i.lent.Store(true)
	}
	return append(into, i.subscribers)
}

// remove takes out the subscriber at index at and returns the one that took its
// place, if any. Only what was lent to a delivery since the last time is copied,
// so many who leave together cost one copy for each message between them.
func (i *interest) remove(at int) (moved Subscriber) {
	if i.lent.Load() {
		i.subscribers = slices.Clone(i.subscribers)
		i.lent.Store(false)
	}
	last := len(i.subscribers) - 1
	if at < last {
		moved = i.subscribers[last]
		i.subscribers[at] = moved
	}
	i.subscribers[last] = nil
	i.subscribers = i.subscribers[:last]
	if cap(i.subscribers) > 64 && last < cap(i.subscribers)/4 {
		i.subscribers = slices.Clone(i.subscribers) // give the memory back
	}
	return moved
}

func (i *interest) decide(verdict error) {
	if !i.known {
		i.verdict, i.known = verdict, true
		close(i.decided)
	}
}

// forget makes the verdict unknown again.
func (i *interest) forget() {
	if i.known {
		i.verdict, i.known, i.decided = nil, false, make(chan struct{})
	}
	i.covered, i.since = false, 0
}

// cover notes that the broker delivers i from since on, if it did not before.
func (i *interest) cover(since uint64) {
	if !i.covered {
		i.covered, i.since = true, since
	}
}

// seats are the interests of one subscriber, with its index in each.
type seats map[*interest]int

// Join attaches s to filters. From the moment of the call every live message
// that matches one of them is delivered to s; Join returns when the broker
// has answered for each filter, with nil where it granted: at once for a filter
// whose answer is known, or that a wider granted one contains. A filter with an error
// is detached again, if this call attached it; while the connection is down nothing is
// attached. To join a filter that s has already changes nothing
// and waits for its verdict. mark is the position of the attachment: later messages
// are delivered.
func (h *Hub) Join(ctx context.Context, s Subscriber, filters []mqtt.Filter) (mark uint64, errs []error) {
	errs = make([]error, len(filters))
	h.mu.Lock()
	mark = h.seq.Load()
	if !h.up {
		h.mu.Unlock()
		down := fault.New(fault.UpstreamUnavailable, "the broker connection is down").Retry(time.Second)
		for n := range errs {
			errs[n] = down
		}
		return mark, errs
	}
	waiting := h.attach(s, filters, errs)
	h.unlock()
	if len(waiting) == 0 {
		return mark, errs
	}
	ctx, cancel := context.WithTimeout(ctx, h.options.Timeout)
	defer cancel()
	for _, w := range waiting {
		f := filters[w.n]
		if errs[w.n] = h.Await(ctx, f); errs[w.n] != nil && w.added {
			h.Unsubscribe(s, []mqtt.Filter{f})
		}
	}
	return mark, errs
}

// undecided is a filter of one Subscribe whose verdict is not known yet.
type undecided struct {
	n     int
	added bool
}

// attach seats s at filters, sets the errors that are known and returns what is to
// be waited for. Needs Hub.mu.
func (h *Hub) attach(s Subscriber, filters []mqtt.Filter, errs []error) (waiting []undecided) {
	mine := h.subscribers[s]
	if mine == nil {
		mine = make(seats, len(filters))
		h.subscribers[s] = mine
	}
	for n, f := range filters {
		i := h.want(f)
		_, has := mine[i]
		if !has {
			mine[i] = len(i.subscribers)
			i.subscribers = append(i.subscribers, s)
		}
		if !i.known {
			waiting = append(waiting, undecided{n, !has})
		} else if errs[n] = i.verdict; i.verdict != nil && !has {
			h.detach(s, mine, i)
		}
	}
	return waiting
}

// unlock gives Hub.mu back and wakes Run if there is something for it.
func (h *Hub) unlock() {
	more := len(h.dirty) > 0 || h.lingering.fresh()
	h.mu.Unlock()
	if more {
		h.poke()
	}
}

// Await waits for the broker's verdict on f, to which the caller is subscribed,
// over a reconnect if need be.
func (h *Hub) Await(ctx context.Context, f mqtt.Filter) error {
	for {
		h.mu.RLock()
		i := h.interests[f]
		if i == nil || !i.wanted { // the subscriber left meanwhile
			h.mu.RUnlock()
			return context.Canceled
		}
		decided, known, verdict := i.decided, i.known, i.verdict
		h.mu.RUnlock()
		if known {
			return verdict
		}
		select {
		case <-decided:
		case <-ctx.Done():
			return fault.New(fault.UpstreamUnavailable, "the broker did not confirm the subscription to %q in time", f).
				Retry(time.Second).Because(ctx.Err())
		}
	}
}

// Unsubscribe detaches s from filters. A delivery that is already under way may
// still reach s.
func (h *Hub) Unsubscribe(s Subscriber, filters []mqtt.Filter) {
	h.mu.Lock()
	defer h.unlock()
	mine := h.subscribers[s]
	for _, f := range filters {
		if i := h.interests[f]; i != nil {
			h.detach(s, mine, i)
		}
	}
}

// Leave detaches s from everything.
func (h *Hub) Leave(s Subscriber) {
	h.mu.Lock()
	defer h.unlock()
	mine := h.subscribers[s]
	for i := range mine {
		h.detach(s, mine, i)
	}
	delete(h.subscribers, s)
}

// detach takes s, whose seats are mine, from i. Needs Hub.mu.
func (h *Hub) detach(s Subscriber, mine seats, i *interest) {
	at, has := mine[i]
	if !has {
		return
	}
	delete(mine, i)
	if moved := i.remove(at); moved != nil {
		h.subscribers[moved][i] = at
	}
	if len(i.subscribers) > 0 {
		return
	}
	if i.covered && h.lingering.lasts() {
		h.stay(i)
	} else {
		h.unwant(i)
	}
}

// want returns f's interest, wanted. Needs Hub.mu.
func (h *Hub) want(f mqtt.Filter) *interest {
	i := h.interests[f]
	if i == nil {
		i = newInterest(f)
		h.interests[f] = i
		h.cover.insert(i)
	}
	h.lingering.remove(i)
	if !i.wanted {
		i.wanted, i.spread = true, false
		h.wanted++
		h.tree.insert(i)
		if !h.settle(i) {
			h.mark(i)
		} else if i.held == surelyHeld { // narrower ones that were to take its place are not needed
			h.changed(i)
		}
	}
	return i
}

// unwant gives i up: Run ends its subscription, if there is one. Needs Hub.mu.
func (h *Hub) unwant(i *interest) {
	i.wanted = false
	h.wanted--
	h.tree.remove(string(i.filter))
	if i.held == notHeld && !i.asking {
		h.drop(i)
	} else {
		h.mark(i)
	}
}

// coveredSince returns the number of the last message that the broker may not have
// delivered for f on this connection: of the later ones none is missing. ok is false when f
// is not covered. The caller holds Hub.mu, for reading at least.
func (h *Hub) coveredSince(f mqtt.Filter) (seq uint64, ok bool) {
	if i := h.interests[f]; i != nil && i.covered {
		return i.since, true
	}
	h.cover.above(f, func(g *interest) bool {
		if g.held == surelyHeld && g.covered && (!ok || g.since < seq) {
			seq, ok = g.since, true
		}
		return false
	})
	return seq, ok
}
