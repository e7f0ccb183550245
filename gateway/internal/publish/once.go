package publish

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/audit"
	"flyscreen/gateway/mqtt"

	"github.com/prometheus/client_golang/prometheus"
)

// Keeper is a Broker that remembers over a restart which key was used for what.
type Keeper interface {
	// PublishOnce is Publish, and remembers id, request and delivery durably before it
	// returns a delivery.
	PublishOnce(ctx context.Context, m mqtt.Message, id, request [32]byte) (mqtt.Delivery, error)
	// Recall returns what PublishOnce remembers.
	Recall(id [32]byte) (request [32]byte, delivery mqtt.Delivery, at time.Time, ok bool)
}

// Key is a client's idempotency key. The zero value is none.
type Key struct {
	Text string // 1 to 255 printable characters
	// Part tells the messages of one request with one key apart, from 1; Of is then
	// the digest of the whole request.
	Part int
	Of   [32]byte
}

const (
	// keepKeys is how long a key is remembered.
	keepKeys = 10 * time.Minute
	// mostKeys and mostKeysEach bound how many keys are remembered, in all and of one
	// client; more are refused rather than others forgotten.
	mostKeys     = 500_000
	mostKeysEach = 50_000
	mostKeyBytes = 255
)

// PublishKeyed is Publish for a message that may come again with the same key: it
// is published once, and the first delivery is the answer to all; replayed says that
// this is such an answer. One that comes while the first is under way waits for it.
// A failure is not remembered, since the next attempt may fare better. The key's
// scope is the client; with another message it is fault.IdempotencyMismatch.
func (d *Desk) PublishKeyed(ctx context.Context, c Client, key Key, m mqtt.Message) (delivery mqtt.Delivery, replayed bool, err error) {
	rule, err := d.may(c.Principal, m)
	switch {
	case err != nil:
	case key.Text == "":
		delivery, err = d.deliver(ctx, c, func(ctx context.Context) (mqtt.Delivery, error) { return d.options.Broker.Publish(ctx, m) })
	default:
		delivery, replayed, err = d.publishOnce(ctx, c, key, m)
	}
	d.options.Audit.Record(ctx, audit.Decision{
		Principal: c.Principal, Address: c.Address, Action: "publish", Target: string(m.Topic), Rule: string(rule), Outcome: string(delivery), Err: err,
	})
	return delivery, replayed, err
}

// publishOnce is PublishKeyed for a message that may be published, with a key.
func (d *Desk) publishOnce(ctx context.Context, c Client, key Key, m mqtt.Message) (delivery mqtt.Delivery, replayed bool, err error) {
	if err := CheckKey(key.Text); err != nil {
		return "", false, err
	}
	id, request := key.id(c), key.request(m)
	a, first, err := d.once.claim(id, request, c.scope())
	if err != nil {
		return "", false, err
	}
	if !first {
		select {
		case <-a.answered:
			return a.delivery, a.err == nil, a.err
		case <-ctx.Done():
			return "", false, fault.New(fault.UpstreamTimeout, "the first request with this key is still under way").Because(ctx.Err())
		}
	}
	defer func() { // also when something panics: nobody is to wait for ever
		d.once.settle(id, a, delivery, err)
	}()
	err = fault.New(fault.Internal, "the request was not finished")
	if d.once.keeper != nil {
		if was, delivered, _, ok := d.once.keeper.Recall(id); ok {
			if was != request {
				return "", false, mismatch()
			}
			return delivered, true, nil
		}
	}
	// The client may leave, and ask again with its key: that must find an answer.
	delivery, err = d.deliver(context.WithoutCancel(ctx), c, func(ctx context.Context) (mqtt.Delivery, error) {
		if d.once.keeper != nil {
			return d.once.keeper.PublishOnce(ctx, m, id, request)
		}
		return d.options.Broker.Publish(ctx, m)
	})
	return delivery, false, err
}

// CheckParts returns fault.IdempotencyMismatch if the client has used the key for
// another request of several messages than that of key.Of.
func (d *Desk) CheckParts(c Client, key Key, parts int) error {
	if err := CheckKey(key.Text); err != nil {
		return err
	}
	for key.Part = 1; key.Part <= parts; key.Part++ {
		if was, ok := d.once.recall(key.id(c)); ok && was != key.Of {
			return mismatch()
		}
	}
	return nil
}

// CheckKey holds a key to its form.
func CheckKey(key string) error {
	fine := len(key) >= 1 && len(key) <= mostKeyBytes
	for i := range len(key) {
		fine = fine && key[i] >= ' ' && key[i] <= '~'
	}
	if !fine {
		return fault.New(fault.BadRequest, "an idempotency key has 1 to %d printable ASCII characters", mostKeyBytes)
	}
	return nil
}

