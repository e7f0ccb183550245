package upstream

import (
	"context"
	"errors"
	"fmt"
	"sync"

	paho "github.com/eclipse/paho.mqtt.golang"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// live owns the connection that holds the shared subscriptions.
type live struct {
	u    *Upstream
	link *link

	// turn is held through each Deliver, Link, Missed and reached, so that none runs
	// concurrently with another and none of an ended session's comes late.
	// Callbacks under a lock are against the house's habit; here their order is the
	// lock's whole purpose, and they may not call back. It guards the following.
	turn sync.Mutex
	open *session // between Link(true) and Link(false)
}

func newLive(u *Upstream) *live {
	l := &live{u: u}
	l.link = &link{u: u, role: roleLive, hurry: make(chan struct{}, 1), log: u.o.Logger, handle: l.handle, up: l.up, down: l.down}
	l.link.prepare = func(ctx context.Context, s *session) error { return u.selfTest(ctx, s, roleLive, 1) }
	return l
}

func (l *live) up(s *session) {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.open = s
	l.link.current.Store(s) // before Link: who hears of the connection may use it
	l.u.o.Link(true)
}

func (l *live) down(s *session) {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.open = nil
	s.dropMarkers()
	l.u.o.Link(false)
}

// handle runs on the library's goroutine, which also reads: it must not wait.
func (l *live) handle(s *session, m paho.Message) {
	l.turn.Lock()
	defer l.turn.Unlock()
	topic := m.Topic()
	switch {
	case topic == l.u.barrierTopic(roleLive):
		s.marker(string(m.Payload()))
	case topic == tooLarge:
		l.drop("too_large")
		// Whether it was retained matters as below.
		if missed := string(m.Payload()); l.open == s && !m.Retained() && !unfit(missed) {
			l.u.o.Missed(mqtt.Topic(missed))
		}
	case unfit(topic):
		l.drop("unfit")
	case m.Retained():
		// Retained state comes here only because of our own (re)subscribing: a live
		// message on an existing subscription has retain 0 (3.1.1 section 3.3.1.3).
		l.drop("retained")
	case l.open != s:
		l.drop("stale")
	default:
		l.u.o.Deliver(received(topic, m.Payload(), m.Qos(), false))
	}
}

func (l *live) drop(reason string) { l.u.metrics.dropped.WithLabelValues(reason).Inc() }

// selfTest subscribes a fresh session to its own barrier topic and sends one
// marker round: a broker whose rules do not allow that would look like one that
// never answers, and is better told apart now.
func (u *Upstream) selfTest(ctx context.Context, s *session, r role, qos mqtt.QoS) error {
	topic := u.barrierTopic(r)
	answers, err := u.subscribe(ctx, s, []mqtt.Filter{mqtt.Filter(topic)}, qos)
	if err == nil {
		err = answers[0]
	}
	if err == nil {
		err = s.echo(ctx, topic, qos, func() {})
	}
	if err != nil {
		select {
		case <-s.conn.ended:
			return s.conn.cause
		default:
		}
		return fmt.Errorf("the broker does not let this user publish and subscribe to %s#: %w", reserved, err)
	}
	return nil
}

// Filters of one SUBSCRIBE or UNSUBSCRIBE packet: few enough for brokers that
// bound packets, many enough that thousands of filters are soon back.
const (
	filtersPerPacket = 100
	bytesPerPacket   = 32 << 10
)

// Subscribe subscribes the live connection to filters, at QoS 1 if qos is more.
// The first result has an entry per filter: nil when granted, a *fault.Error
// NotAuthorized when the broker refused it. The second is set, and the first nil,
// when the outcome is not known for all: UpstreamUnavailable or UpstreamTimeout.
func (u *Upstream) Subscribe(ctx context.Context, filters []mqtt.Filter, qos mqtt.QoS) ([]error, error) {
	s := u.live.link.current.Load()
	if s == nil {
		return nil, unavailable("nothing was subscribed", u.live.link.ready())
	}
	answers, err := u.subscribe(ctx, s, filters, min(qos, 1))
	if err != nil {
		return nil, err
	}
	for _, answer := range answers {
		outcome := "granted"
		if answer != nil {
			outcome = "refused"
		}
		u.metrics.subscriptions.WithLabelValues(outcome).Inc()
	}
	return answers, nil
}

func (u *Upstream) subscribe(ctx context.Context, s *session, filters []mqtt.Filter, qos mqtt.QoS) ([]error, error) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	answers := make([]error, 0, len(filters))
	for len(filters) > 0 {
		n := packetful(filters)
		wanted := make(map[string]byte, n)
		for _, f := range filters[:n] {
			wanted[string(f)] = byte(qos)
		}
		token, err := s.place(ctx, func(c paho.Client) paho.Token { return c.SubscribeMultiple(wanted, nil) })
		if err != nil {
			return nil, callFault(err, "subscriptions")
		}
		granted := token.(*paho.SubscribeToken).Result()
		for _, f := range filters[:n] {
			answers = append(answers, subscribeFault(f, granted))
		}
		filters = filters[n:]
	}
	return answers, nil
}

// subscribeFault reads f's return code (3.1.1 section 3.9.3).
func subscribeFault(f mqtt.Filter, granted map[string]byte) error {
	if code, answered := granted[string(f)]; answered && code <= 2 {
		return nil
	}
	return fault.New(fault.NotAuthorized, "the broker refused the subscription to %q", string(f))
}

// packetful is how many of filters, at least one, go into one packet.
func packetful(filters []mqtt.Filter) int {
	size := 0
	for i, f := range filters {
		size += len(f) + 3
		if i > 0 && (i == filtersPerPacket || size > bytesPerPacket) {
			return i
		}
	}
	return len(filters)
}

// callFault is the failure of a whole SUBSCRIBE or UNSUBSCRIBE.
func callFault(err error, what string) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fault.New(fault.UpstreamTimeout, "the broker did not confirm the %s in time", what).Because(err)
	}
	return unavailable("the "+what+" did not change", err)
}

// Unsubscribe ends subscriptions of the live connection; filters that it does not
// hold do no harm. The error is UpstreamUnavailable or UpstreamTimeout.
func (u *Upstream) Unsubscribe(ctx context.Context, filters []mqtt.Filter) error {
	s := u.live.link.current.Load()
	if s == nil {
		return unavailable("nothing was unsubscribed", u.live.link.ready())
	}
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	for len(filters) > 0 {
		n := packetful(filters)
		topics := make([]string, n)
		for i, f := range filters[:n] {
			topics[i] = string(f)
		}
		if _, err := s.place(ctx, func(c paho.Client) paho.Token { return c.Unsubscribe(topics...) }); err != nil {
			return callFault(err, "subscriptions")
		}
		filters = filters[n:]
	}
	return nil
}

// Barrier sends a QoS 1 marker through the broker to the live connection and
// returns when it is back, after reached was called in order with Deliver: what
// the broker had for this connection before the marker has been delivered. If it
// returns an error, ctx's or UpstreamUnavailable, reached was not called and
// will not be.
func (u *Upstream) Barrier(ctx context.Context, reached func()) error {
	s := u.live.link.current.Load()
	if s == nil {
		return unavailable("no marker was sent", u.live.link.ready())
	}
	err := s.echo(ctx, u.barrierTopic(roleLive), 1, reached)
	if err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return err
	}
	return unavailable("the marker did not come back", err)
}
