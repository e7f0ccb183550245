package stream_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// fakeBroker answers the hub as a test wants, in a bubble of test time: a real
// broker cannot be stopped between two packets.
type fakeBroker struct {
	mu       sync.Mutex // guards what follows
	retained []mqtt.Message
	refuse   map[mqtt.Filter]bool
	during   func() // called while a snapshot is collected
	after    func() // called behind the barrier
	down     bool   // snapshots fail
	asked    func() // called by Subscribe
	ended    []mqtt.Filter
}

func (b *fakeBroker) Subscribe(_ context.Context, filters []mqtt.Filter, _ mqtt.QoS) ([]error, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked != nil {
		b.asked()
	}
	errs := make([]error, len(filters))
	for i, f := range filters {
		if b.refuse[f] {
			errs[i] = fault.New(fault.NotAuthorized, "refused")
		}
	}
	return errs, nil
}

func (b *fakeBroker) Unsubscribe(_ context.Context, filters []mqtt.Filter) error {
	b.set(func() { b.ended = append(b.ended, filters...) })
	return nil
}

func (b *fakeBroker) Barrier(_ context.Context, reached func()) error {
	reached()
	b.mu.Lock()
	after := b.after
	b.mu.Unlock()
	if after != nil {
		after()
	}
	return nil
}

func (b *fakeBroker) Retained(_ context.Context, f mqtt.Filter) (all []mqtt.Message, complete bool, err error) {
	b.mu.Lock()
	for _, m := range b.retained {
		if f.Matches(m.Topic) {
			all = append(all, m)
		}
	}
	during, down := b.during, b.down
	b.mu.Unlock()
	if during != nil {
		during()
	}
	if down {
		return nil, false, fault.New(fault.UpstreamUnavailable, "down")
	}
	return all, true, nil
}

func (b *fakeBroker) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

// bench is a hub with streams in front of a fake broker.
type bench struct {
	t       *testing.T
	broker  *fakeBroker
	hub     *hub.Hub
	streams *stream.Registry
}

var small = stream.Limits{QueueMessages: 3, QueueBytes: 1 << 20, Filters: 3, PerSubject: 2, PerAddress: 3, Total: 4}

// inBubble runs test with a bench whose time is the bubble's.
func inBubble(t *testing.T, test func(b *bench)) {
	t.Helper()
	inBubbleWith(t, small, test)
}

func inBubbleWith(t *testing.T, limits stream.Limits, test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{t: t, broker: &fakeBroker{refuse: map[mqtt.Filter]bool{}}}
		log := slog.New(slog.DiscardHandler)
		b.hub = hub.New(hub.Options{Source: b.broker, Retainer: b.broker, Logger: log})
		b.streams = stream.NewRegistry(b.hub, limits, log, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = b.hub.Run(ctx) })
		wg.Go(func() { _ = b.streams.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		b.hub.Link(true)
		synctest.Wait()
		test(b)
	})
}

func reader(grants ...mqtt.Filter) auth.Principal {
	return auth.Principal{Subject: "reader", Grants: auth.Grants{Sub: grants}}
}

func (b *bench) open(p auth.Principal) *stream.Stream {
	b.t.Helper()
	s, err := b.streams.Open("192.0.2.1")
	if err != nil {
		b.t.Fatal(err)
	}
	if err := s.Authenticate(p); err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *bench) publish(topic, payload string) {
	b.hub.Deliver(mqtt.Message{Topic: mqtt.Topic(topic), Payload: []byte(payload), QoS: 1, Time: time.Now()})
}

// retain makes topic's retained value payload, as the broker would: the message
// is delivered live too.
func (b *bench) retain(topic, payload string) {
	b.broker.set(func() {
		b.broker.retained = append(b.broker.retained, mqtt.Message{Topic: mqtt.Topic(topic), Payload: []byte(payload), Retain: true})
	})
}

func (b *bench) subscribe(s *stream.Stream, names ...string) []stream.Result {
	var requests []stream.Request
	for _, n := range names {
		requests = append(requests, stream.Request{Filter: mqtt.Filter(n), QoS: 1, Snapshot: true})
	}
	return b.ask(s, stream.Subscription{Requests: requests})
}

// ask subscribes and answers with an event of that name.
func (b *bench) ask(s *stream.Stream, q stream.Subscription) []stream.Result {
	b.t.Helper()
	o, err := s.Subscribe(b.t.Context(), q, func(o stream.Outcome) []*wire.Event {
		if o.Resumed {
			return []*wire.Event{wire.NewEvent("resumed", struct{}{})}
		}
		return []*wire.Event{wire.NewEvent("answer", struct{}{})}
	})
	if err != nil {
		b.t.Error(err)
	}
	return o.Results
}

// say spells what waits: topic=payload (with ! when retained), or an event's name
// with its fields.
func say(t *testing.T, items []stream.Item) string {
	t.Helper()
	var all []string
	for _, i := range items {
		if i.Event != nil {
			all = append(all, i.Event.Name+string(i.Event.Fields))
			continue
		}
		var m struct {
			Topic   string
			Payload json.RawMessage
			Retain  bool
		}
		if err := json.Unmarshal(i.Frame.JSON, &m); err != nil {
			t.Fatal(err)
		}
		mark := ""
		if m.Retain {
			mark = "!"
		}
		all = append(all, fmt.Sprintf("%s=%s%s", m.Topic, m.Payload, mark))
	}
	return strings.Join(all, " ")
}

// expect settles the bubble and compares what waits.
func (b *bench) expect(s *stream.Stream, want string) {
	b.t.Helper()
	time.Sleep(time.Second) // of the bubble: longer than a join
	synctest.Wait()
	if got := say(b.t, s.Take(nil, 1000)); got != want {
		b.t.Errorf("\n got %s\nwant %s", got, want)
	}
}