func mismatch() error {
	return fault.New(fault.IdempotencyMismatch, "this idempotency key was used for another request within the last %d minutes", int(keepKeys.Minutes()))
}

func (k Key) id(c Client) [32]byte {
	return digest([]byte(c.scope()), []byte(k.Text), binary.BigEndian.AppendUint32(nil, uint32(k.Part))) //nolint:gosec // a place in a batch
}

func (k Key) request(m mqtt.Message) [32]byte {
	if k.Part > 0 {
		return k.Of
	}
	flags := []byte{byte(m.QoS), 0}
	if m.Retain {
		flags[1] = 1
	}
	return digest([]byte(m.Topic), flags, m.Payload)
}

// digest is of the parts and their lengths.
func digest(parts ...[]byte) (sum [32]byte) {
	h := sha256.New()
	for _, p := range parts {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p)))) // never fails
		_, _ = h.Write(p)
	}
	h.Sum(sum[:0])
	return sum
}

// once remembers keys in memory, and knows who does it on disk.
type once struct {
	keeper Keeper // nil without
	size   prometheus.Gauge

	mu     sync.Mutex // guards the following
	keys   map[[32]byte]*answer
	each   map[string]int // keys by client
	oldest []claimed      // in the order of their claims
}

type claimed struct {
	id [32]byte
	a  *answer
}

// answer is what became of the first request with a key.
type answer struct {
	request  [32]byte
	client   string
	at       time.Time
	answered chan struct{}

	delivery mqtt.Delivery // this and the next are set before answered is closed
	err      error
}

func newOnce(b Broker, reg prometheus.Registerer) *once {
	o := &once{keys: map[[32]byte]*answer{}, each: map[string]int{}, size: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "flyscreen_publish_idempotency_keys", Help: "Idempotency keys that are remembered in memory.",
	})}
	o.keeper, _ = b.(Keeper)
	if reg != nil {
		reg.MustRegister(o.size)
	}
	return o
}

// claim returns the answer, perhaps to come, to the key; first says that the caller
// has to give it.
func (o *once) claim(id, request [32]byte, client string) (a *answer, first bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forgetOldLocked(time.Now())
	if a = o.keys[id]; a != nil {
		if a.request != request {
			return nil, false, mismatch()
		}
		return a, false, nil
	}
	if o.each[client] >= mostKeysEach {
		return nil, false, fault.New(fault.RateLimited, "more than %d idempotency keys in %d minutes", mostKeysEach, int(keepKeys.Minutes())).Retry(time.Minute)
	}
	if len(o.keys) >= mostKeys {
		return nil, false, fault.New(fault.Overloaded, "too many idempotency keys are in use").Retry(time.Minute)
	}
	a = &answer{request: request, client: client, at: time.Now(), answered: make(chan struct{})}
	o.keys[id] = a
	o.each[client]++
	o.oldest = append(o.oldest, claimed{id, a})
	o.size.Set(float64(len(o.keys)))
	return a, true, nil
}

// settle gives the answer; a failure makes the key free again.
func (o *once) settle(id [32]byte, a *answer, delivery mqtt.Delivery, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	a.delivery, a.err = delivery, err
	close(a.answered)
	if err != nil {
		o.dropLocked(id, a)
	}
}

func (o *once) dropLocked(id [32]byte, a *answer) {
	if o.keys[id] != a {
		return
	}
	delete(o.keys, id)
	if o.each[a.client]--; o.each[a.client] == 0 {
		delete(o.each, a.client)
	}
	o.size.Set(float64(len(o.keys)))
}

func (o *once) forgetOldLocked(now time.Time) {
	for len(o.oldest) > 0 && now.Sub(o.oldest[0].a.at) >= keepKeys {
		select {
		case <-o.oldest[0].a.answered:
		default:
			return // a publish takes seconds, not minutes
		}
		o.dropLocked(o.oldest[0].id, o.oldest[0].a)
		o.oldest = o.oldest[1:]
	}
}

// recall looks a key up without claiming it.
func (o *once) recall(id [32]byte) (request [32]byte, ok bool) {
	o.mu.Lock()
	o.forgetOldLocked(time.Now())
	a := o.keys[id]
	o.mu.Unlock()
	if a != nil {
		return a.request, true
	}
	if o.keeper != nil {
		request, _, _, ok = o.keeper.Recall(id)
	}
	return request, ok
}
