//go:build linux

package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestQuantilesAreExactToABucket(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h, first, second histogram
	values := make([]time.Duration, 100_000)
	for i := range values {
		// From microseconds to minutes, as many in each power of two.
		values[i] = time.Duration(1<<random.IntN(27)+random.IntN(1000)) * time.Microsecond
		h.add(values[i])
		if i%3 == 0 {
			first.add(values[i])
		} else {
			second.add(values[i])
		}
	}
	slices.Sort(values)
	first.merge(&second)
	if first != h {
		t.Error("two merged histograms differ from one that had all")
	}
	for _, q := range []float64{0, 0.1, 0.5, 0.9, 0.99, 0.999} {
		want := values[int(q*float64(len(values)))]
		got := h.quantile(q)
		if got > want || float64(got) < float64(want)*(1-1.0/subBuckets)-float64(time.Microsecond) {
			t.Errorf("quantile %v is %v, want %v or up to a bucket's width below", q, got, want)
		}
	}
	if got, want := h.quantile(1), values[len(values)-1]; got != want {
		t.Errorf("the largest is %v, want %v", got, want)
	}
}

func TestBucketsMeet(t *testing.T) {
	for i := 1; i < subBuckets*28; i++ {
		if at := bucket(lowest(i)); at != i {
			t.Fatalf("the lowest value of bucket %d, %d, falls into %d", i, lowest(i), at)
		}
		if below := bucket(lowest(i) - 1); below != i-1 {
			t.Fatalf("the value below bucket %d, %d, falls into %d", i, lowest(i)-1, below)
		}
	}
}

func TestHistogramAtItsEnds(t *testing.T) {
	var h histogram
	if got := h.quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
	h.add(-time.Second)
	h.add(1000 * time.Hour)
	if h.count != 2 || h.quantile(0) != 0 || h.quantile(1) != 1000*time.Hour {
		t.Errorf("count %d, from %v to %v; want 2, from 0 to 1000h", h.count, h.quantile(0), h.quantile(1))
	}
}
