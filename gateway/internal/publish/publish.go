// Package publish is the one way from a client to the broker: it checks what a
// principal may publish and how often, and lets nothing through that a broker is
// known to close the shared connection for. The doors turn requests into messages
// and its answers into theirs.
package publish

import (
	"context"
	"strings"
	"sync"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/audit"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

// Broker takes a message and says how far it is known to have come. Its errors
// carry a code; without one of Delivery's values nothing may be promised.
type Broker interface {
	Publish(ctx context.Context, m mqtt.Message) (mqtt.Delivery, error)
}

// Options are what New needs.
type Options struct {
	Broker       Broker
	Topics       mqtt.Limits
	PayloadBytes int
	// DollarTopics are prefixes that begin with "$" which may be published to;
	// all other such topics are the broker's own.
	DollarTopics []string
	// Reserved is the prefix of the gateway's own topics.
	Reserved string
	Rate     float64 // publishes a second and principal
	Burst    int
	Timeout  time.Duration         // until the broker's answer is given up
	Audit    *audit.Log            // may be nil
	Metrics  prometheus.Registerer // may be nil
}

// Desk takes publishes. It is safe for concurrent use.
type Desk struct {
	options Options
	refused prometheus.Counter
	once    *once

	mu       sync.Mutex // guards what follows
	limiters map[string]*limiter
	swept    time.Time
}

type limiter struct {
	*rate.Limiter
	used time.Time
}

// New makes a desk.
func New(o Options) *Desk {
	d := &Desk{
		options: o,
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flyscreen_publish_rate_limited_total",
			Help: "Publishes refused because a principal published too fast.",
		}),
		once:     newOnce(o.Broker, o.Metrics),
		limiters: map[string]*limiter{},
	}
	if o.Metrics != nil {
		o.Metrics.MustRegister(d.refused)
	}
	return d
}

// Topic checks the name of a topic to publish to.
func (d *Desk) Topic(name string) (mqtt.Topic, error) {
	t, err := mqtt.ParseTopic(name, d.options.Topics)
	if err != nil {
		return "", fault.New(fault.InvalidTopic, "the topic %v", err)
	}
	if t.IsDollar() && !d.dollarAllowed(name) {
		return "", fault.New(fault.InvalidTopic, `the topic begins with "$", which is the broker's own part of the tree; `+
			"upstream.dollar_topics lists the prefixes that may be published to")
	}
	if d.options.Reserved != "" && strings.HasPrefix(name, d.options.Reserved) {
		return "", fault.New(fault.InvalidTopic, "topics under %q are the gateway's own", d.options.Reserved)
	}
	return t, nil
}

