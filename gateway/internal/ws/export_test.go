package ws

import (
	"testing"
	"time"
)

// MaxComplaints is how many frames may be wrong.
const MaxComplaints = maxComplaints

// SetPings changes how clients that are gone are found, until the test ends. To be
// called before the gateway starts.
func SetPings(t *testing.T, every, within time.Duration) {
	e, w := pingEvery, pongWithin
	t.Cleanup(func() { pingEvery, pongWithin = e, w })
	pingEvery, pongWithin = every, within
}
