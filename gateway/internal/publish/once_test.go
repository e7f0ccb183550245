package publish_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/publish"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// A key holds for ten minutes, for its client and its message.
func TestKeyHoldsForTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &broker{}
		d := desk(b, func(o *publish.Options) { o.Burst = 100 })
		m := mqtt.Message{Topic: "pets/1", QoS: 1, Payload: []byte("x")}
		key := publish.Key{Text: "k"}
		once := func(c publish.Client, replayed bool) {
			t.Helper()
			delivery, was, err := d.PublishKeyed(t.Context(), c, key, m)
			if err != nil || delivery != mqtt.Acknowledged || was != replayed {
				t.Errorf("%q, %t, %v", delivery, was, err)
			}
		}
		once(client("a"), false)
		time.Sleep(10*time.Minute - time.Second) // of the bubble's clock
		once(client("a"), true)
		once(client("b"), false)
		other := m
		other.Retain = true
		if _, _, err := d.PublishKeyed(t.Context(), client("a"), key, other); !fault.Is(err, fault.IdempotencyMismatch) {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Second)
		once(client("a"), false)
		if b.count() != 3 {
			t.Errorf("%d messages reached the broker", b.count())
		}
	})
}

// What fails leaves the key free, and a right that has gone is not replayed.
func TestKeyAfterARefusal(t *testing.T) {
	b := &broker{fail: fault.New(fault.UpstreamUnavailable, "down")}
	d := desk(b, nil)
	m := mqtt.Message{Topic: "pets/1", QoS: 1}
	key := publish.Key{Text: "k"}
	if _, _, err := d.PublishKeyed(t.Context(), client("a"), key, m); !errors.Is(err, b.fail) {
		t.Errorf("got %v", err)
	}
	b.fail = nil
	if _, replayed, err := d.PublishKeyed(t.Context(), client("a"), key, m); err != nil || replayed {
		t.Errorf("%t, %v", replayed, err)
	}
	without := client("a")
	without.Principal.Grants.Pub = nil
	if _, _, err := d.PublishKeyed(t.Context(), without, key, m); !fault.Is(err, fault.NotAuthorized) {
		t.Errorf("got %v", err)
	}
}

// slowBroker acknowledges when it is told to.
type slowBroker struct {
	broker
	begun, release chan struct{}
}

func (b *slowBroker) Publish(ctx context.Context, m mqtt.Message) (mqtt.Delivery, error) {
	close(b.begun) // a second publish panics
	<-b.release
	return b.broker.Publish(ctx, m)
}

// A repetition waits for the first, though the first's client has gone.
func TestRepetitionWaitsForTheFirst(t *testing.T) {
	b := &slowBroker{begun: make(chan struct{}), release: make(chan struct{})}
	d := desk(b, nil)
	text := "x"
	p := &wire.Publish{Topic: "pets/1", Text: &text, IdempotencyKey: "k"}
	gone, leave := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = d.PublishWire(gone, client("a"), p) })
	<-b.begun
	leave()
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := d.PublishWire(short, client("a"), p); !fault.Is(err, fault.UpstreamTimeout) {
		t.Errorf("one that does not wait to the end: %v", err)
	}
	wg.Go(func() {
		if delivery, err := d.PublishWire(t.Context(), client("a"), p); err != nil || delivery != mqtt.Acknowledged {
			t.Errorf("%q, %v", delivery, err)
		}
	})
	close(b.release)
	wg.Wait()
	if b.count() != 1 {
		t.Errorf("%d messages reached the broker", b.count())
	}
}
