package hub

import (
	"context"
	"errors"
	"time"

	"flyscreen/gateway/mqtt"
)

// How the broker's subscriptions follow what is wanted. Run alone speaks to the
// broker about them, so a SUBSCRIBE and an UNSUBSCRIBE of one filter cannot overtake
// each other. For each filter whose state may have changed it decides (move):
//
//   - wanted, and a wider wanted filter is held: granted by that; its own
//     subscription, if any, is ended;
//   - wanted, and a wider wanted filter has no answer yet: it waits for that;
//   - wanted, and nothing wider: it is asked for;
//   - not wanted, but held: it is ended, once every wanted filter that it alone
//     brings is held too.
//
// So a subscription is ended only when the answer for what takes its place is
// there (make before break), and a wider filter that the broker refuses changes
// nothing for the narrower ones. Should the broker refuse a narrower one that it
// delivered before as part of a wider, the wider one stays for it.

// subscribeQoS is the QoS of every upstream subscription. Some brokers use the
// lower QoS where two subscriptions of a client overlap, and the barrier of a
// snapshot must not overtake live messages, so all have the same. QoS 2 is not
// asked for: it would be delivered at least once all the same.
const subscribeQoS mqtt.QoS = 1

// retryPause is the wait after a call for subscriptions failed.
const retryPause = 100 * time.Millisecond

// Run keeps the broker's subscriptions equal to what is wanted, until ctx is
// done. It returns after all snapshots have ended.
func (h *Hub) Run(ctx context.Context) error {
	defer h.snapshots.stop()
	h.snapshots.start(ctx)
	var turns pace
	expiry := time.NewTimer(time.Hour)
	defer expiry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.wake:
		case <-expiry.C:
		}
		expiry.Reset(h.expire(time.Now()))
		for h.reconcile(ctx, &turns) {
		}
	}
}

// reconcile sends one batch, in its turn, and reports whether there may be more to do.
func (h *Hub) reconcile(ctx context.Context, turns *pace) (more bool) {
	h.mu.RLock()
	idle := !h.up || len(h.dirty) == 0
	h.mu.RUnlock()
	// The wait comes before the look: what comes and goes meanwhile is never sent.
	if idle || pause(ctx, turns.wait(time.Now())) != nil {
		return false
	}
	connection, add, end := h.difference()
	if len(add)+len(end) == 0 {
		return false
	}
	turns.take(time.Now())
	if len(add) > 0 {
		h.ask(ctx, connection, add)
	}
	if len(end) > 0 {
		h.end(ctx, connection, end)
	}
	return true
}

// move is what Run does about an interest.
type move byte

const (
	stay move = iota
	ask
	end
)

// difference takes up to a batch of filters to subscribe to and to unsubscribe
// from.
func (h *Hub) difference() (connection uint64, add, drop []*interest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.up {
		return h.connection, nil, nil
	}
	for len(h.dirty) > 0 && len(add) < h.options.FiltersPerSubscribe && len(drop) < h.options.FiltersPerSubscribe {
		i := h.dirty[0]
		h.dirty[0] = nil
		h.dirty = h.dirty[1:]
		i.queued = false
		if h.interests[i.filter] != i || i.asking {
			continue
		}
		switch h.move(i) {
		case ask:
			i.asking = true
			add = append(add, i)
		case end:
			i.asking, i.held = true, maybeHeld
			drop = append(drop, i)
		}
	}
	return h.connection, add, drop
}

// move decides, and gives the verdict where nothing needs to be asked. Needs Hub.mu.
func (h *Hub) move(i *interest) move {
	switch {
	case !i.wanted:
		return h.farewell(i)
	case h.coverOf(i) != nil:
		h.settle(i)
		if i.held != notHeld {
			return end
		}
	case h.settle(i), i.refused != nil, h.awaitsWider(i):
	default:
		return ask
	}
	return stay
}

// settle grants i if what the broker holds brings it. Needs Hub.mu.
func (h *Hub) settle(i *interest) bool {
	if wider := h.coverOf(i); wider != nil {
		i.cover(wider.since)
	} else if i.held != surelyHeld {
		return false
	}
	i.decide(nil)
	return true
}

// coverOf finds a wider filter that brings i and will stay. Needs Hub.mu.
func (h *Hub) coverOf(i *interest) (wider *interest) {
	h.cover.above(i.filter, func(g *interest) bool {
		if g.wanted && g.held == surelyHeld {
			wider = g
		}
		return wider != nil
	})
	return wider
}

// awaitsWider reports whether a wider filter that may bring i has no answer yet.
// Needs Hub.mu.
func (h *Hub) awaitsWider(i *interest) bool {
	return h.cover.above(i.filter, func(g *interest) bool { return g.wanted && !g.known })
}

// farewell decides about an interest that nobody wants. Needs Hub.mu.
func (h *Hub) farewell(i *interest) move {
	if i.held == notHeld {
		h.drop(i)
		return stay
	}
	if i.held == surelyHeld && h.needed(i) {
		return stay
	}
	i.forget()
	return end
}

