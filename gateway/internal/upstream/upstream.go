package upstream

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// reserved is the part of the topic tree in which gateways send markers to
// themselves. Nothing in it is ever delivered, whoever's it is.
const reserved = "flyscreen-barrier/"

// Reserved is the same, for those who refuse it at the door.
const Reserved = reserved

// Upstream is the gateway's side of the broker: supervised connections.
// All methods are safe for concurrent use.
type Upstream struct {
	o        Options
	endpoint endpoint
	metrics  *metrics
	profile  profile
	pace     *rate.Limiter // of SUBSCRIBE packets
	began    time.Time
	instance string // 128 random bits: this gateway's markers are its own

	overdue time.Duration // an unanswered publish this old condemns a full connection

	live       *live
	publishers []*publisher
	snapshot   *snapshots
	links      []*link

	mu      sync.Mutex // guards the following
	started bool
	stopped bool
	calls   sync.WaitGroup // publishes under way; Add only while not stopped
}

// New checks o and returns an Upstream that does nothing until Run. The error
// holds all complaints about o.
func New(o Options) (*Upstream, error) {
	o = o.withDefaults()
	ep, err := o.validate()
	if err != nil {
		return nil, err
	}
	u := &Upstream{o: o, endpoint: ep, profile: profiles[o.Profile], pace: rate.NewLimiter(subscribeSecond, subscribeBurst), began: time.Now(), instance: randomHex(16), overdue: 30 * time.Second}
	u.live, u.snapshot = newLive(u), newSnapshots(u)
	u.links = []*link{u.live.first(), u.snapshot.link}
	for _, g := range u.live.legs[1:] {
		u.links = append(u.links, g.link)
	}
	for line := range o.Publishers {
		p := newPublisher(u, line)
		u.publishers = append(u.publishers, p)
		u.links = append(u.links, p.link)
	}
	if u.metrics, err = newMetrics(o.Metrics, u.unanswered); err != nil {
		return nil, err
	}
	return u, nil
}

// Run keeps the connections up until ctx is done, then refuses new publishes,
// waits up to 5 s for those under way, disconnects, and returns nil when all its
// goroutines are done. It can be called once.
func (u *Upstream) Run(ctx context.Context) error {
	u.mu.Lock()
	again := u.started
	u.started = true
	u.mu.Unlock()
	if again {
		return errors.New("upstream: Run was called twice")
	}
	// The links outlive ctx until the publishes are through.
	linked, unlink := context.WithCancel(context.WithoutCancel(ctx))
	defer unlink()
	var links, background sync.WaitGroup
	for _, l := range u.links {
		links.Go(func() { l.run(linked, &background) })
	}
	background.Go(func() { u.snapshot.run(linked) })
	<-ctx.Done()
	u.drain(&background)
	unlink()
	links.Wait()
	for _, l := range u.links {
		links.Go(l.shut)
	}
	links.Wait()
	background.Wait()
	return nil
}

// hurryOthers lets the links that wait for their next attempt make it now, because
// l has found the broker.
func (u *Upstream) hurryOthers(l *link) {
	for _, other := range u.links {
		if other == l || other.current.Load() != nil {
			continue
		}
		select {
		case other.hurry <- struct{}{}:
		default:
		}
	}
}

// drain refuses new publishes and waits for those under way, within bounds.
func (u *Upstream) drain(background *sync.WaitGroup) {
	u.mu.Lock()
	u.stopped = true
	u.mu.Unlock()
	done := make(chan struct{})
	background.Go(func() { // ends at the latest when the connections do
		u.calls.Wait()
		close(done)
	})
	timer := time.NewTimer(drainLimit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		u.o.Logger.Warn("stopped with publishes unanswered")
	}
}

func (u *Upstream) stopping() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stopped
}

// begin counts a publish in, until u.calls.Done.
func (u *Upstream) begin() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stopped {
		return fault.New(fault.Draining, "the gateway is shutting down; the message was not sent").Retry(time.Second)
	}
	u.calls.Add(1)
	return nil
}

// Ready returns nil when all connections are up and have been heard of lately,
// and otherwise says in words which are not and why.
func (u *Upstream) Ready() error {
	var errs []error
	for _, l := range u.links {
		errs = append(errs, l.ready())
	}
	return errors.Join(errs...)
}

// patience is how long a link may be silent before it counts as dead: a healthy
// one is pinged when it was silent for a keep alive, which the library looks at
// once a tick of a quarter of that, at most 5 s, and then has PingTimeout.
func (u *Upstream) patience() time.Duration {
	return u.keepAlive() + min(u.keepAlive()/4, 5*time.Second) + u.o.PingTimeout
}

// barrierTopic is where the connection of role r sends markers to itself.
func (u *Upstream) barrierTopic(r role) string {
	return reserved + u.instance + "/" + string(r)
}

// unfit reports a topic from the broker that is no topic name (3.1.1 section
// 4.7.3) or is a gateway's marker.
func unfit(topic string) bool {
	return strings.ContainsAny(topic, "+#\x00") || strings.HasPrefix(topic, reserved)
}

// unavailable is the failure of a call while its connection is down.
func unavailable(what string, cause error) *fault.Error {
	return fault.New(fault.UpstreamUnavailable, "the broker cannot be reached; %s", what).Retry(time.Second).Because(cause)
}

// received makes a message of what the library got. The payload is the
// library's copy, made for this packet alone.
func received(topic string, payload []byte, qos byte, retained bool) mqtt.Message {
	return mqtt.Message{Topic: mqtt.Topic(topic), Payload: payload, QoS: mqtt.QoS(qos), Retain: retained, Time: time.Now()}
}
