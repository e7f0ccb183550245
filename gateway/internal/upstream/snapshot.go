package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// snapshots owns the connection that collects retained messages. It is apart
// from the live one because a SUBSCRIBE makes the broker send the whole retained
// set to the whole connection, and at QoS 0 throughout because a QoS 1 replay is
// cut short by brokers' queue limits and overtaken by a QoS 0 marker.
type snapshots struct {
	u       *Upstream
	link    *link
	wake    chan struct{} // holds one token while rounds may be waiting
	arrived chan struct{} // holds one token when the connection has come
	limit   time.Duration // of one round

	mu      sync.Mutex // guards the following
	waiting map[mqtt.Filter]*round
	queue   []*round // the same, in order of arrival
	stopped bool
	taking  []*round  // the rounds whose messages come in
	latest  time.Time // when the last retained message came
}

// round is one filter's part of a SUBSCRIBE, barrier, UNSUBSCRIBE, for all who
// asked in time. Rounds that wait share these packets, so that many filters cost
// the broker few; a round that did not end in company is taken again alone.
type round struct {
	filter  mqtt.Filter
	callers int // guarded by snapshots.mu
	alone   bool

	begun chan struct{} // closed when at is set
	at    time.Time     // just before the SUBSCRIBE

	// Guarded by snapshots.mu while the round is taking, then frozen.
	messages []mqtt.Message
	index    map[mqtt.Topic]int
	bytes    int
	capped   bool // the caps are reached: nothing more is kept
	lacking  bool // a message was larger than Options.MaxPacket

	done     chan struct{} // closed when the following are set
	complete bool
	err      error
}

func newSnapshots(u *Upstream) *snapshots {
	q := &snapshots{u: u, wake: make(chan struct{}, 1), arrived: make(chan struct{}, 1), limit: barrierLimit, waiting: make(map[mqtt.Filter]*round)}
	q.link = &link{u: u, role: roleSnapshot, hurry: make(chan struct{}, 1), log: u.o.Logger, handle: q.handle}
	q.link.up = func(s *session) {
		q.link.current.Store(s)
		select {
		case q.arrived <- struct{}{}:
		default:
		}
	}
	q.link.prepare = func(ctx context.Context, s *session) error { return u.selfTest(ctx, s, roleSnapshot, 0) }
	return q
}

// Retained collects the retained messages that match filter. complete is false
// when a cap was hit, a message was larger than Options.MaxPacket, or the broker
// did not finish within 5 s; messages then holds what was kept. The order is the
// broker's. The error is ctx's, or a *fault.Error: UpstreamUnavailable,
// NotAuthorized when the broker refused the filter, Overloaded when too many other
// filters wait.
//
// Calls for one filter that has not had its turn yet share a round, so each sees
// the broker's state as of after its call.
func (u *Upstream) Retained(ctx context.Context, filter mqtt.Filter) (messages []mqtt.Message, complete bool, err error) {
	return u.RetainedFrom(ctx, filter, func(time.Time) {})
}

