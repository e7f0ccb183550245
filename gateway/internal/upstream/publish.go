package upstream

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// publisher owns the connection on which the gateway publishes for others.
type publisher struct {
	u    *Upstream
	link *link

	load atomic.Pointer[inflight] // of the current session
}

// inflight counts the publishes of one session that the broker has not answered,
// also those whose callers have left: their packet identifiers are in use.
type inflight struct {
	s    *session
	n    atomic.Int64
	full atomic.Bool // a publish was refused since the last check
}

func newPublisher(u *Upstream) *publisher {
	p := &publisher{u: u}
	p.link = &link{u: u, role: rolePublish, hurry: make(chan struct{}, 1), log: u.o.Logger, up: p.up, down: p.down, check: p.check}
	p.link.handle = func(*session, paho.Message) {} // it subscribes to nothing
	return p
}

func (p *publisher) up(s *session) {
	load := &inflight{s: s}
	s.conn.track.settled = func() { load.n.Add(-1) } // nothing has been published on s yet
	p.load.Store(load)
}

func (p *publisher) down(*session) { p.load.Store(nil) }

// unanswered is the current value of the inflight metric.
func (p *publisher) unanswered() float64 {
	if load := p.load.Load(); load != nil {
		return float64(load.n.Load())
	}
	return 0
}

// check condemns a connection that is full of publishes which the broker does
// not answer: their packet identifiers would never come free.
func (p *publisher) check(s *session) error {
	load := p.load.Load()
	if load == nil || !load.full.Swap(false) {
		return nil
	}
	if oldest := s.conn.track.oldest(); !oldest.IsZero() && time.Since(oldest) > p.u.overdue {
		return fmt.Errorf("%d publishes wait for the broker's answer, the oldest for %s", load.n.Load(), time.Since(oldest).Round(time.Second))
	}
	return nil
}

// take counts a publish in.
func (p *publisher) take(load *inflight) error {
	if load.n.Add(1) > int64(p.u.o.MaxInflight) {
		load.n.Add(-1)
		load.full.Store(true)
		return fault.New(fault.Overloaded, "%d messages wait for the broker's answer; this one was not sent", p.u.o.MaxInflight).Retry(time.Second)
	}
	return nil
}

// Publish sends m and waits for exactly one of: the broker's answer to this very
// packet (or for QoS 0 that it was written to the socket), ctx, the end of the
// connection. It never sends a message twice.
//
// The error is a *fault.Error: UpstreamUnavailable, Overloaded and Draining mean
// that m was certainly not sent; UpstreamTimeout that it may or may not have
// been; InvalidTopic and TooLarge that it cannot be.
func (u *Upstream) Publish(ctx context.Context, m mqtt.Message) (mqtt.Delivery, error) {
	delivery, err := u.tryPublish(ctx, m)
	outcome := string(delivery)
	if err != nil {
		outcome = string(fault.From(err).Code)
	}
	u.metrics.publishes.WithLabelValues(outcome).Inc()
	return delivery, err
}

func (u *Upstream) tryPublish(ctx context.Context, m mqtt.Message) (mqtt.Delivery, error) {
	if err := checkPublish(m); err != nil {
		return "", err
	}
	if err := u.begin(); err != nil {
		return "", err
	}
	defer u.calls.Done()
	p := u.publish
	load := p.load.Load()
	if load == nil {
		return "", unavailable("the message was not sent", p.link.ready())
	}
	if err := p.take(load); err != nil {
		return "", err
	}
	_, err := load.s.place(ctx, func(c paho.Client) paho.Token {
		token := c.Publish(string(m.Topic), byte(m.QoS), m.Retain, m.Payload)
		if refusedByClient(token) {
			load.n.Add(-1)
		}
		return token
	})
	switch {
	case err == nil && m.QoS == 0:
		return mqtt.Sent, nil
	case err == nil:
		return mqtt.Acknowledged, nil
	case errors.Is(err, errNotTaken):
		load.n.Add(-1)
	}
	return "", publishFault(ctx, err)
}

// publishFault says what err means for the message.
func publishFault(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, errNotTaken) && ctx.Err() != nil:
		return fault.New(fault.Overloaded, "the broker connection did not take the message in time; it was not sent").Retry(time.Second).Because(err)
	case errors.Is(err, errNotTaken), errors.Is(err, paho.ErrNotConnected):
		return unavailable("the message was not sent", err)
	case clientIsFull(err):
		return fault.New(fault.Overloaded, "the broker connection takes no more messages; this one was not sent").Retry(time.Second).Because(err)
	}
	return fault.New(fault.UpstreamTimeout, "the broker did not answer; whether it has the message is unknown").Because(err)
}

// refusedByClient reports a token that the library completed with an error
// before it queued the packet.
func refusedByClient(t paho.Token) bool {
	select {
	case <-t.Done():
		err := t.Error()
		return errors.Is(err, paho.ErrNotConnected) || clientIsFull(err)
	default:
		return false
	}
}

// clientIsFull recognises the library's two errors for a packet that it did not
// queue; it gives them no names.
func clientIsFull(err error) bool {
	if err == nil {
		return false
	}
	text := err.Error()
	return text == "no message IDs available" || text == "publish was broken by timeout"
}

// checkPublish holds m to what MQTT can carry. Callers have checked more than
// that; this is what would otherwise be cut silently or break the connection.
func checkPublish(m mqtt.Message) error {
	switch {
	case m.Topic == "" || len(m.Topic) > mqtt.MaxBytes:
		return fault.New(fault.InvalidTopic, "a topic has 1 to %d bytes, not %d", mqtt.MaxBytes, len(m.Topic))
	case unfit(string(m.Topic)):
		return fault.New(fault.InvalidTopic, "the topic holds a wildcard or NUL, or is under %q, which is the gateway's own", reserved)
	case len(m.Payload) > maxRemaining-4-len(m.Topic): // two bytes each for the topic's length and the packet identifier
		return fault.New(fault.TooLarge, "the message has %d bytes, more than MQTT can carry", len(m.Payload))
	case m.QoS > 2:
		return fault.New(fault.BadRequest, "qos must be 0, 1 or 2, not %d", m.QoS)
	}
	return nil
}