// needed reports whether a wanted filter is brought by i alone, and sees to it that
// Run asks for all such ones. Needs Hub.mu.
func (h *Hub) needed(i *interest) (needed bool) {
	h.cover.below(i.filter, func(x *interest) bool {
		if !x.wanted || x.held == surelyHeld || x.known && x.verdict != nil || h.coverOf(x) != nil {
			return false
		}
		needed = true
		if !i.spread && x.refused == nil {
			h.mark(x)
		}
		return i.spread // the first time all, later one is answer enough
	})
	i.spread = true
	return needed
}

// mark has Run look at i. Needs Hub.mu.
func (h *Hub) mark(i *interest) {
	if !i.queued {
		i.queued = true
		h.dirty = append(h.dirty, i)
	}
}

// drop removes an interest that is neither wanted nor held. Needs Hub.mu.
func (h *Hub) drop(i *interest) {
	delete(h.interests, i.filter)
	h.cover.remove(string(i.filter))
	h.changed(i)
}

// changed has Run look at those who wait for i: narrower filters for its answer,
// wider ones that are not wanted until they may go. Needs Hub.mu.
func (h *Hub) changed(i *interest) {
	h.cover.below(i.filter, func(x *interest) bool {
		if !x.known || x.held != notHeld || x.wanted && x.verdict == nil && h.coverOf(x) == nil {
			h.mark(x)
		}
		return false
	})
	h.cover.above(i.filter, func(g *interest) bool {
		if !g.wanted {
			h.mark(g)
		}
		return false
	})
}

// ask subscribes to what is in batch, with a time of its own: a broker that is
// slow to answer one call must not starve the next.
func (h *Hub) ask(ctx context.Context, connection uint64, batch []*interest) {
	limited, cancel := context.WithTimeout(ctx, h.options.Timeout)
	defer cancel()
	verdicts, err := h.source.Subscribe(limited, filtersOf(batch), subscribeQoS)
	if err != nil {
		h.redo(ctx, connection, batch, err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.connection != connection {
		return // the answers are of a connection that is gone; Link marked all
	}
	for n, i := range batch {
		i.asking = false
		if verdicts[n] == nil {
			h.granted(i)
		} else {
			i.held, i.refused = notHeld, verdicts[n]
			i.decide(verdicts[n])
			h.log.Warn("the broker refused a subscription", "filter", i.filter, "err", verdicts[n])
		}
		h.changed(i)
	}
	for _, i := range batch {
		if !i.wanted || i.held == surelyHeld && h.coverOf(i) != nil { // it left, or a wider one came in the same batch
			h.mark(i)
		}
	}
}

// granted notes a subscription. What the broker sent before it may be missing,
// unless a wider subscription brought it, so it takes a number of its own: no cursor
// of before may stand behind it. Needs Hub.mu.
func (h *Hub) granted(i *interest) {
	i.held, i.refused = surelyHeld, nil
	since := h.seq.Add(1)
	h.cover.above(i.filter, func(g *interest) bool {
		if g.held == surelyHeld && g.covered {
			since = min(since, g.since)
		}
		return false
	})
	i.cover(since)
	i.decide(nil)
}

// end unsubscribes from what is in batch.
func (h *Hub) end(ctx context.Context, connection uint64, batch []*interest) {
	limited, cancel := context.WithTimeout(ctx, h.options.Timeout)
	defer cancel()
	if err := h.source.Unsubscribe(limited, filtersOf(batch)); err != nil {
		h.redo(ctx, connection, batch, err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.connection != connection {
		return
	}
	for _, i := range batch {
		i.asking, i.held = false, notHeld
		h.mark(i) // it may be wanted again, or can be dropped
	}
}

// redo puts a batch back after a failed call and waits a little, unless the
// connection is gone anyway.
func (h *Hub) redo(ctx context.Context, connection uint64, batch []*interest, err error) {
	h.mu.Lock()
	same := h.connection == connection
	if same {
		for _, i := range batch {
			i.asking, i.held = false, maybeHeld // nobody knows whether the call took effect
			h.mark(i)
		}
	}
	h.mu.Unlock()
	if !same || errors.Is(ctx.Err(), context.Canceled) { // the connection, or the hub, is at its end
		return
	}
	h.log.Warn("the broker did not answer a subscription change", "filters", len(batch), "err", err)
	_ = pause(ctx, retryPause)
}

// disconnected forgets what a connection held and answered. Needs Hub.mu.
func (h *Hub) disconnected() {
	for _, i := range h.interests {
		i.forget()
		i.held, i.asking, i.refused = notHeld, false, nil
		if !i.wanted {
			delete(h.interests, i.filter)
			h.cover.remove(string(i.filter))
			continue
		}
		h.mark(i)
	}
}

func filtersOf(batch []*interest) []mqtt.Filter {
	filters := make([]mqtt.Filter, len(batch))
	for n, i := range batch {
		filters[n] = i.filter
	}
	return filters
}
