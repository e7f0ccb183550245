package stream_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest/mosquitto"
	"flyscreen/gateway/internal/broker"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/internal/upstream"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// patience is how long something that must happen may take.
const patience = 30 * time.Second

// rig is the way from a broker to streams, without the doors.
type rig struct {
	url     string
	hub     *hub.Hub
	streams *stream.Registry
}

func newRig(t *testing.T, url string, limits stream.Limits) *rig {
	t.Helper()
	r := &rig{url: url}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	up, err := upstream.New(upstream.Options{
		URL: url, Logger: log,
		Deliver: func(m mqtt.Message) { r.hub.Deliver(m) },
		Link:    func(up bool) { r.hub.Link(up) },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.hub = hub.New(hub.Options{Source: up, Retainer: up, Logger: log})
	r.streams = stream.NewRegistry(r.hub, limits, log, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = up.Run(ctx) })
	wg.Go(func() { _ = r.hub.Run(ctx) })
	wg.Go(func() { _ = r.streams.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	eventually(t, "the upstream is ready", func() bool { return up.Ready() == nil && r.hub.Up() })
	return r
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen within %s: %s", patience, what)
		}
	}
}

var roomy = stream.Limits{QueueMessages: 1 << 20, QueueBytes: 1 << 30, Filters: 100, PerSubject: 1000, PerAddress: 1000, Total: 1000}

// open makes a stream that may read everything.
func (r *rig) open(t *testing.T) *stream.Stream {
	t.Helper()
	s, err := r.streams.Open("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Authenticate(auth.Principal{Subject: "test", Grants: auth.Grants{Sub: []mqtt.Filter{"#"}}}); err != nil {
		t.Fatal(err)
	}
	return s
}

func join(t *testing.T, s *stream.Stream, names ...string) {
	t.Helper()
	var requests []stream.Request
	for _, n := range names {
		requests = append(requests, stream.Request{Filter: mqtt.Filter(n), QoS: 1, Snapshot: true})
	}
	o, err := s.Subscribe(t.Context(), stream.Subscription{Requests: requests, Named: true}, func(stream.Outcome) []*wire.Event { return nil })
	if err != nil {
		t.Error(err)
	}
	for _, result := range o.Results {
		if result.Err != nil {
			t.Error(result.Err)
		}
	}
}

// next takes waiting items, and waits for some.
func next(t *testing.T, s *stream.Stream) []stream.Item {
	t.Helper()
	timeout := time.After(patience)
	for {
		if items := s.Take(nil, 1000); len(items) > 0 {
			return items
		}
		select {
		case <-s.Wake():
		case <-timeout:
			t.Error("nothing came")
			return nil
		}
	}
}

func eachBroker(t *testing.T, run func(t *testing.T, url string)) {
	t.Run("embedded", func(t *testing.T) {
		b, err := broker.New(broker.Options{Listen: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Stop(context.Background()) })
		run(t, "tcp://"+b.Addr().String())
	})
	t.Run("mosquitto", func(t *testing.T) {
		run(t, mosquitto.Start(t, "max_queued_messages 0").URL())
	})
}

const (
	raceTopics  = 40
	raceStatic  = 10
	raceReaders = 12
	raceJoins   = 80 // of all readers together
	raceReads   = 300
	racePace    = 10 * time.Millisecond // for each publisher's ten topics
)

// The promise of snapshot.go, under load: publishers never pause, streams join all
// the time, with overlapping filters, and each must see each topic's counter begin
// with the retained value and then go up by one; topics that do not change come
// exactly once, before live.
func TestSnapshotJoinsLiveWithoutGapOrDouble(t *testing.T) {
	for _, qos := range []byte{0, 1} {
		t.Run("qos"+strconv.Itoa(int(qos)), func(t *testing.T) {
			eachBroker(t, func(t *testing.T, url string) { race(t, url, qos) })
		})
	}
}

func race(t *testing.T, url string, qos byte) {
	r := newRig(t, url, roomy)
	publishers := publish(t, url, qos)
	defer publishers()

	var joins, checked atomic.Int64
	var readers sync.WaitGroup
	for n := range raceReaders {
		readers.Go(func() {
			for joins.Add(1) <= raceJoins && !t.Failed() {
				checked.Add(int64(r.readOnce(t, n)))
			}
		})
	}
	readers.Wait()
	t.Logf("%d joins, %d messages checked", raceJoins, checked.Load())
}

// publish starts four publishers of retained counters and returns when every
// topic has a value; the function that it returns ends them.
func publish(t *testing.T, url string, qos byte) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running, first sync.WaitGroup
	for p := range 4 {
		client := paho.NewClient(paho.NewClientOptions().AddBroker(url).SetClientID(fmt.Sprintf("publisher-%d", p)))
		if token := client.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
			t.Fatal(token.Error())
		}
		first.Add(1)
		running.Go(func() {
			defer client.Disconnect(0)
			for i := p; i < raceStatic; i += 4 {
				client.Publish(fmt.Sprintf("r/static/%d", i), 1, true, "1").Wait()
			}
			// Paced, because at QoS 0 nothing else holds a publisher back, and a broker
			// that is overrun keeps no promise.
			pace := time.NewTicker(racePace)
			defer pace.Stop()
			for n := 1; ctx.Err() == nil; n++ {
				<-pace.C
				for i := p; i < raceTopics; i += 4 {
					client.Publish(fmt.Sprintf("r/%d/v", i), qos, true, strconv.Itoa(n)).Wait()
				}
				if n == 1 {
					first.Done()
				}
			}
		})
	}
	first.Wait()
	return func() {
		cancel()
		running.Wait()
	}
}

