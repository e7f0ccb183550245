package stream_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"flyscreen/gateway/gatewaytest/mosquitto"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/internal/upstream"
	"flyscreen/gateway/mqtt"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/prometheus/client_golang/prometheus"
)

// total reads a counter, summed over its labels.
func total(t *testing.T, registry *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// counting is a rig whose metrics can be read.
func counting(t *testing.T, url string) (*rig, *prometheus.Registry) {
	t.Helper()
	r, registry := &rig{url: url}, prometheus.NewRegistry()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	up, err := upstream.New(upstream.Options{
		URL: url, Logger: log, Metrics: registry,
		Deliver: func(m mqtt.Message) { r.hub.Deliver(m) },
		Link:    func(up bool) { r.hub.Link(up) },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.hub = hub.New(hub.Options{Source: up, Retainer: up, Logger: log})
	r.streams = stream.NewRegistry(r.hub, roomy, log, nil)
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
	return r, registry
}

// retain sets n retained values under prefix.
func retain(t *testing.T, url, prefix string, n int) paho.Client {
	t.Helper()
	client := paho.NewClient(paho.NewClientOptions().AddBroker(url).SetClientID("retains"))
	if token := client.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	t.Cleanup(func() { client.Disconnect(100) })
	for i := range n {
		qos := byte(0)
		if i%500 == 499 || i == n-1 {
			qos = 1 // or a broker may be overrun
		}
		if token := client.Publish(fmt.Sprintf("%s/%d", prefix, i), qos, true, "a retained value"); qos == 1 && (!token.WaitTimeout(patience) || token.Error() != nil) {
			t.Fatal("the retained values were not taken: ", token.Error())
		}
	}
	return client
}

// 900 streams that open at once on one filter cost the broker one subscription and a
// few snapshots, and each gets the whole of it.
func TestManyStreamsShareSnapshots(t *testing.T) {
	eachBroker(t, func(t *testing.T, url string) {
		r, registry := counting(t, url)
		retain(t, url, "many", 50)
		var all sync.WaitGroup
		for range 900 {
			all.Go(func() {
				s := r.open(t)
				defer s.Close()
				join(t, s, "many/#")
				for retained := 0; ; {
					for _, item := range next(t, s) {
						if item.Event == nil {
							retained++
							continue
						}
						if retained != 50 || !strings.Contains(string(item.Event.Fields), `"complete":true`) {
							t.Errorf("%d retained messages, %s %s", retained, item.Event.Name, item.Event.Fields)
						}
						return
					}
					if t.Failed() {
						return
					}
				}
			})
		}
		all.Wait()
		snapshots, filters := total(t, registry, "flyscreen_upstream_snapshots_total"), total(t, registry, "flyscreen_upstream_subscribed_filters_total")
		if snapshots > 30 || filters != 1 {
			t.Errorf("the broker was asked for %g snapshots and %g filters, want at most 30 and 1", snapshots, filters)
		}
		t.Logf("%g snapshots", snapshots)
	})
}

// A filter with many more retained messages than a snapshot may have: it is told as
// incomplete, the memory stays bounded, the connections stay, and live messages of
// others pass meanwhile. (Mosquitto itself stands still while it queues that much.)
func TestHugeSnapshotDisturbsNobody(t *testing.T) {
	url := mosquitto.Start(t, "max_queued_messages 0").URL()
	const many = 100_000
	r, registry := counting(t, url)
	client := retain(t, url, "huge", many)
	other := r.open(t)
	defer other.Close()
	join(t, other, "other")
	_ = next(t, other) // live
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	asked := make(chan struct{})
	var snapshot *hub.Snapshot
	go func() {
		defer close(asked)
		var err error
		asking := r.open(t)
		defer asking.Close()
		if _, errs := r.hub.Join(t.Context(), asking, []mqtt.Filter{"huge/#"}); errs[0] != nil {
			t.Error(errs[0])
		}
		if snapshot, err = r.hub.Snapshot(t.Context(), "huge/#"); err != nil {
			t.Error(err)
		}
	}()
	var slowest time.Duration
	passed := 0
	for done := false; !done || passed < 10; passed++ {
		begun := time.Now()
		client.Publish("other", 1, false, "x")
		if next(t, other) == nil {
			break
		}
		slowest = max(slowest, time.Since(begun))
		select {
		case <-asked:
			done = true
		default:
		}
	}
	<-asked
	runtime.GC()
	runtime.ReadMemStats(&after)
	if snapshot == nil || snapshot.Complete || len(snapshot.Frames) != 10_000 {
		t.Fatalf("the snapshot is %+v", snapshot)
	}
	grown := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) >> 20
	if grown > 64 {
		t.Errorf("the heap grew by %d MB", grown)
	}
	if lost := total(t, registry, "flyscreen_upstream_connection_losses_total"); lost != 0 {
		t.Errorf("%g connections were lost", lost)
	}
	t.Logf("%d live messages meanwhile, the slowest %s, the heap grew by %d MB", passed, slowest, grown)
}
