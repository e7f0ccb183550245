//go:build linux

package main

import (
	"math"
	"os"
	"slices"
	"testing"
)

// Both clocks of this process tell the same; one that is not there is an error.
func TestProcessCPU(t *testing.T) {
	for before := ownCPU(); ownCPU() < before+0.1; {
		_ = os.Getpid()
	}
	got, err := processCPU(os.Getpid())
	if want := ownCPU(); err != nil || math.Abs(got-want) > 0.02 {
		t.Errorf("%.3f s (%v), and by another clock %.3f s", got, err, want)
	}
	if _, err := processCPU(1 << 22); err == nil {
		t.Error("a process that there is not has CPU time")
	}
}

func TestCPUList(t *testing.T) {
	for text, want := range map[string][]int{"0-1": {0, 1}, "3": {3}, "0-2,8": {0, 1, 2, 8}, "": nil} {
		if got := cpuList(text); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
