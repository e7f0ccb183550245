package upstream

import (
	"context"
	"fmt"

	paho "github.com/eclipse/paho.mqtt.golang"

	"flyscreen/gateway/mqtt"
)

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

// probeTopic is where the first live connection finds out how many copies come.
func (u *Upstream) probeTopic() string { return reserved + u.instance + "/probe/x" }

// prepare tests a fresh session of a leg, and the first leg's for copies.
func (g *leg) prepare(ctx context.Context, s *session) error {
	if g.n == 0 && g.l.u.o.Control != nil { // before the marker, so that what is retained comes before it
		if err := g.l.u.subscribeControl(ctx, s); err != nil {
			return err
		}
	}
	if err := g.l.u.selfTest(ctx, s, roleLive, 1); err != nil {
		return err
	}
	if g.n > 0 || g.l.u.profile.copies != copiesProbed || len(g.l.inUse()) > 1 {
		return nil
	}
	n, err := g.probe(ctx, s)
	if err != nil {
		return err
	}
	if n > 1 {
		g.l.u.o.Logger.Info("the broker sends a copy for each overlapping subscription; the live side takes several connections", "connections", maxLegs)
		close(g.l.many)
	}
	return nil
}

// probe subscribes to two overlapping private filters, publishes once and counts
// what comes before a marker behind it: 3.1.1 section 3.3.5 leaves to the broker
// whether a client gets one copy or one for each subscription.
func (g *leg) probe(ctx context.Context, s *session) (copies int, err error) {
	u := g.l.u
	wide := reserved + u.instance + "/probe/+"
	both := map[string]byte{u.probeTopic(): 1, wide: 1}
	g.l.turn.Lock()
	g.probed = 0
	g.l.turn.Unlock()
	if _, err := s.place(ctx, func(c paho.Client) paho.Token { return c.SubscribeMultiple(both, nil) }); err != nil {
		return 0, fmt.Errorf("the probe of overlapping subscriptions: %w", err)
	}
	if _, err := s.place(ctx, func(c paho.Client) paho.Token { return c.Publish(u.probeTopic(), 1, false, []byte("probe")) }); err != nil {
		return 0, fmt.Errorf("the probe of overlapping subscriptions: %w", err)
	}
	if err := s.echo(ctx, u.barrierTopic(roleLive), 1, func() { copies = g.probed }); err != nil {
		return 0, fmt.Errorf("the probe of overlapping subscriptions: %w", err)
	}
	_, err = s.place(ctx, func(c paho.Client) paho.Token { return c.Unsubscribe(u.probeTopic(), wide) })
	return copies, err
}
