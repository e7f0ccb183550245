package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/outbox"
	"flyscreen/gateway/mqtt"
)

// limit is how long a test waits for what must happen; only a broken test waits
// that long.
const limit = 30 * time.Second

// broker is a connection to a broker that a test can cut. It answers in order.
type broker struct {
	t    *testing.T
	box  *outbox.Outbox
	face func(m mqtt.Message) verdict // nil acknowledges; called without locks

	turn sync.Mutex // held while a message is received; before mu

	mu      sync.Mutex // guards the following
	up      bool
	flights []flight // under way
	got     []mqtt.Message
	most    int // flights at once
	epoch   int
	all     sync.WaitGroup
}

type flight struct {
	m         mqtt.Message
	completed func(mqtt.Delivery, error)
}

type verdict int

const (
	acknowledge verdict = iota
	hold                // answer nothing
	die                 // end the connection; the broker itself goes on
)

func (b *broker) Lines() int          { return 1 }
func (b *broker) Line(mqtt.Topic) int { return 0 }

func (b *broker) Publish(ctx context.Context, m mqtt.Message) (mqtt.Delivery, error) {
	done := make(chan error, 1)
	if err := b.Send(m, func(_ mqtt.Delivery, err error) { done <- err }); err != nil {
		return "", err
	}
	select {
	case err := <-done:
		return mqtt.Sent, err
	case <-ctx.Done():
		return "", fault.New(fault.UpstreamTimeout, "test")
	}
}

func (b *broker) Send(m mqtt.Message, completed func(mqtt.Delivery, error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.up {
		return fault.New(fault.UpstreamUnavailable, "down")
	}
	b.flights = append(b.flights, flight{m, completed})
	b.most = max(b.most, len(b.flights))
	epoch := b.epoch
	b.all.Go(func() { b.judge(m, epoch) })
	return nil
}

// judge receives m, unless another is first, then that one.
func (b *broker) judge(m mqtt.Message, epoch int) {
	b.turn.Lock()
	defer b.turn.Unlock()
	v := acknowledge
	b.mu.Lock()
	if epoch != b.epoch || len(b.flights) == 0 {
		b.mu.Unlock()
		return
	}
	first := b.flights[0]
	b.mu.Unlock()
	if b.face != nil {
		v = b.face(first.m)
	}
	switch v {
	case hold:
	case die:
		b.cut(errors.New("the broker closed the connection"))
		b.connect(true)
	default:
		b.mu.Lock()
		if epoch != b.epoch || len(b.flights) == 0 {
			b.mu.Unlock()
			return
		}
		first = b.flights[0]
		b.flights = b.flights[1:]
		b.got = append(b.got, first.m)
		b.mu.Unlock()
		first.completed(mqtt.Acknowledged, nil)
	}
}

func (b *broker) connect(survived bool) {
	b.mu.Lock()
	b.up = true
	b.mu.Unlock()
	b.box.PublishLink(0, true, survived)
}

// cut ends the connection; what was under way fails in its order.
func (b *broker) cut(cause error) {
	b.mu.Lock()
	b.up = false
	b.epoch++
	left := b.flights
	b.flights = nil
	b.mu.Unlock()
	for _, f := range left {
		f.completed("", fault.New(fault.UpstreamTimeout, "unknown").Because(cause))
	}
	b.box.PublishLink(0, false, false)
}

// underWay is how many messages have not been answered.
func (b *broker) underWay() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.flights)
}

func (b *broker) received() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for _, m := range b.got {
		all = append(all, fmt.Sprintf("%s=%s", m.Topic, m.Payload))
	}
	return all
}

// start runs an outbox in dir until stop or the end of the test.
func start(t *testing.T, dir string, face func(mqtt.Message) verdict, change func(*outbox.Options)) (box *outbox.Outbox, b *broker, stop func()) {
	t.Helper()
	b = &broker{t: t, face: face}
	o := outbox.Options{Broker: b, Dir: dir, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	box = outbox.New(o)
	b.box = box
	_ = box.Open() // tests of failures look at Broken
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- box.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		b.all.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return box, b, stop
}

func message(topic, payload string) mqtt.Message {
	return mqtt.Message{Topic: mqtt.Topic(topic), Payload: []byte(payload), QoS: 1}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func publish(t *testing.T, box *outbox.Outbox, topic, payload string, want mqtt.Delivery) {
	t.Helper()
	if d, err := box.Publish(within(t), message(topic, payload)); err != nil || d != want {
		t.Fatalf("%s=%s: %q, %v; want %q", topic, payload, d, err, want)
	}
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, limit)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func counts(t *testing.T, box *outbox.Outbox) (queued, quarantined int) {
	t.Helper()
	_, queued, quarantined, err := box.List(0)
	if err != nil {
		t.Fatal(err)
	}
	return queued, quarantined
}

// settled returns what the file holds, once it has followed the counts.
func settled(t *testing.T, box *outbox.Outbox) (items []outbox.Item) {
	t.Helper()
	waitFor(t, "the file", func() bool {
		var queued, quarantined int
		var err error
		if items, queued, quarantined, err = box.List(1000); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, i := range items {
			if i.Quarantined {
				n++
			}
		}
		return len(items) == queued+quarantined && n == quarantined
	})
	return items
}
