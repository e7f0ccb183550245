package hub_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/mqtt"
)

func TestSnapshotsOfOneFilterShareARound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.retained = []mqtt.Message{{Topic: "a/1", Payload: []byte("x"), Retain: true}}
		h := start(t, s)
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				snapshot, err := h.Snapshot(t.Context(), "a/#")
				if err != nil || len(snapshot.Frames) != 1 || !snapshot.Complete {
					t.Errorf("%+v, %v", snapshot, err)
				}
			})
		}
		wg.Wait()
		if n := s.count("snapshot"); n != 1 {
			t.Errorf("%d snapshots at the broker, want 1", n)
		}
		if _, err := h.Snapshot(t.Context(), "a/#"); err != nil {
			t.Error(err)
		}
		if n := s.count("snapshot"); n != 2 {
			t.Errorf("%d snapshots at the broker, want a second one for who came later", n)
		}
	})
}

// Who joins one after the other shares rounds too, and who joins while a round
// waits for its turn shares that one, if it came early enough; no join costs a goroutine.
func TestSnapshotsInARowShareRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.retained = []mqtt.Message{{Topic: "a/1", Payload: []byte("x"), Retain: true}}
		h := start(t, s)
		before := runtime.NumGoroutine()
		var done atomic.Int64
		for range 1000 {
			err := h.SnapshotAsync(t.Context(), "a/#", func(snapshot *hub.Snapshot, err error) {
				if err != nil || len(snapshot.Frames) != 1 {
					t.Errorf("%+v, %v", snapshot, err)
				}
				done.Add(1)
			})
			if err != nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
			if n := runtime.NumGoroutine(); n > before+5 {
				t.Errorf("%d goroutines more", n-before)
			}
		}
		time.Sleep(time.Second)
		if n := s.count("snapshot"); done.Load() != 1000 || n > 12 {
			t.Errorf("%d of 1,000 were served with %d snapshots at the broker, want all with at most 12", done.Load(), n)
		}
	})
}

// late is a retainer whose turn comes late; settled is how long the last who
// shared the round had waited.
type late struct{ *source }

func (l late) RetainedFrom(ctx context.Context, f mqtt.Filter, begin func(time.Time)) ([]mqtt.Message, bool, error) {
	time.Sleep(time.Second)
	begin(time.Now())
	return l.Retained(ctx, f)
}

func TestWhoWaitsForARoundsTurnSharesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		h := hub.New(hub.Options{Source: s, Retainer: late{s}, Logger: slog.New(slog.DiscardHandler)})
		run(t, h)
		begun := time.Now()
		took := make([]time.Duration, 4)
		var all sync.WaitGroup
		cancelled, cancel := context.WithCancel(t.Context())
		for n, wait := range []time.Duration{0, 500 * time.Millisecond, 1000 * time.Millisecond, 1010 * time.Millisecond} {
			all.Go(func() {
				time.Sleep(wait) // the round asks the broker at 1,020 ms
				if _, err := h.Snapshot(t.Context(), "a"); err != nil {
					t.Error(err)
				}
				took[n] = time.Since(begun)
			})
		}
		all.Go(func() {
			if _, err := h.Snapshot(cancelled, "a"); !errors.Is(err, context.Canceled) {
				t.Errorf("who left got %v", err)
			}
		})
		time.Sleep(time.Millisecond)
		cancel()
		all.Wait()
		first, second := 1030*time.Millisecond, 2150*time.Millisecond
		if want := []time.Duration{first, first, first, second}; !slices.Equal(took, want) {
			t.Errorf("answered after %v, want %v", took, want)
		}
	})
}
