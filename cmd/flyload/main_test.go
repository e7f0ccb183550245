//go:build linux

package main

import (
	"fmt"
	"os"
	"testing"
)

// TestMain lets the test program be the servers that the load run makes of itself.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && (os.Args[1] == "floor" || os.Args[1] == "mochi") {
		fmt.Fprintln(os.Stderr, start(os.Args[1:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}
