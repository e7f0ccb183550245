package ws

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxBehind bounds what control frames may add while a write is blocked.
const maxBehind = 64 << 10

// writeBuffer is enough for frame headers and control frames; larger writes pass
// it by.
const writeBuffer = 512

// upgrader gives the WebSocket library a connection that coalesces writes: the
// library flushes after each frame, and a system call per message is what
// delivery costs most.
type upgrader struct {
	http.ResponseWriter
	timeout time.Duration
	conn    *coalescer
}

// Hijack implements http.Hijacker.
func (u *upgrader) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	u.conn = newCoalescer(conn, u.timeout)
	return u.conn, bufio.NewReadWriter(rw.Reader, bufio.NewWriterSize(u.conn, writeBuffer)), nil
}

// coalescer collects writes between cork and uncork and makes them one, with a
// deadline. Writes from others (the library answers pings in the reader's
// goroutine) never wait for a blocked one; they go out behind it.
type coalescer struct {
	net.Conn
	timeout time.Duration
	expired func() bool // of the stream; set before the first data frame

	idle    *sync.Cond // signalled under mu when writing ends
	mu      sync.Mutex // guards what follows; not held while writing
	pending []byte
	spare   []byte
	corked  bool
	writing bool
	err     error
}

var errBehind = errors.New("the client does not read")

func newCoalescer(conn net.Conn, timeout time.Duration) *coalescer {
	c := &coalescer{Conn: conn, timeout: timeout}
	c.idle = sync.NewCond(&c.mu)
	return c
}

// Write implements net.Conn.
func (c *coalescer) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	if c.writing && !c.corked && len(c.pending)+len(p) > maxBehind {
		return 0, errBehind
	}
	c.pending = append(c.pending, p...)
	if c.corked || c.writing {
		return len(p), nil
	}
	return len(p), c.flush()
}

func (c *coalescer) cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

// uncork writes what has been collected and returns when the connection has taken
// it. It waits for a control frame that is being written: the queue's bound would
// mean nothing if the writer went on to collect meanwhile.
func (c *coalescer) uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	for c.writing {
		c.idle.Wait()
	}
	return c.flush()
}

// waiting is how many bytes have been collected.
func (c *coalescer) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending)
}

// flush writes until nothing is pending. It needs c.mu and gives it up meanwhile.
func (c *coalescer) flush() error {
	c.writing = true
	for len(c.pending) > 0 && c.err == nil {
		batch := c.pending
		c.pending = c.spare[:0]
		c.mu.Unlock()
		err := c.writePieces(batch)
		c.mu.Lock()
		c.err = err
		if c.spare = batch[:0]; cap(batch) > maxBehind {
			c.spare = nil // a burst must not cost an idle connection its memory
		}
	}
	c.writing = false
	c.idle.Broadcast()
	return c.err
}

var errExpired = errors.New("the token expired while the client was slow")

// writePieces gives each piece of b a deadline of its own. The first may hold the
// end; what a slow client would get after it is not written any more.
func (c *coalescer) writePieces(b []byte) error {
	for first := true; len(b) > 0; first = false {
		if !first && c.expired != nil && c.expired() {
			return errExpired
		}
		piece := b[:min(len(b), batchBytes)]
		b = b[len(piece):]
		if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			return err
		}
		if _, err := c.Conn.Write(piece); err != nil {
			return err
		}
	}
	return nil
}
