package upstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	paho "github.com/eclipse/paho.mqtt.golang"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// maxLegs is how many connections share the live subscriptions of a broker that
// sends a copy for each overlapping one: two to four for what is wanted, the rest for
// wider ones that take the place of narrower ones, while both are held.
const maxLegs = 6

// live owns the connections that hold the shared subscriptions: one leg for a broker
// that delivers once to a client, or maxLegs (handover.go says why).
type live struct {
	u    *Upstream
	legs []*leg
	many chan struct{} // closed when more than the first leg is needed

	change chan struct{} // holds a token while nobody changes subscriptions of several legs

	// turn is held through each Deliver, Link, Missed and reached, so that none runs
	// concurrently with another and none of an ended session's comes late.
	// Callbacks under a lock are against the house's habit; here their order is the
	// lock's whole purpose, and they may not call back. It guards the following, and
	// what legs say that it does.
	turn     sync.Mutex
	open     bool // between Link(true) and Link(false)
	subs     owners
	handover int // legs that do not have the handover's marker yet; 0: none is under way
}

// leg is one of the live connections.
type leg struct {
	l    *live
	n    int
	link *link

	// Guarded by live.turn.
	session *session // between up and down
	probed  int      // copies of the probe that came
	passed  bool     // it had the handover's marker: what retires owns nothing here any more
	held    []arrival
	bytes   int
}

func newLive(u *Upstream) *live {
	l := &live{u: u, many: make(chan struct{}), change: make(chan struct{}, 1)}
	l.subs.room = max(0, u.profile.filtersPerLeg-1) // one is the marker's
	l.subs.clear()
	l.change <- struct{}{}
	for n := range maxLegs {
		g := &leg{l: l, n: n}
		g.link = &link{u: u, role: roleLive, hurry: make(chan struct{}, 1), log: u.o.Logger, handle: g.handle, up: g.up, down: g.down, prepare: g.prepare}
		if n > 0 {
			g.link.suffix, g.link.needed = strconv.Itoa(n+1), l.many
		}
		l.legs = append(l.legs, g)
	}
	if u.profile.copies == copiesEach {
		close(l.many)
	}
	return l
}

// first is the leg that is always there.
func (l *live) first() *link { return l.legs[0].link }

// inUse are the legs that are needed.
func (l *live) inUse() []*leg {
	select {
	case <-l.many:
		return l.legs
	default:
		return l.legs[:1]
	}
}

// up makes the live side available once all legs are there.
func (g *leg) up(s *session) {
	l := g.l
	l.turn.Lock()
	defer l.turn.Unlock()
	g.session = s
	for _, g := range l.inUse() {
		if g.session == nil || g.session.over() {
			return
		}
	}
	l.open = true
	for _, g := range l.inUse() {
		g.link.current.Store(g.session) // before Link: who hears of the connection may use it
	}
	l.u.o.Link(true)
}

// down ends the whole live side: what one leg holds is no use without the others.
func (g *leg) down(s *session) {
	l := g.l
	l.turn.Lock()
	defer l.turn.Unlock()
	g.session = nil
	s.dropMarkers()
	if !l.open {
		return
	}
	l.open, l.handover = false, 0
	l.subs.clear()
	for _, other := range l.inUse() {
		other.passed, other.held, other.bytes = false, nil, 0
		if other != g && other.session != nil {
			other.session.conn.end(errOtherLeg)
		}
	}
	l.u.o.Link(false)
}

var errOtherLeg = errors.New("another of the live connections was lost")

// sessions are those of the legs in use; nil while the live side is down.
func (l *live) sessions() (all []*session) {
	l.turn.Lock()
	defer l.turn.Unlock()
	if !l.open {
		return nil
	}
	for _, g := range l.inUse() {
		if g.session == nil {
			return nil
		}
		all = append(all, g.session)
	}
	return all
}

// endAll makes all legs' connections anew: nobody knows what they hold.
func endAll(sessions []*session, cause error) {
	for _, s := range sessions {
		s.conn.end(fmt.Errorf("what the live connections hold is not known any more: %w", cause))
	}
}

// arrival is what a live connection brought.
type arrival struct {
	message mqtt.Message
	missed  bool   // it was too large: only its topic is known
	nonce   string // of a marker; then there is no message
}

// handle runs on the library's goroutine, which also reads: it must not wait.
func (g *leg) handle(s *session, m paho.Message) {
	l := g.l
	l.turn.Lock()
	defer l.turn.Unlock()
	topic := m.Topic()
	switch {
	case topic == l.u.barrierTopic(roleLive):
		g.take(s, arrival{nonce: string(m.Payload())})
	case topic == l.u.probeTopic():
		g.probed++
	case strings.HasPrefix(topic, controlPrefix):
		if l.u.o.Control != nil { // several copies do no harm
			l.u.o.Control(strings.TrimPrefix(topic, controlPrefix), m.Payload())
		}
	case topic == tooLarge:
		l.drop("too_large")
		// Whether it was retained matters as below.
		if missed := string(m.Payload()); g.session == s && l.open && !m.Retained() && !unfit(missed) {
			g.take(s, arrival{message: mqtt.Message{Topic: mqtt.Topic(missed)}, missed: true})
		}
	case unfit(topic):
		l.drop("unfit")
	case m.Retained():
		// Retained state comes here only because of our own (re)subscribing: a live
		// message on an existing subscription has retain 0 (3.1.1 section 3.3.1.3).
		l.drop("retained")
	case g.session != s || !l.open:
		l.drop("stale")
	default:
		g.take(s, arrival{message: received(topic, m.Payload(), m.Qos(), false)})
	}
}

