package upstream

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// publisher owns one of the connections on which the gateway publishes for others.
type publisher struct {
	u    *Upstream
	line int // its place among them, from 0
	link *link

	lane atomic.Pointer[lane] // nil while down

	lost      time.Time // when the last session ended; the link's goroutine's own, as is
	condemned error     // why
}

func newPublisher(u *Upstream, line int) *publisher {
	p := &publisher{u: u, line: line}
	p.link = &link{u: u, role: rolePublish, hurry: make(chan struct{}, 1), log: u.o.Logger, up: p.up, down: p.down, check: p.check}
	if line > 0 {
		p.link.suffix = strconv.Itoa(line + 1)
	}
	p.link.handle = func(*session, paho.Message) {} // it subscribes to nothing
	return p
}

func (p *publisher) up(s *session) {
	l := s.conn.lane
	go l.write() // close waits for it
	p.lane.Store(l)
	p.u.o.PublishLink(p.line, true, !p.lost.IsZero() && brokerEnded(p.condemned) && p.u.stoodSince(p.lost))
}

func (p *publisher) down(s *session) {
	p.lane.Store(nil)
	p.lost, p.condemned = time.Now(), s.conn.cause
	select {
	case <-s.conn.ended:
	default: // we are stopping
		p.condemned = errClosed
	}
	s.conn.lane.close(p.condemned)
	p.u.o.PublishLink(p.line, false, false)
}

// check condemns a connection with a publish that the broker will not answer any
// more: its packet identifier would never come free.
func (p *publisher) check(s *session) error { return s.conn.lane.stuck(p.u.overdue) }

// stoodSince reports whether another connection has been up since before t: the
// broker was there all the time.
func (u *Upstream) stoodSince(t time.Time) bool {
	for _, l := range u.links {
		if s := l.current.Load(); s != nil && !s.over() && s.began.Before(t) && s.conn.silence() <= u.patience() {
			return true
		}
	}
	return false
}

// unanswered is the current value of the inflight metric.
func (u *Upstream) unanswered() float64 {
	n := 0
	for _, p := range u.publishers {
		if l := p.lane.Load(); l != nil {
			n += l.flights()
		}
	}
	return float64(n)
}

// Lines is how many connections publish.
func (u *Upstream) Lines() int { return len(u.publishers) }

// Line is the connection that messages to topic take, from 0: always the same one,
// so that their order is kept.
func (u *Upstream) Line(topic mqtt.Topic) int {
	if len(u.publishers) == 1 {
		return 0
	}
	hash := uint32(2166136261) // FNV-1a
	for i := range len(topic) {
		hash = (hash ^ uint32(topic[i])) * 16777619
	}
	return int(hash % uint32(len(u.publishers))) //nolint:gosec // a handful
}

// Send hands m over and returns. completed is called once, when the broker has
// answered this very packet (for QoS 0: when it was written to the socket), or with
// an error when the connection has ended before; it must not block. Messages that
// one caller sends on one line are written in that order, and those that an ended
// connection leaves unanswered complete in it too, before the next connection is up.
// An error of Send itself means that m was not taken, and completed is not called.
//
// The errors are *fault.Error: UpstreamUnavailable, Overloaded and Draining mean
// that m was certainly not sent; UpstreamTimeout that it may or may not have
// been; InvalidTopic, TooLarge and BadRequest that it cannot be.
func (u *Upstream) Send(m mqtt.Message, completed func(mqtt.Delivery, error)) error {
	err := u.send(m, completed)
	if err != nil {
		u.metrics.publishes.WithLabelValues(string(fault.From(err).Code)).Inc()
	}
	return err
}

func (u *Upstream) send(m mqtt.Message, completed func(mqtt.Delivery, error)) error {
	if err := u.checkPublish(m); err != nil {
		return err
	}
	if err := u.begin(); err != nil {
		return err
	}
	p := u.publishers[u.Line(m.Topic)]
	l := p.lane.Load()
	if l == nil {
		u.calls.Done()
		return unavailable("the message was not sent", p.link.ready())
	}
	err := l.send(m, func(err error) {
		delivery, counter := mqtt.Acknowledged, u.metrics.acknowledged
		switch {
		case err != nil:
			delivery, counter = "", u.metrics.publishes.WithLabelValues(string(fault.From(err).Code))
		case m.QoS == 0:
			delivery, counter = mqtt.Sent, u.metrics.sent
		}
		counter.Inc()
		completed(delivery, err)
		u.calls.Done()
	})
	if err != nil {
		u.calls.Done()
	}
	return err
}

// Publish is Send and a wait for its end, or for ctx's, after which the outcome is
// unknown. The errors are Send's.
func (u *Upstream) Publish(ctx context.Context, m mqtt.Message) (mqtt.Delivery, error) {
	type outcome struct {
		delivery mqtt.Delivery
		err      error
	}
	ended := make(chan outcome, 1)
	if err := ctx.Err(); err != nil && !u.stopping() {
		return "", fault.New(fault.Overloaded, "the broker connection did not take the message in time; it was not sent").Retry(time.Second).Because(err)
	}
	if err := u.Send(m, func(d mqtt.Delivery, err error) { ended <- outcome{d, err} }); err != nil {
		return "", err
	}
	select {
	case o := <-ended:
		return o.delivery, o.err
	case <-ctx.Done():
		return "", fault.New(fault.UpstreamTimeout, "the broker did not answer; whether it has the message is unknown").Because(ctx.Err())
	}
}

// checkPublish holds m to what MQTT can carry. Callers have checked more than
// that; this is what would otherwise be cut silently or break the connection.
func (u *Upstream) checkPublish(m mqtt.Message) error {
	switch {
	case m.Topic == "" || len(m.Topic) > mqtt.MaxBytes:
		return fault.New(fault.InvalidTopic, "a topic has 1 to %d bytes, not %d", mqtt.MaxBytes, len(m.Topic))
	case unfit(string(m.Topic)):
		return fault.New(fault.InvalidTopic, "the topic holds a wildcard or NUL, or is under %q, which is the gateway's own", reserved)
	case len(m.Payload) > maxRemaining-4-len(m.Topic): // two bytes each for the topic's length and the packet identifier
		return fault.New(fault.TooLarge, "the message has %d bytes, more than MQTT can carry", len(m.Payload))
	case m.QoS > 2:
		return fault.New(fault.BadRequest, "qos must be 0, 1 or 2, not %d", m.QoS)
	case m.QoS > u.profile.maxQoS: // it would get no answer at all
		return fault.New(fault.BadRequest, "the broker takes a qos of at most %d", u.profile.maxQoS)
	}
	return nil
}
