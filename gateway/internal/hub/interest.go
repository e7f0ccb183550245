package hub

import (
	"context"
	"errors"
	"slices"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// subscribeQoS is the QoS of every upstream subscription. Some brokers use the
// lower QoS where two subscriptions of a client overlap, and the barrier of a
// snapshot must not overtake live messages, so all have the same. QoS 2 is not
// asked for: it would be delivered at least once all the same.
const subscribeQoS mqtt.QoS = 1

// batchFilters is how many filters go into one SUBSCRIBE or UNSUBSCRIBE.
const batchFilters = 64

// retryPause is the wait after a call for subscriptions failed.
const retryPause = 100 * time.Millisecond

// interest is a filter that somebody wants. Its fields are guarded by Hub.mu.
type interest struct {
	filter mqtt.Filter
	// subscribers is shared with running deliveries: appended to, or replaced,
	// never changed in place.
	subscribers []Subscriber
	verdict     error         // the broker's answer, once decided is closed
	decided     chan struct{} // closed while the present connection's answer is known
	known       bool
}

func newInterest(f mqtt.Filter) *interest {
	return &interest{filter: f, decided: make(chan struct{})}
}

func (i *interest) appendTo(into [][]Subscriber) [][]Subscriber {
	if i == nil || len(i.subscribers) == 0 {
		return into
	}
	return append(into, i.subscribers)
}

func (i *interest) decide(verdict error) {
	if !i.known {
		i.verdict, i.known = verdict, true
		close(i.decided)
	}
}

// forget makes the verdict unknown again: the connection that gave it is gone.
func (i *interest) forget() {
	if i.known {
		i.verdict, i.known, i.decided = nil, false, make(chan struct{})
	}
}

// Subscribe attaches s to filters. From the moment of the call every live message
// that matches one of them is delivered to s; Subscribe returns when the broker
// has answered for each filter, with nil where it granted. A filter with an error
// is detached again, if this call attached it; while the connection is down nothing is
// attached. Subscribing to a filter that s has already changes nothing
// and waits for its verdict.
// mark is the position of the attachment: later messages are delivered.
func (h *Hub) Subscribe(ctx context.Context, s Subscriber, filters []mqtt.Filter) (mark uint64, errs []error) {
	h.mu.Lock()
	mark = h.seq.Load()
	if !h.up {
		h.mu.Unlock()
		return mark, slices.Repeat([]error{fault.New(fault.UpstreamUnavailable, "the broker connection is down").Retry(time.Second)}, len(filters))
	}
	mine := h.subscribers[s]
	if mine == nil {
		mine = map[mqtt.Filter]struct{}{}
		h.subscribers[s] = mine
	}
	added := map[mqtt.Filter]bool{}
	for _, f := range filters {
		if _, has := mine[f]; has {
			continue
		}
		mine[f] = struct{}{}
		added[f] = true
		i := h.interests[f]
		if i == nil {
			i = newInterest(f)
			h.interests[f] = i
			h.tree.insert(i)
			h.dirty[f] = struct{}{}
		}
		i.subscribers = append(i.subscribers, s)
	}
	h.mu.Unlock()
	h.poke()

	errs = make([]error, len(filters))
	ctx, cancel := context.WithTimeout(ctx, h.options.Timeout)
	defer cancel()
	for n, f := range filters {
		if errs[n] = h.Await(ctx, f); errs[n] != nil && added[f] {
			h.Unsubscribe(s, filters[n:n+1])
		}
	}
	return mark, errs
}

// Await waits for the broker's verdict on f, to which the caller is subscribed,
// over a reconnect if need be.
func (h *Hub) Await(ctx context.Context, f mqtt.Filter) error {
	for {
		h.mu.RLock()
		i := h.interests[f]
		if i == nil { // the subscriber left meanwhile
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
	for _, f := range filters {
		h.detach(s, f)
	}
	h.mu.Unlock()
	h.poke()
}

// Leave detaches s from everything.
func (h *Hub) Leave(s Subscriber) {
	h.mu.Lock()
	for f := range h.subscribers[s] {
		h.detach(s, f)
	}
	delete(h.subscribers, s)
	h.mu.Unlock()
	h.poke()
}

// detach needs Hub.mu.
func (h *Hub) detach(s Subscriber, f mqtt.Filter) {
	mine := h.subscribers[s]
	if _, has := mine[f]; !has {
		return
	}
	delete(mine, f)
	i := h.interests[f]
	rest := slices.Clone(i.subscribers)
	at := slices.Index(rest, s)
	last := len(rest) - 1
	rest[at] = rest[last]
	rest[last] = nil
	i.subscribers = rest[:last]
	if last == 0 {
		delete(h.interests, f)
		h.tree.remove(string(f))
		h.dirty[f] = struct{}{}
	}
}

// Run keeps the broker's subscriptions equal to what is wanted, until ctx is
// done. One goroutine does it, so a SUBSCRIBE and an UNSUBSCRIBE of the same
// filter cannot overtake each other. It returns after all snapshots have ended.
func (h *Hub) Run(ctx context.Context) error {
	defer h.snapshots.stop()
	h.snapshots.start(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.wake:
		}
		for h.reconcile(ctx) {
		}
	}
}

// reconcile sends one batch and reports whether there may be more to do.
func (h *Hub) reconcile(ctx context.Context) (more bool) {
	connection, add, drop := h.difference()
	if len(add)+len(drop) == 0 || ctx.Err() != nil {
		return false
	}
	if len(add) > 0 {
		h.add(ctx, connection, add)
	}
	if len(drop) > 0 {
		limited, cancel := context.WithTimeout(ctx, h.options.Timeout)
		defer cancel()
		if err := h.source.Unsubscribe(limited, drop); err != nil {
			h.redo(ctx, connection, drop, err)
		}
	}
	return true
}

// add subscribes to filters, each call with a time of its own: a broker that is
// slow to answer one must not starve the other.
func (h *Hub) add(ctx context.Context, connection uint64, filters []mqtt.Filter) {
	limited, cancel := context.WithTimeout(ctx, h.options.Timeout)
	defer cancel()
	verdicts, err := h.source.Subscribe(limited, filters, subscribeQoS)
	if err != nil {
		h.redo(ctx, connection, filters, err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.connection != connection {
		return // the answers are of a connection that is gone; Link marked all dirty
	}
	for n, f := range filters {
		if verdicts[n] == nil {
			h.held[f] = true
		} else {
			delete(h.held, f)
			h.log.Warn("the broker refused a subscription", "filter", f, "err", verdicts[n])
		}
		if i := h.interests[f]; i != nil { // else the last one left meanwhile, which made f dirty again
			i.decide(verdicts[n])
		}
	}
}

// difference takes up to a batch of filters to subscribe to and to unsubscribe
// from.
func (h *Hub) difference() (connection uint64, add, drop []mqtt.Filter) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.up {
		return h.connection, nil, nil
	}
	for f := range h.dirty {
		if len(add) == batchFilters || len(drop) == batchFilters {
			break
		}
		delete(h.dirty, f)
		i := h.interests[f]
		sure, held := h.held[f]
		switch {
		case i != nil && sure:
			i.decide(nil)
		case i != nil && !i.known:
			add = append(add, f)
		case i == nil && held:
			delete(h.held, f)
			drop = append(drop, f)
		}
	}
	return h.connection, add, drop
}

// redo puts filters back after a failed call and waits a little, unless the
// connection is gone anyway.
func (h *Hub) redo(ctx context.Context, connection uint64, filters []mqtt.Filter, err error) {
	h.mu.Lock()
	same := h.connection == connection
	for _, f := range filters {
		h.dirty[f] = struct{}{}
		if same {
			h.held[f] = false // nobody knows whether the call took effect
		}
	}
	h.mu.Unlock()
	if !same || errors.Is(ctx.Err(), context.Canceled) { // the connection, or the hub, is at its end
		return
	}
	h.log.Warn("the broker did not answer a subscription change", "filters", len(filters), "err", err)
	_ = pause(ctx, retryPause)
}