func (d *Desk) dollarAllowed(name string) bool {
	for _, prefix := range d.options.DollarTopics {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// MaxPayload is the size limit in bytes, for doors that read a body.
func (d *Desk) MaxPayload() int { return d.options.PayloadBytes }

// TooLarge is the fault of a payload beyond MaxPayload.
func (d *Desk) TooLarge() error {
	return fault.New(fault.TooLarge, "the payload has more than %d bytes", d.options.PayloadBytes)
}

// Client is who publishes.
type Client struct {
	Principal auth.Principal
	Address   string // whose rate counts for anonymous clients
	// Patience is how long to wait for the rate limit instead of refusing.
	Patience time.Duration
}

// Publish checks m against the client's grants and the limits, hands it to the
// broker and returns when the broker has answered or the deadline has passed; the
// error then says that the outcome is not known.
func (d *Desk) Publish(ctx context.Context, c Client, m mqtt.Message) (mqtt.Delivery, error) {
	delivery, _, err := d.PublishKeyed(ctx, c, Key{}, m)
	return delivery, err
}

// may holds m to the principal's rights and the size limit, and says which rule
// decided.
func (d *Desk) may(p auth.Principal, m mqtt.Message) (rule mqtt.Filter, err error) {
	if !p.Ends.IsZero() && !time.Now().Before(p.Ends) {
		return "", fault.New(fault.TokenExpired, "the token has expired")
	}
	rule, ok := p.Grants.MayPublish(m.Topic)
	switch {
	case ok:
	case rule != "":
		return rule, fault.New(fault.NotAuthorized, "the rule %q denies the topic %q", rule, m.Topic)
	default:
		return "", fault.New(fault.NotAuthorized, "no grant allows publishing to the topic %q", m.Topic)
	}
	if len(m.Payload) > d.options.PayloadBytes {
		return rule, d.TooLarge()
	}
	return rule, nil
}

// deliver takes one publish from the client's allowance and gives it its deadline.
func (d *Desk) deliver(ctx context.Context, c Client, publish func(context.Context) (mqtt.Delivery, error)) (mqtt.Delivery, error) {
	if err := d.allow(ctx, c); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, d.options.Timeout)
	defer cancel()
	return publish(ctx)
}

// PublishWire publishes p as a client sent it, once for its key if it has one.
func (d *Desk) PublishWire(ctx context.Context, c Client, p *wire.Publish) (mqtt.Delivery, error) {
	return d.PublishWireKeyed(ctx, c, Key{}, p)
}

// PublishWireOnce is PublishWire that says whether the answer is an earlier one's of
// the same key.
func (d *Desk) PublishWireOnce(ctx context.Context, c Client, p *wire.Publish) (delivery mqtt.Delivery, replayed bool, err error) {
	return d.publishWire(ctx, c, Key{}, p)
}

// PublishWireKeyed is PublishWire with a key that the request around p brought; p's
// own goes before it.
func (d *Desk) PublishWireKeyed(ctx context.Context, c Client, key Key, p *wire.Publish) (mqtt.Delivery, error) {
	delivery, _, err := d.publishWire(ctx, c, key, p)
	return delivery, err
}

func (d *Desk) publishWire(ctx context.Context, c Client, key Key, p *wire.Publish) (delivery mqtt.Delivery, replayed bool, err error) {
	topic, err := d.Topic(p.Topic)
	if err != nil {
		return "", false, err
	}
	payload, err := p.Bytes()
	if err != nil {
		return "", false, err
	}
	qos, err := p.Level()
	if err != nil {
		return "", false, err
	}
	m := mqtt.Message{Topic: topic, Payload: payload, QoS: qos, Retain: p.Retain}
	if p.IdempotencyKey != "" {
		key = Key{Text: p.IdempotencyKey}
	}
	return d.PublishKeyed(ctx, c, key, m)
}

// scope is who a client counts as.
func (c Client) scope() string {
	if c.Principal.Anonymous {
		return "addr:" + c.Address
	}
	return "sub:" + c.Principal.Key()
}

// allow takes one publish from the client's allowance, waiting for it if it comes
// soon enough.
func (d *Desk) allow(ctx context.Context, c Client) error {
	now := time.Now()
	r := d.limiter(c.scope(), now).ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > c.Patience {
		r.CancelAt(now)
		return d.tooFast(wait)
	}
	if wait == 0 {
		return nil
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		r.Cancel()
		return d.tooFast(wait).Because(ctx.Err())
	}
}

func (d *Desk) tooFast(wait time.Duration) *fault.Error {
	d.refused.Inc()
	return fault.New(fault.RateLimited, "more than %g publishes a second", d.options.Rate).Retry(wait)
}

// idle is how long an unused limiter is kept; its bucket is full by then.
const idle = 10 * time.Minute

func (d *Desk) limiter(key string, now time.Time) *limiter {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Sub(d.swept) > idle {
		d.swept = now
		for k, l := range d.limiters {
			if now.Sub(l.used) > idle {
				delete(d.limiters, k)
			}
		}
	}
	l := d.limiters[key]
	if l == nil {
		l = &limiter{Limiter: rate.NewLimiter(rate.Limit(d.options.Rate), d.options.Burst)}
		d.limiters[key] = l
	}
	l.used = now
	return l
}
