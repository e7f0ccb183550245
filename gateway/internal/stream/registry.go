package stream

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/wire"

	"github.com/prometheus/client_golang/prometheus"
)

// retryTooMany is what a client is told that opened too many streams.
const retryTooMany = 10 * time.Second

// Registry opens streams and keeps their number within the limits. It is safe for
// concurrent use.
type Registry struct {
	hub     *hub.Hub
	limits  Limits
	log     *slog.Logger
	metrics *metrics
	pump    *pump
	current func(auth.Principal) (auth.Principal, error)

	mu        sync.Mutex         // guards what follows; no other lock is taken under it
	streams   map[*Stream]string // with the subject that it counts for, "" before Authenticate
	ids       map[string]*Stream
	subjects  map[string]int
	addresses map[string]int
	draining  bool
}

// NewRegistry makes a registry; reg may be nil.
func NewRegistry(h *hub.Hub, limits Limits, log *slog.Logger, reg prometheus.Registerer) *Registry {
	r := &Registry{
		hub:       h,
		limits:    limits,
		log:       log.With("room", "stream"),
		pump:      newPump(),
		current:   func(p auth.Principal) (auth.Principal, error) { return p, nil },
		streams:   map[*Stream]string{},
		ids:       map[string]*Stream{},
		subjects:  map[string]int{},
		addresses: map[string]int{},
	}
	r.metrics = newMetrics(reg, r)
	return r
}

// Open makes a stream for a client at address. It fails with fault.RateLimited,
// Overloaded, Draining, or UpstreamUnavailable while the broker is away. The
// caller authenticates it, and closes it in the end.
func (r *Registry) Open(address string) (*Stream, error) {
	if !r.hub.Up() {
		return nil, fault.New(fault.UpstreamUnavailable, "the broker connection is down").Retry(time.Second)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.draining:
		return nil, fault.New(fault.Draining, "the gateway is shutting down").Retry(time.Second)
	case len(r.streams) >= r.limits.Total:
		return nil, fault.New(fault.Overloaded, "the gateway serves its maximum of %d streams", r.limits.Total).Retry(retryTooMany)
	case r.addresses[address] >= r.limits.PerAddress:
		return nil, fault.New(fault.RateLimited, "this address has its maximum of %d streams", r.limits.PerAddress).Retry(retryTooMany)
	}
	s := r.newStream(address)
	r.streams[s] = ""
	r.ids[s.id] = s
	r.addresses[address]++
	return s, nil
}

func (r *Registry) newStream(address string) *Stream {
	s := &Stream{
		id:       rand.Text()[:16],
		address:  address,
		hub:      r.hub,
		registry: r,
		shard:    r.pump.shard(),
		duty:     -1,
		uniform:  true,
	}
	s.queue.maxFrames, s.queue.maxBytes = r.limits.QueueMessages, r.limits.QueueBytes
	return s
}

// Run writes what the streams owe until ctx is done.
func (r *Registry) Run(ctx context.Context) error {
	r.pump.run(ctx)
	return nil
}

// Find returns the open stream of that id that belongs to p, or fault.NotFound:
// whose streams there are is nobody else's business.
func (r *Registry) Find(id string, p auth.Principal) (*Stream, error) {
	r.mu.Lock()
	s := r.ids[id]
	subject := r.streams[s]
	r.mu.Unlock()
	if s == nil || p.Anonymous || subject == "" || subject != p.Key() {
		return nil, fault.New(fault.NotFound, "this node serves no such stream of this subject")
	}
	return s, nil
}

// claim counts s for p's subject. Anonymous clients share no subject, so only
// their address counts.
func (r *Registry) claim(s *Stream, p auth.Principal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.Anonymous {
		return nil
	}
	key := p.Key()
	if r.subjects[key] >= r.limits.PerSubject {
		return fault.New(fault.RateLimited, "the subject has its maximum of %d streams", r.limits.PerSubject).Retry(retryTooMany)
	}
	if before := r.streams[s]; before != "" {
		countDown(r.subjects, before)
	}
	r.subjects[key]++
	r.streams[s] = key
	return nil
}

func (r *Registry) remove(s *Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	subject, open := r.streams[s]
	if !open {
		return
	}
	delete(r.streams, s)
	delete(r.ids, s.id)
	countDown(r.addresses, s.address)
	if subject != "" {
		countDown(r.subjects, subject)
	}
}

func countDown(counts map[string]int, key string) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

// Drain opens no more streams and ends those that are open with a hint to
// reconnect.
func (r *Registry) Drain() {
	r.mu.Lock()
	r.draining = true
	all := make([]*Stream, 0, len(r.streams))
	for s := range r.streams {
		all = append(all, s)
	}
	r.mu.Unlock()
	for _, s := range all {
		s.End(wire.CloseRestart, "the gateway is shutting down")
	}
}

// Count is how many streams are open.
func (r *Registry) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.streams)
}
