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

	mu      sync.Mutex // guards the following
	waiting map[mqtt.Filter]*round
	queue   []*round // the same, in order of arrival
	stopped bool
	taking  *round // the round whose messages come in
}

// round is one SUBSCRIBE, barrier, UNSUBSCRIBE, for all who asked in time.
type round struct {
	filter  mqtt.Filter
	callers int // guarded by snapshots.mu

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
	q := &snapshots{u: u, wake: make(chan struct{}, 1), arrived: make(chan struct{}, 1), waiting: make(map[mqtt.Filter]*round)}
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
// Rounds run one at a time; calls for one filter that has not had its turn yet
// share a round, so each sees the broker's state as of after its call.
func (u *Upstream) Retained(ctx context.Context, filter mqtt.Filter) (messages []mqtt.Message, complete bool, err error) {
	q := u.snapshot
	if q.link.current.Load() == nil && u.live.link.current.Load() == nil {
		return nil, false, unavailable("there is no snapshot", q.link.ready())
	}
	r, err := q.join(filter)
	if err != nil {
		return nil, false, err
	}
	defer q.leave(r)
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
		r = &round{filter: filter, index: make(map[mqtt.Topic]int), done: make(chan struct{})}
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

// next takes the oldest round that somebody still waits for.
func (q *snapshots) next() *round {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.queue) > 0 {
		r := q.queue[0]
		q.queue = slices.Delete(q.queue, 0, 1)
		delete(q.waiting, r.filter)
		if r.callers > 0 {
			return r
		}
	}
	return nil
}

// run does the rounds until ctx is done, then fails those that wait.
func (q *snapshots) run(ctx context.Context) {
	for ctx.Err() == nil {
		r := q.next()
		if r == nil {
			select {
			case <-q.wake:
			case <-ctx.Done():
			}
			continue
		}
		q.do(ctx, r)
	}
	q.mu.Lock()
	q.stopped = true
	q.mu.Unlock()
	for r := q.next(); r != nil; r = q.next() {
		r.err = unavailable("the gateway is shutting down", nil)
		close(r.done)
	}
}

// do runs one round and says how it ended.
func (q *snapshots) do(ctx context.Context, r *round) {
	s := q.session(ctx)
	if s == nil {
		r.err = unavailable("there is no snapshot", q.link.ready())
		q.finish(r)
		return
	}
	limited, cancel := context.WithTimeout(ctx, barrierLimit)
	defer cancel()
	err := q.collect(limited, s, r)
	switch {
	case err == nil:
		r.complete = !r.capped && !r.lacking
	// err itself does not tell whose limit it speaks of: it may hold what another
	// round ended the connection for.
	case !s.over() && errors.Is(limited.Err(), context.DeadlineExceeded):
		// What is still under way for this round must not get into the next one.
		s.conn.end(fmt.Errorf("a snapshot did not end within %s", barrierLimit))
	default:
		r.messages, r.err = nil, roundFault(err)
	}
	q.finish(r)
	if err == nil {
		q.unsubscribe(ctx, s, r.filter)
	}
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
		if q.u.live.link.current.Load() == nil {
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

func (q *snapshots) finish(r *round) {
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

// collect sends SUBSCRIBE and, without waiting, the barrier behind it: a broker
// handles a connection's packets in order, so the marker comes back after the
// retained messages. That is so beyond a cap too: to hang up there would cost
// everybody the connection whenever somebody asks for much.
func (q *snapshots) collect(ctx context.Context, s *session, r *round) error {
	q.take(r)
	defer q.take(nil)
	wanted := make(map[string]byte)
	for _, f := range withParent(r.filter) {
		wanted[f] = 0
	}
	o, err := s.hand(ctx, func(c paho.Client) paho.Token { return c.SubscribeMultiple(wanted, nil) })
	if err != nil {
		return err
	}
	if err := s.echo(ctx, q.u.barrierTopic(roleSnapshot), 0, func() {}); err != nil {
		return err
	}
	token, err := s.await(ctx, o)
	if err != nil {
		return err
	}
	return subscribeFault(r.filter, token.(*paho.SubscribeToken).Result())
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

// take makes r (or none) the round whose messages come in.
func (q *snapshots) take(r *round) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taking = r
}

// unsubscribe ends the round's subscription before the next one begins. A broker
// that does not answer loses the connection, and with it the subscription.
func (q *snapshots) unsubscribe(ctx context.Context, s *session, filter mqtt.Filter) {
	limited, cancel := context.WithTimeout(ctx, barrierLimit)
	defer cancel()
	_, err := s.place(limited, func(c paho.Client) paho.Token { return c.Unsubscribe(withParent(filter)...) })
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
	r := q.taking
	if r == nil || s != q.link.current.Load() || !r.filter.Matches(mqtt.Topic(topic)) {
		return
	}
	if large {
		r.lacking = true
	} else {
		r.add(received(topic, m.Payload(), m.Qos(), true), q.u.o.SnapshotMessages, q.u.o.SnapshotBytes)
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
