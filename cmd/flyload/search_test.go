//go:build linux

package main

import (
	"errors"
	"testing"
)

func TestSearchFindsTheLimit(t *testing.T) {
	for _, limit := range []float64{3000, 20_000, 55_000, 162_000, 1_142_000} {
		tries := 0
		got, err := search(20_000, 2, 3, func(rate float64) (bool, error) { tries++; return rate <= limit, nil })
		// Three halvings of a factor of 2 leave an eighth of it.
		if err != nil || got > limit || got < limit/1.0906 {
			t.Errorf("limit %.0f: found %.0f (%v)", limit, got, err)
		}
		if tries > maxTries {
			t.Errorf("limit %.0f: %d tries", limit, tries)
		}
	}
}

func TestSearchEnds(t *testing.T) {
	tries := 0
	if got, _ := search(20_000, 2, 3, func(float64) (bool, error) { tries++; return false, nil }); got != 0 || tries > 6 {
		t.Errorf("nothing passes: found %.0f after %d tries", got, tries)
	}
	if got, _ := search(20_000, 1.01, 3, func(float64) (bool, error) { return true, nil }); got < 20_000 || got > mostRate {
		t.Errorf("everything passes: found %.0f", got)
	}
	broken := errors.New("the server is gone")
	if got, err := search(20_000, 2, 3, func(rate float64) (bool, error) {
		if rate > 50_000 {
			return false, broken
		}
		return true, nil
	}); !errors.Is(err, broken) || got != 40_000 {
		t.Errorf("found %.0f, %v; want what passed before the error", got, err)
	}
}