// deliver hands out what came on the right leg. Needs turn.
func (l *live) deliver(a arrival) {
	if a.missed {
		l.u.o.Missed(a.message.Topic)
	} else {
		l.u.o.Deliver(a.message)
	}
}

func (l *live) drop(reason string) { l.u.metrics.dropped.WithLabelValues(reason).Inc() }

// bytesPerPacket bounds the filters of one SUBSCRIBE or UNSUBSCRIBE together.
const bytesPerPacket = 32 << 10

// Subscribe subscribes the live side to filters, at QoS 1 if qos is more.
// The first result has an entry per filter: nil when granted, a *fault.Error
// NotAuthorized when the broker refused it, Overloaded when it overlaps others in more
// ways than there are connections. The second is set, and the first nil,
// when the outcome is not known for all: UpstreamUnavailable or UpstreamTimeout.
func (u *Upstream) Subscribe(ctx context.Context, filters []mqtt.Filter, qos mqtt.QoS) ([]error, error) {
	sessions := u.live.sessions()
	if sessions == nil {
		return nil, unavailable("nothing was subscribed", u.live.ready())
	}
	var answers []error
	var err error
	if len(sessions) == 1 {
		answers, err = u.subscribe(ctx, sessions[0], filters, min(qos, 1))
	} else {
		answers, err = u.live.subscribe(ctx, sessions, filters, min(qos, 1))
	}
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
		n := u.packetful(filters)
		wanted := make(map[string]byte, n)
		for _, f := range filters[:n] {
			wanted[string(f)] = byte(qos)
		}
		if err := u.pace.Wait(ctx); err != nil {
			return nil, callFault(fmt.Errorf("%w: %w", context.DeadlineExceeded, err), "subscriptions")
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
func (u *Upstream) packetful(filters []mqtt.Filter) int {
	size := 0
	for i, f := range filters {
		size += len(f) + 3
		if i > 0 && (i == u.o.FiltersPerSubscribe || size > bytesPerPacket) {
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

// Unsubscribe ends subscriptions of the live side; filters that it does not
// hold do no harm. The error is UpstreamUnavailable or UpstreamTimeout.
func (u *Upstream) Unsubscribe(ctx context.Context, filters []mqtt.Filter) error {
	sessions := u.live.sessions()
	switch len(sessions) {
	case 0:
		return unavailable("nothing was unsubscribed", u.live.ready())
	case 1:
		return u.unsubscribe(ctx, sessions[0], filters)
	}
	return u.live.unsubscribe(ctx, sessions, filters)
}

func (u *Upstream) unsubscribe(ctx context.Context, s *session, filters []mqtt.Filter) error {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	for len(filters) > 0 {
		n := u.packetful(filters)
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

// Barrier sends a QoS 1 marker through the broker to the live connections and
// returns when it is back on all, after reached was called in order with Deliver: what
// the broker had for them before the marker has been delivered. If it
// returns an error, ctx's or UpstreamUnavailable, reached was not called and
// will not be.
func (u *Upstream) Barrier(ctx context.Context, reached func()) error {
	sessions := u.live.sessions()
	if sessions == nil {
		return unavailable("no marker was sent", u.live.ready())
	}
	err := u.live.echo(ctx, sessions, func(int) {}, reached)
	if err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return err
	}
	return unavailable("the marker did not come back", err)
}

// echo sends one marker and waits until all sessions have it. passed is called, in
// order with Deliver, for each leg that has it, and last behind the last one; if echo
// returns an error, last was not called and will not be.
func (l *live) echo(ctx context.Context, sessions []*session, passed func(leg int), last func()) error {
	nonce, all := randomHex(16), make(chan struct{})
	left, over := len(sessions), false // under turn
	for n, s := range sessions {
		if !s.expect(nonce, func() {
			if over {
				return
			}
			passed(n)
			if left--; left == 0 {
				last()
				close(all)
			}
		}) {
			return fmt.Errorf("%w: the connection ended", errNotTaken)
		}
		defer s.forget(nonce)
	}
	_, err := sessions[0].hand(ctx, func(c paho.Client) paho.Token {
		return c.Publish(l.u.barrierTopic(roleLive), 1, false, []byte(nonce))
	})
	if err == nil {
		err = await(ctx, sessions, all)
	}
	l.turn.Lock()
	defer l.turn.Unlock()
	if left == 0 { // it was just coming in
		return nil
	}
	over = true
	return err
}

// await waits for done, the end of ctx or that of a session.
func await(ctx context.Context, sessions []*session, done <-chan struct{}) error {
	var ended [maxLegs]<-chan struct{}
	for n, s := range sessions {
		ended[n] = s.conn.ended
	}
	n := 0
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-ended[0]:
	case <-ended[1]:
		n = 1
	case <-ended[2]:
		n = 2
	case <-ended[3]:
		n = 3
	case <-ended[4]:
		n = 4
	case <-ended[5]:
		n = 5
	}
	return sessions[n].conn.cause
}

// ready is nil when all live connections in use are.
func (l *live) ready() error {
	var errs []error
	for _, g := range l.inUse() {
		errs = append(errs, g.link.ready())
	}
	return errors.Join(errs...)
}
