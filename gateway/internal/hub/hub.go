// Package hub fans messages from the broker out to streams. It holds who wants
// which filter, keeps one upstream subscription for each distinct filter, and
// takes snapshots of retained messages that join the live messages without a gap
// or a double (snapshot.go has the algorithm and why it is right).
//
// It knows nothing of users and rights: filters come narrowed.
package hub

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"flyscreen/gateway/mqtt"

	"github.com/prometheus/client_golang/prometheus"
)

// Source is the live side of the broker, as the hub needs it.
type Source interface {
	// Subscribe asks for filters and returns a verdict for each (nil: granted),
	// or an error for the whole call.
	Subscribe(ctx context.Context, filters []mqtt.Filter, qos mqtt.QoS) ([]error, error)
	Unsubscribe(ctx context.Context, filters []mqtt.Filter) error
	// Barrier sends a marker to itself on the live connection. reached is called
	// in order with Hub.Deliver when it comes back; then Barrier returns.
	Barrier(ctx context.Context, reached func()) error
}

// Retainer reads retained messages without touching the live connection.
type Retainer interface {
	// Retained returns the retained messages for filter; complete is false when
	// a bound cut them short.
	Retained(ctx context.Context, filter mqtt.Filter) (messages []mqtt.Message, complete bool, err error)
}

// Subscriber is a stream as the hub sees it. No method may block. All are called
// by one goroutine at a time, in the broker's order.
type Subscriber interface {
	// Deliver hands over a live message. A message that several of the
	// subscriber's filters match may be handed over once for each, in a row.
	Deliver(f *Frame)
	// Missed tells that a live message on topic, which the subscriber's filters
	// match, could not be taken from the broker.
	Missed(topic mqtt.Topic)
	// Upstream tells that the live connection came or went. It is called before
	// the first message of a new connection.
	Upstream(up bool)
}

// Options are what New needs.
type Options struct {
	Source   Source
	Retainer Retainer
	// SettleBefore and SettleAfter are the waits of a snapshot (snapshot.go).
	// Zero means 20 ms and 10 ms.
	SettleBefore, SettleAfter time.Duration
	// Timeout bounds one question to the broker; zero means 5 s.
	Timeout time.Duration
	// WindowAge and WindowBytes bound the recent messages that are kept for streams
	// that resume. Zero means 5 minutes and 64 MiB.
	WindowAge   time.Duration
	WindowBytes int
	// Linger is how long the broker's subscription to a filter outlives its last
	// subscriber. Zero means 5 min, a negative value not at all.
	Linger time.Duration
	// FiltersPerSubscribe bounds the filters of one call of Source.Subscribe, which
	// is to be one packet. Zero means 100.
	FiltersPerSubscribe int
	Logger              *slog.Logger
	Metrics             prometheus.Registerer // may be nil
}

// Hub is the fan-out. Its methods are safe for concurrent use, except Deliver,
// Missed and Link, which belong to the one goroutine that reads the live connection.
type Hub struct {
	source   Source
	retainer Retainer
	options  Options
	log      *slog.Logger
	metrics  *metrics
	epoch    string        // distinguishes cursors of this process from any other's
	seq      atomic.Uint64 // the last live message; written by Deliver only
	matched  [][]Subscriber
	wake     chan struct{} // something for Run to reconcile

	snapshots snapshots
	window    window

	mu          sync.RWMutex // guards what follows, and with it a message is numbered and kept; only window's lock is taken under it
	up          bool
	linked      uint64 // the position at which the present connection began
	connection  uint64 // counts connections, so that a late answer of an old one is known as such
	subscribers map[Subscriber]seats
	interests   map[mqtt.Filter]*interest // wanted, or held by the broker
	wanted      int                       // how many of them are wanted
	tree        *node                     // of the wanted ones
	cover       coverNode                 // of all interests
	lingering   lingering
	dirty       []*interest // for Run to look at (reconcile.go)
}

