package upstream

import (
	"context"
	"errors"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// Some brokers deliver a message once for each of a client's subscriptions that
// match it (3.1.1 section 3.3.5 allows both). Which copy came for which
// subscription cannot be told in 3.1.1, so the live subscriptions are spread over
// several connections (legs) such that no two on one leg overlap. Then a message
// comes to a leg at most once, and the owner rule picks one leg for each topic:
//
//   - the owner of a topic is the oldest subscription that matches it;
//   - a message is delivered if it came on the leg of its topic's owner, and is
//     dropped as a copy otherwise.
//
// A new subscription is the youngest, so it changes the owner of no topic that had
// one. When an owner ends, what it shares with others passes to their legs. For
// that a marker goes to all legs: a leg keeps to the old owners before the marker and
// to the new ones behind it. What a leg has behind it is held until all legs have
// the marker, so that nothing overtakes what the old owner's leg still delivers. Only
// then the subscription is ended at the broker.
//
// Why it is right, for a broker that hands out messages and marker in one order:
// each message is before the marker on all legs or behind it on all. Before it,
// exactly the old owner's leg delivers it, behind it exactly the new one's, and all
// deliveries of the first kind come before those of the second.
//
// Limits. A broker whose clients are served side by side may put a message that is
// published in the very moment of the marker before it on one leg and behind it on
// another; in that moment a message may come twice or not at all. A filter that
// overlaps others on all legs is refused. When the outcome of a change is not known,
// or one leg is lost, all legs are made anew, and everybody is told a gap.

// maxHeld bounds what legs hold during a handover, in messages and in bytes.
const (
	maxHeld      = 100_000
	maxHeldBytes = 64 << 20
)

// take delivers what came on g, if g is the owner's leg, or holds it. Needs turn.
func (g *leg) take(s *session, a arrival) {
	l := g.l
	if l.handover > 0 && g.passed {
		g.held = append(g.held, a)
		g.bytes += len(a.message.Payload) + len(a.message.Topic)
		if len(g.held) > maxHeld || g.bytes > maxHeldBytes {
			s.conn.end(errors.New("too much came while a subscription was handed over"))
		}
		return
	}
	switch {
	case a.nonce != "":
		s.marker(a.nonce)
	case len(l.inUse()) == 1:
		l.deliver(a)
	default:
		if owner := l.subs.owner(a.message.Topic, !g.passed); owner != nil && owner.leg == g.n {
			l.deliver(a)
		} else {
			l.drop("copy")
		}
	}
}

// exclusive waits for the turn to change subscriptions; done gives it back.
func (l *live) exclusive(ctx context.Context) (done func(), err error) {
	select {
	case <-l.change:
		return func() { l.change <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, callFault(ctx.Err(), "subscriptions")
	}
}

// subscribe places each filter on a leg where it overlaps nothing and asks the
// broker there.
func (l *live) subscribe(ctx context.Context, sessions []*session, filters []mqtt.Filter, qos mqtt.QoS) ([]error, error) {
	done, err := l.exclusive(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	answers := make([]error, len(filters))
	perLeg, err := l.placeAll(sessions, filters, answers)
	if err != nil {
		return nil, err
	}
	for n, at := range perLeg {
		some := make([]mqtt.Filter, len(at))
		for i, k := range at {
			some[i] = filters[k]
		}
		of, err := l.u.subscribe(ctx, sessions[n], some, qos)
		if err != nil {
			endAll(sessions, err)
			return nil, err
		}
		for i, k := range at {
			answers[k] = of[i]
		}
	}
	l.turn.Lock()
	defer l.turn.Unlock()
	if !l.current(sessions) {
		return nil, unavailable("nothing was subscribed", errOtherLeg)
	}
	for k, f := range filters {
		if answers[k] != nil {
			l.subs.remove(f)
		}
	}
	return answers, nil
}

// placeAll chooses the legs of filters: the indices for each leg.
func (l *live) placeAll(sessions []*session, filters []mqtt.Filter, answers []error) (perLeg [maxLegs][]int, err error) {
	l.turn.Lock()
	defer l.turn.Unlock()
	if !l.current(sessions) {
		return perLeg, unavailable("nothing was subscribed", errOtherLeg)
	}
	for k, f := range filters {
		e := l.subs.place(f, len(sessions))
		if e == nil {
			answers[k] = fault.New(fault.Overloaded, "the subscription to %q has no connection left: it overlaps others on all %d, or they are full", f, maxLegs)
			continue
		}
		perLeg[e.leg] = append(perLeg[e.leg], k)
	}
	return perLeg, nil
}

// current reports whether sessions are still those of the live side. Needs turn.
func (l *live) current(sessions []*session) bool {
	return l.open && l.legs[0].session == sessions[0]
}

// unsubscribe hands over what filters own and ends them.
func (l *live) unsubscribe(ctx context.Context, sessions []*session, filters []mqtt.Filter) error {
	done, err := l.exclusive(ctx)
	if err != nil {
		return err
	}
	defer done()
	perLeg, shared, err := l.retire(sessions, filters)
	if err != nil {
		return err
	}
	if shared {
		err = l.echo(ctx, sessions, l.pass, func() {})
	}
	for n, some := range perLeg {
		if err == nil && len(some) > 0 {
			err = l.u.unsubscribe(ctx, sessions[n], some)
		}
	}
	if err != nil {
		endAll(sessions, err)
		return callFault(err, "subscriptions")
	}
	l.turn.Lock()
	defer l.turn.Unlock()
	if !l.current(sessions) {
		return unavailable("nothing was unsubscribed", errOtherLeg)
	}
	for _, f := range filters {
		l.subs.remove(f)
	}
	for _, g := range l.inUse() {
		g.passed = false
	}
	return nil
}

// retire notes that filters are being ended, and reports whether that needs a
// handover, which then begins.
func (l *live) retire(sessions []*session, filters []mqtt.Filter) (perLeg [maxLegs][]mqtt.Filter, shared bool, err error) {
	l.turn.Lock()
	defer l.turn.Unlock()
	if !l.current(sessions) {
		return perLeg, false, unavailable("nothing was unsubscribed", errOtherLeg)
	}
	for _, f := range filters {
		if e := l.subs.entries[f]; e != nil {
			e.retiring = true
			perLeg[e.leg] = append(perLeg[e.leg], f)
		}
	}
	for _, some := range perLeg {
		for _, f := range some {
			shared = shared || l.subs.shared(f)
		}
	}
	if shared {
		l.handover = len(sessions)
	}
	return perLeg, shared, nil
}

// pass notes that a leg has the handover's marker; the last one releases what the
// others held. Needs turn.
func (l *live) pass(n int) {
	l.legs[n].passed = true
	if l.handover--; l.handover > 0 {
		return
	}
	for _, g := range l.inUse() {
		held := g.held
		g.held, g.bytes = nil, 0
		for _, a := range held {
			g.take(g.session, a)
		}
	}
}
