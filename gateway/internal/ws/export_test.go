package ws

import (
	"net"
	"testing"
	"time"
)

// MaxBehind is what control frames may add while a write is blocked.
const MaxBehind = maxBehind

// ErrBehind is the fault of a client that makes us answer and does not read.
var ErrBehind = errBehind

// MaxComplaints is how many frames may be wrong.
const MaxComplaints = maxComplaints

// Coalescer is a connection that coalesces writes.
type Coalescer struct{ *coalescer }

// NewCoalescer makes one.
func NewCoalescer(conn net.Conn, timeout time.Duration) Coalescer {
	return Coalescer{newCoalescer(conn, timeout)}
}

// Cork begins to collect.
func (c Coalescer) Cork() { c.cork() }

// Uncork writes what was collected.
func (c Coalescer) Uncork() error { return c.uncork() }

// Waiting is how many bytes were collected.
func (c Coalescer) Waiting() int { return c.waiting() }

// SetPings changes how clients that are gone are found, until the test ends. To be
// called before the gateway starts.
func SetPings(t *testing.T, every, within time.Duration) {
	e, w := pingEvery, pongWithin
	t.Cleanup(func() { pingEvery, pongWithin = e, w })
	pingEvery, pongWithin = every, within
}