// New makes a hub; Run starts it.
func New(o Options) *Hub {
	if o.SettleBefore == 0 {
		o.SettleBefore = 20 * time.Millisecond
	}
	if o.SettleAfter == 0 {
		o.SettleAfter = 10 * time.Millisecond
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.WindowAge == 0 {
		o.WindowAge = 5 * time.Minute
	}
	if o.WindowBytes == 0 {
		o.WindowBytes = 64 << 20
	}
	if o.Linger == 0 {
		o.Linger = 5 * time.Minute
	}
	if o.FiltersPerSubscribe == 0 {
		o.FiltersPerSubscribe = 100
	}
	h := &Hub{
		source:      o.Source,
		retainer:    o.Retainer,
		options:     o,
		log:         o.Logger.With("room", "hub"),
		epoch:       newEpoch(),
		wake:        make(chan struct{}, 1),
		subscribers: map[Subscriber]seats{},
		interests:   map[mqtt.Filter]*interest{},
		tree:        &node{},
		lingering:   lingering{patience: max(o.Linger, 0)},
	}
	h.window.maxAge, h.window.maxBytes = o.WindowAge, o.WindowBytes
	h.snapshots.rounds = map[mqtt.Filter]*round{}
	h.snapshots.slots = make(chan struct{}, maxRounds)
	h.metrics = newMetrics(o.Metrics, h)
	return h
}

func newEpoch() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// Deliver fans one live message out. It never waits for a reader.
func (h *Hub) Deliver(m mqtt.Message) {
	h.metrics.received.Inc()
	f := h.keep(m, false)
	for i, subscribers := range h.matched {
		for _, s := range subscribers {
			s.Deliver(f)
		}
		h.matched[i] = nil
	}
}

// keep gives a message its place in the order, keeps it and finds its receivers,
// in one step: a stream that attaches gets it by the one way or the other, never
// by both.
func (h *Hub) keep(m mqtt.Message, lost bool) (f *Frame) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	seq := h.seq.Load() + 1
	if lost {
		f = &Frame{Topic: m.Topic, Seq: seq, Lost: true, received: m.Time}
	} else {
		f = NewFrame(m, h.epoch, seq)
	}
	h.matched = h.tree.match(f.Topic, h.matched[:0])
	h.window.add(f)
	h.seq.Store(seq)
	return f
}

// Missed tells, in order with Deliver, that a live message on topic is lost: each
// subscriber that it was for is told once, however many of its filters match.
func (h *Hub) Missed(topic mqtt.Topic) {
	h.keep(mqtt.Message{Topic: topic, Time: time.Now()}, true)
	told := map[Subscriber]struct{}{}
	for i, subscribers := range h.matched {
		for _, s := range subscribers {
			if _, again := told[s]; !again {
				told[s] = struct{}{}
				s.Missed(topic)
			}
		}
		h.matched[i] = nil
	}
}

// Mark is the position of the newest live message. What comes later has not been
// matched yet, so an Unsubscribe before the call holds for it.
func (h *Hub) Mark() uint64 { return h.seq.Load() }

// Cursor is the position after the newest live message.
func (h *Hub) Cursor() string { return h.CursorAt(h.seq.Load()) }

// CursorAt is the cursor of a position of this process.
func (h *Hub) CursorAt(seq uint64) string { return string(appendCursor(nil, h.epoch, seq)) }

// Link tells that the live connection came or went. It is called in order with
// Deliver.
func (h *Hub) Link(up bool) {
	h.mu.Lock()
	h.up = up
	h.connection++
	h.linked = h.seq.Add(1) // no cursor of before can stand behind this
	all := make([]Subscriber, 0, len(h.subscribers))
	for s := range h.subscribers {
		all = append(all, s)
	}
	h.disconnected()
	h.mu.Unlock()
	for _, s := range all {
		s.Upstream(up)
	}
	if up {
		h.poke()
	}
}

// Up reports whether the live connection is there.
func (h *Hub) Up() bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.up
}

func (h *Hub) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}