// readOnce joins, reads a while, leaves, and returns how many messages it checked.
func (r *rig) readOnce(t *testing.T, n int) (checked int) {
	s := r.open(t)
	defer s.Close()
	joins := 1
	switch n % 3 {
	case 0:
		join(t, s, "r/#")
	case 1: // overlapping filters in one request
		join(t, s, "r/+/v", "r/1/#", "r/static/#")
	case 2: // a second subscription while the first is live already
		join(t, s, "r/+/v")
		join(t, s, "r/static/#", "r/2/v")
		joins = 2
	}
	last := map[mqtt.Topic]int{}
	lives := 0
	for checked < raceReads || lives < joins {
		items := next(t, s)
		if items == nil {
			return checked
		}
		for _, item := range items {
			if e := item.Event; e != nil {
				if e.Name != "live" {
					t.Errorf("reader %d: unexpected event %s %s", n, e.Name, e.Fields)
				}
				lives++
				continue
			}
			checked++
			check(t, n, item.Frame, last)
		}
	}
	for i := range raceStatic {
		if last[mqtt.Topic(fmt.Sprintf("r/static/%d", i))] != 1 {
			t.Errorf("reader %d: r/static/%d did not come", n, i)
		}
	}
	return checked
}

func check(t *testing.T, n int, f *hub.Frame, last map[mqtt.Topic]int) {
	var m struct {
		Payload int  `json:"payload"`
		Retain  bool `json:"retain"`
	}
	if err := json.Unmarshal(f.JSON, &m); err != nil {
		t.Errorf("%s: %v", f.JSON, err)
		return
	}
	before, seen := last[f.Topic]
	second := n%3 == 2 && f.Topic == "r/2/v" // subscribed twice: its snapshot comes twice
	switch {
	case seen && m.Retain && !second:
		t.Errorf("reader %d: %s: a second retained message, %d after %d", n, f.Topic, m.Payload, before)
	case seen && m.Payload != before+1 && (!second || !m.Retain || m.Payload != before):
		t.Errorf("reader %d: %s: %d after %d (retain %v)", n, f.Topic, m.Payload, before, m.Retain)
	}
	last[f.Topic] = m.Payload
}
