//go:build linux

package main

import "math"

const (
	maxTries  = 16
	leastRate = 100 // deliveries a second
	mostRate  = 5e6
	// giveUp is the part of the first rate below which no further one is tried.
	giveUp = 1.0 / 16
)

// search finds the highest rate that passes: from start in steps of factor, up
// while they pass or down while they fail, then bisections of the gap (halfway
// between by ratio). It asks try at most maxTries times and returns 0 when no
// rate passed.
func search(start, factor float64, bisections int, try func(rate float64) (passed bool, err error)) (float64, error) {
	passed, failed := 0.0, 0.0
	rate := start
	for range maxTries {
		ok, err := try(rate)
		if err != nil {
			return passed, err
		}
		if ok {
			passed = rate
		} else {
			failed = rate
		}
		switch {
		case failed == 0:
			rate = passed * factor
		case passed == 0:
			rate = failed / factor
		case bisections > 0:
			bisections--
			rate = math.Sqrt(passed * failed)
		default:
			return passed, nil
		}
		if rate < max(leastRate, start*giveUp) || rate > mostRate {
			break
		}
	}
	return passed, nil
}
