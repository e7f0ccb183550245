//go:build linux

package main

import (
	"context"
	"os"
	"testing"
	"time"
)

// TestServers measures a short step at each server that the checks install or that
// is ours, with one topic and with several.
func TestServers(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, start := range map[string]func(context.Context, env, load) (*server, error){
		"floor": startFloor, "mochi": startMochi, "mosquitto": startMosquitto,
	} {
		for _, l := range []load{
			{name: "one topic", streams: 6, topics: 1, publishers: 2, rate: 300, payload: 120, p99: time.Minute},
			{name: "three topics", streams: 6, topics: 3, publishers: 2, rate: 300, payload: 1000, p99: time.Minute},
		} {
			t.Run(name+", "+l.name, func(t *testing.T) {
				s, err := start(t.Context(), env{dir: t.TempDir(), self: self}, l)
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := s.stop(); err != nil {
						t.Error(err)
					}
				}()
				got := measureAt(t, s, l)
				if want := got.published * uint64(l.streams/l.topics); got.bad != "" || got.published < 10 || got.tally.delivered != want {
					t.Errorf("%d published, %d delivered, %q; want %d and nothing bad", got.published, got.tally.delivered, got.bad, want)
				}
			})
		}
	}
}

func measureAt(t *testing.T, s *server, l load) step {
	t.Helper()
	if err := s.target.validate(); err != nil {
		t.Fatal(err)
	}
	r := &rig{server: s, load: l, patience: 2 * stallTime}
	defer r.close()
	if err := r.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := r.measure(t.Context(), l.rate, 300*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// A server that ends tells why at once, and stopping it is an error.
func TestServerThatEnds(t *testing.T) {
	p, err := launch(t.TempDir(), "", "broken", "sh", "-c", "echo no such luck; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.await(t.Context(), func() bool { return false }); err == nil || !contains(err.Error(), "exit status 3", "no such luck") {
		t.Errorf("awaiting it: %v", err)
	}
	if err := p.stop(); err == nil {
		t.Error("stopping it was no error")
	}
}
