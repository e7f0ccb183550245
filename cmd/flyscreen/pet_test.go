package main

import (
	"encoding/json"
	"math"
	"testing"
	"time"
)

func TestPetStaysInTheParkAndMovesLikeOne(t *testing.T) {
	for seed := range uint64(20) {
		p := newPet("rex", seed)
		done := map[activity]bool{}
		before := p.location()
		for range 3600 {
			p.step(time.Second)
			now := p.location()
			done[p.doing] = true
			if away := metres(location{Lat: parkLat, Lng: parkLng}, now); away > parkRadius+60 {
				t.Fatalf("seed %d: %.0f m from the middle", seed, away)
			}
			if jump := metres(before, now); jump > 6 {
				t.Fatalf("seed %d: %.1f m in a second", seed, jump)
			}
			if now.Speed < 0 || now.Speed > 20 || now.Battery < 1 || now.Battery > 100 {
				t.Fatalf("seed %d: %+v", seed, now)
			}
			before = now
		}
		if !done[walking] || !done[resting] || !done[playing] {
			t.Errorf("seed %d: in an hour it only was %v", seed, done)
		}
		if p.action().Steps < 100 {
			t.Errorf("seed %d: %d steps in an hour", seed, p.action().Steps)
		}
	}
}

// metres between two places that are near each other.
func metres(a, b location) float64 {
	north := (b.Lat - a.Lat) * metresPerDegree
	east := (b.Lng - a.Lng) * metresPerDegree * math.Cos(a.Lat*math.Pi/180)
	return math.Hypot(north, east)
}

func TestPetWithTheSameSeedLivesTheSameLife(t *testing.T) {
	a, b, other := newPet("a", 1), newPet("a", 1), newPet("a", 2)
	for range 100 {
		a.step(time.Second)
		b.step(time.Second)
		other.step(time.Second)
	}
	if a.location() != b.location() || a.location() == other.location() {
		t.Errorf("got %+v, %+v and, of another seed, %+v", a.location(), b.location(), other.location())
	}
}

func TestReportsHaveTheirShapes(t *testing.T) {
	p := newPet("rex", 1)
	for want, report := range map[string]any{
		`{"lat":52.5145,"lng":13.3501,"speed":3.6,"battery":50}`: func() any { p.east, p.north, p.speed, p.battery = 0, 0, 1, 50.2; return p.location() }(),
		`{"state":"sleeping","steps":7}`:                         func() any { p.steps = 7.9; p.doing = sleeping; return p.action() }(),
	} {
		if got, err := json.Marshal(report); err != nil || string(got) != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
}