// RetainedFrom is Retained, and calls begin, before it returns and at most once,
// with a time just before that at which the broker was asked.
func (u *Upstream) RetainedFrom(ctx context.Context, filter mqtt.Filter, begin func(time.Time)) (messages []mqtt.Message, complete bool, err error) {
	q := u.snapshot
	if q.link.current.Load() == nil && u.live.first().current.Load() == nil {
		return nil, false, unavailable("there is no snapshot", q.link.ready())
	}
	r, err := q.join(filter)
	if err != nil {
		return nil, false, err
	}
	defer q.leave(r)
	select {
	case <-r.begun:
		begin(r.at)
	case <-r.done: // it never began
	case <-ctx.Done():
	}
	select {
	case <-r.done:
		return slices.Clone(r.messages), r.complete, r.err
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

// join returns the waiting round for filter, a new one if there is none.
func (q *snapshots) join(filter mqtt.Filter) (*round, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped {
		return nil, unavailable("the gateway is shutting down", nil)
	}
	r := q.waiting[filter]
	if r == nil {
		if len(q.queue) >= snapshotQueue {
			return nil, fault.New(fault.Overloaded, "%d other snapshots are waiting", len(q.queue)).Retry(time.Second)
		}
		r = &round{filter: filter, index: make(map[mqtt.Topic]int), begun: make(chan struct{}), done: make(chan struct{})}
		q.waiting[filter] = r
		q.queue = append(q.queue, r)
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	r.callers++
	return r, nil
}

func (q *snapshots) leave(r *round) {
	q.mu.Lock()
	defer q.mu.Unlock()
	r.callers--
}

// next takes the oldest rounds that somebody still waits for, as many as may share
// their packets; none when nothing waits.
func (q *snapshots) next() (batch []*round) {
	q.mu.Lock()
	defer q.mu.Unlock()
	filters := 0
	for len(q.queue) > 0 {
		r := q.queue[0]
		filters += len(withParent(r.filter))
		if len(batch) > 0 && (r.alone || batch[0].alone || len(batch) == roundsTogether || filters > q.u.o.FiltersPerSubscribe) {
			break
		}
		q.queue = slices.Delete(q.queue, 0, 1)
		if q.waiting[r.filter] == r {
			delete(q.waiting, r.filter)
		}
		if r.callers > 0 {
			batch = append(batch, r)
		} else {
			filters -= len(withParent(r.filter))
		}
	}
	return batch
}

// run does the rounds until ctx is done, then fails those that wait.
func (q *snapshots) run(ctx context.Context) {
	for ctx.Err() == nil {
		batch := q.next()
		if batch == nil {
			select {
			case <-q.wake:
			case <-ctx.Done():
			}
			continue
		}
		q.do(ctx, batch)
	}
	q.mu.Lock()
	q.stopped = true
	q.mu.Unlock()
	for batch := q.next(); batch != nil; batch = q.next() {
		for _, r := range batch {
			r.err = unavailable("the gateway is shutting down", nil)
			close(r.done)
		}
	}
}

// do takes a batch of rounds and says how they ended.
func (q *snapshots) do(ctx context.Context, batch []*round) {
	s := q.session(ctx)
	if s == nil {
		q.finish(batch, unavailable("there is no snapshot", q.link.ready()))
		return
	}
	limited, cancel := context.WithTimeout(ctx, q.limit)
	defer cancel()
	answers, err := q.collect(limited, s, batch)
	switch {
	case err == nil:
		for n, r := range batch {
			if r.complete = !r.capped && !r.lacking; answers[n] != nil {
				r.messages, r.complete, r.err = nil, false, answers[n]
			}
		}
		q.finish(batch, nil)
		q.unsubscribe(ctx, s, batch)
	// err itself does not tell whose limit it speaks of: it may hold what another
	// round ended the connection for.
	case !s.over() && errors.Is(limited.Err(), context.DeadlineExceeded):
		// What is still under way for these rounds must not get into the next ones.
		s.conn.end(fmt.Errorf("a snapshot did not end within %s", q.limit))
		if len(batch) > 1 { // one of them was too much: the others shall not pay for it
			q.again(batch)
			return
		}
		q.finish(batch, nil)
	default:
		q.finish(batch, roundFault(err))
	}
}

// again puts rounds that did not end back, each to be taken alone.
func (q *snapshots) again(batch []*round) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range batch {
		r.alone, r.messages, r.bytes, r.capped, r.lacking = true, nil, 0, false, false
		clear(r.index)
	}
	q.queue = append(slices.Clone(batch), q.queue...)
}

// session is the connection for a round; nil: there is none. While the broker is
// there it is worth waiting for: the live connection may be back first, and a
// round without an end ends this one, which the link may not have noticed yet.
func (q *snapshots) session(ctx context.Context) *session {
	ctx, cancel := context.WithTimeout(ctx, linkPatience)
	defer cancel()
	for {
		if s := q.link.current.Load(); s != nil && !s.over() {
			return s
		}
		if q.u.live.first().current.Load() == nil {
			return nil
		}
		select {
		case <-q.arrived:
		case <-ctx.Done():
			return nil
		}
	}
}

func roundFault(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	return unavailable("the snapshot was cut off", err)
}

// finish ends rounds: with err, if it is not nil, or with what was collected.
func (q *snapshots) finish(batch []*round, err error) {
	for _, r := range batch {
		if err != nil {
			r.messages, r.err = nil, err
		}
		outcome := "complete"
		switch {
		case r.err != nil:
			outcome = "failed"
		case !r.complete:
			outcome = "partial"
		}
		q.u.metrics.snapshots.WithLabelValues(outcome).Inc()
		close(r.done)
	}
}

// collect sends SUBSCRIBE and, without waiting, the barrier behind it: a broker
// handles a connection's packets in order, so the marker comes back after the
// retained messages. That is so beyond a cap too: to hang up there would cost
// everybody the connection whenever somebody asks for much. answers has the
// broker's refusal, or nil, for each round.
func (q *snapshots) collect(ctx context.Context, s *session, batch []*round) (answers []error, err error) {
	if err := q.u.pace.Wait(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotTaken, err)
	}
	wanted := make(map[string]byte)
	for _, r := range batch {
		for _, f := range withParent(r.filter) {
			wanted[f] = 0
		}
	}
	q.take(batch)
	defer func() {
		q.take(nil)
		s.conn.shed.Store(false)
	}()
	o, err := s.hand(ctx, func(c paho.Client) paho.Token { return c.SubscribeMultiple(wanted, nil) })
	if err != nil {
		return nil, err
	}
	if err := s.echo(ctx, q.u.barrierTopic(roleSnapshot), 0, func() {}); err != nil {
		return nil, err
	}
	if err := q.quiet(ctx); err != nil {
		return nil, err
	}
	token, err := s.await(ctx, o)
	if err != nil {
		return nil, err
	}
	for _, r := range batch {
		answers = append(answers, subscribeFault(r.filter, token.(*paho.SubscribeToken).Result()))
	}
	return answers, nil
}

// quiet waits, behind the marker of a broker whose retained messages may come
// later, until none has come for a while.
func (q *snapshots) quiet(ctx context.Context) error {
	if !q.u.profile.lateRetained {
		return nil
	}
	begun := time.Now()
	for {
		q.mu.Lock()
		quiet := time.Since(q.latest)
		q.mu.Unlock()
		left := min(quietTime-min(quiet, time.Since(begun)), quietLimit-time.Since(begun))
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// withParent is what to subscribe to for f: "a/#" matches its parent "a" too (3.1.1
// section 4.7.1.2), but the embedded broker forgets that for retained messages. A
// message that comes twice is kept once.
func withParent(f mqtt.Filter) []string {
	if parent, deep := strings.CutSuffix(string(f), "/#"); deep && parent != "" {
		return []string{string(f), parent}
	}
	return []string{string(f)}
}

// take makes batch (or none) the rounds whose messages come in.
func (q *snapshots) take(batch []*round) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taking = batch
	now := time.Now()
	for _, r := range batch {
		if r.at.IsZero() {
			r.at = now
			close(r.begun)
		}
	}
}

// unsubscribe ends the rounds' subscriptions before the next ones begin. A broker
// that does not answer loses the connection, and with it the subscriptions.
func (q *snapshots) unsubscribe(ctx context.Context, s *session, batch []*round) {
	limited, cancel := context.WithTimeout(ctx, barrierLimit)
	defer cancel()
	var filters []string
	for _, r := range batch {
		filters = append(filters, withParent(r.filter)...)
	}
	_, err := s.place(limited, func(c paho.Client) paho.Token { return c.Unsubscribe(filters...) })
	if err != nil && ctx.Err() == nil { // when stopping, the session is ended politely
		s.conn.end(fmt.Errorf("ending a snapshot's subscription: %w", err))
	}
}

// handle runs on the library's goroutine; a snapshot reader that waits would make
// brokers drop what follows.
func (q *snapshots) handle(s *session, m paho.Message) {
	topic := m.Topic()
	if topic == q.u.barrierTopic(roleSnapshot) {
		s.marker(string(m.Payload()))
		return
	}
	if !m.Retained() { // live messages come too while subscribed
		return
	}
	large := topic == tooLarge
	if large {
		q.u.metrics.dropped.WithLabelValues("too_large").Inc()
		topic = string(m.Payload())
	}
	if unfit(topic) {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if s != q.link.current.Load() {
		return
	}
	q.latest = time.Now()
	full := !q.u.profile.lateRetained // or what comes later could not be waited for
	for _, r := range q.taking {
		switch {
		case !r.filter.Matches(mqtt.Topic(topic)):
		case large:
			r.lacking = true
		default:
			r.add(received(topic, m.Payload(), m.Qos(), true), q.u.o.SnapshotMessages, q.u.o.SnapshotBytes)
		}
		full = full && r.capped
	}
	if full && len(q.taking) > 0 { // the rest, which may be very much, costs next to nothing
		s.conn.shed.Store(true)
	}
}

// add keeps m, one message a topic, until a cap is reached.
func (r *round) add(m mqtt.Message, maxMessages, maxBytes int) {
	if at, known := r.index[m.Topic]; known {
		r.messages[at] = m
		return
	}
	size := len(m.Topic) + len(m.Payload)
	if r.capped || len(r.messages) >= maxMessages || r.bytes+size > maxBytes {
		r.capped = true
		return
	}
	r.bytes += size
	r.index[m.Topic] = len(r.messages)
	r.messages = append(r.messages, m)
}
