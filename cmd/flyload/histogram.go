//go:build linux

package main

import (
	"math/bits"
	"time"
)

// subBuckets is the number of buckets for each power of two: a bucket is at most
// 1/64 of its value wide.
const subBuckets = 64

// histogram counts durations in whole microseconds, exact to 1.6 percent, up to
// two hours. The zero value is empty.
type histogram struct {
	count   uint64
	largest uint64
	buckets [subBuckets * 28]uint64
}

func bucket(us uint64) int {
	if us < subBuckets {
		return int(us)
	}
	shift := bits.Len64(us) - bits.Len64(subBuckets)
	return min(shift*subBuckets+int(us>>shift), subBuckets*28-1) //nolint:gosec // us>>shift is below 128
}

// lowest is the smallest value in bucket i.
func lowest(i int) uint64 {
	if i < subBuckets {
		return uint64(i) //nolint:gosec // a bucket's index is not negative
	}
	shift := i/subBuckets - 1
	return uint64(i-shift*subBuckets) << shift //nolint:gosec // at least subBuckets
}

// add counts d; a negative one, from a clock that was set, as zero.
func (h *histogram) add(d time.Duration) {
	us := uint64(max(d.Microseconds(), 0))
	h.count++
	h.largest = max(h.largest, us)
	h.buckets[bucket(us)]++
}

func (h *histogram) merge(o *histogram) {
	h.count += o.count
	h.largest = max(h.largest, o.largest)
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
}

// quantile is the value that a share q of the durations does not exceed; zero when
// there are none.
func (h *histogram) quantile(q float64) time.Duration {
	wanted, seen := uint64(q*float64(h.count)), uint64(0)
	for i, n := range h.buckets {
		seen += n
		if seen > wanted {
			return micros(min(lowest(i), h.largest))
		}
	}
	return micros(h.largest)
}

func micros(us uint64) time.Duration {
	return time.Duration(us) * time.Microsecond //nolint:gosec // it came from a Duration
}
