//go:build linux

package main

import (
	"bytes"
	"errors"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	readBuffer = 512 << 10
	// roundPause is slept after a round that found little to read: it saves the
	// client's core most wake-ups and adds up to that to a latency.
	roundPause = 200 * time.Microsecond
	busyRound  = 256 // events
)

// reader reads thousands of sockets with one thread, one epoll set and one
// buffer: a goroutine for each stream would cost more than the server.
type reader struct {
	epoll     int
	closing   atomic.Bool
	ended     chan struct{}
	delivered atomic.Uint64 // since the reader began
	lastAt    atomic.Int64  // when the last delivery was read, in nanoseconds since 1970

	mu      sync.Mutex // guards what follows, and what streamConn says
	open    map[int32]*streamConn
	since   int64 // messages due before do not count
	now     int64 // of the present read
	tally   tally
	latency histogram
}

// streamConn is one stream's connection. The reader's lock guards it once it is
// adopted, except ended.
type streamConn struct {
	index int
	door  string // the target's
	fd    int
	rest  []byte // bytes of an envelope that is not whole yet
	chunk chunks
	tail  []byte // bytes of a body that may begin a marker
	seen  checker
	ended atomic.Bool
}

func newReader() (*reader, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	r := &reader{epoll: fd, ended: make(chan struct{}), open: map[int32]*streamConn{}}
	go r.run()
	return r, nil
}

// adopt takes c over, with what was read of it already.
func (r *reader) adopt(c *streamConn) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = time.Now().UnixNano()
	c.tail = c.tail[:0]
	c.ended.Store(false)
	fd := int32(c.fd) //nolint:gosec // a descriptor
	r.open[fd] = c
	first := c.rest
	c.rest = nil
	if err := r.consume(c, first); err != nil {
		return err
	}
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: fd}
	return syscall.EpollCtl(r.epoll, syscall.EPOLL_CTL_ADD, c.fd, &event)
}

// stall stops reading c and leaves its connection open.
func (r *reader) stall(c *streamConn) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return syscall.EpollCtl(r.epoll, syscall.EPOLL_CTL_DEL, c.fd, nil)
}

func (r *reader) close() {
	r.closing.Store(true)
	<-r.ended
}

// mark begins a measurement.
func (r *reader) mark() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.since, r.tally, r.latency = time.Now().UnixNano(), tally{}, histogram{}
}

// totals are the counts and latencies since mark.
func (r *reader) totals() (tally, histogram) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tally, r.latency
}

func (r *reader) run() {
	defer close(r.ended)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	events := make([]syscall.EpollEvent, 1024)
	buf := make([]byte, readBuffer)
	for !r.closing.Load() {
		n, err := syscall.EpollWait(r.epoll, events, 100) // milliseconds, to see closing
		if err != nil && !errors.Is(err, syscall.EINTR) {
			break
		}
		if n > 0 {
			r.round(events[:n], buf)
		}
		if n < busyRound {
			pause(roundPause)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for fd, c := range r.open {
		r.drop(fd, c)
	}
	_ = syscall.Close(r.epoll)
}

func (r *reader) round(events []syscall.EpollEvent, buf []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.tally.delivered
	for _, e := range events {
		if c := r.open[e.Fd]; c != nil {
			if err := r.read(c, buf); err != nil {
				r.tally.lost++
				r.drop(e.Fd, c)
			}
		}
	}
	if n := r.tally.delivered - before; n > 0 {
		r.lastAt.Store(r.now)
		r.delivered.Add(n)
	}
}

// drop needs r.mu.
func (r *reader) drop(fd int32, c *streamConn) {
	c.ended.Store(true)
	delete(r.open, fd)
	_ = syscall.Close(c.fd)
}

var errEnded = errors.New("the server ended the stream")

func (r *reader) read(c *streamConn, buf []byte) error {
	kept := copy(buf, c.rest)
	n, err := syscall.Read(c.fd, buf[kept:])
	switch {
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		return nil
	case err != nil:
		return err
	case n == 0:
		return errEnded
	}
	r.now = time.Now().UnixNano()
	r.tally.reads++
	r.tally.bytes += uint64(n) //nolint:gosec // positive
	return r.consume(c, buf[:kept+n])
}

// consume counts the markers in b and keeps what is not whole.
func (r *reader) consume(c *streamConn, b []byte) (err error) {
	if c.door != "sse" {
		b, err = r.frames(c, b)
	} else {
		b, err = c.chunk.bodies(b, func(body []byte) { r.body(c, body) })
	}
	c.rest = append(c.rest[:0], b...)
	return err
}

func (r *reader) frames(c *streamConn, b []byte) (rest []byte, err error) {
	for {
		op, payload, used := nextFrame(b)
		if used == 0 {
			return b, nil
		}
		b = b[used:]
		switch op {
		case opClose:
			return b, errEnded
		case opPing:
			if _, err := syscall.Write(c.fd, clientFrame(opPong, payload)); err != nil {
				return b, err
			}
		case opPong:
		case opBinary: // an MQTT packet may be cut by the frame's end
			r.body(c, payload)
		default:
			scan(payload, func(m marker) { r.count(c, m) })
		}
	}
}

// body scans a part of an HTTP body or an MQTT connection; a marker may be cut
// anywhere.
func (r *reader) body(c *streamConn, b []byte) {
	if len(c.tail) > 0 {
		b = append(c.tail, b...)
	}
	c.tail = append(c.tail[:0], scan(b, func(m marker) { r.count(c, m) })...)
}

func (r *reader) count(c *streamConn, m marker) {
	if c.seen.see(m, r.since, &r.tally) {
		r.latency.add(time.Duration(r.now - m.due))
	}
}

// chunks takes the envelope of chunked coding off a body (RFC 9112 section 7.1).
type chunks struct {
	on   bool
	left int // bytes of the present chunk that have not come, its line break included
}

// bodies calls use for each part of a body in b and returns what is not whole.
func (k *chunks) bodies(b []byte, use func([]byte)) (rest []byte, err error) {
	if !k.on {
		use(b)
		return nil, nil
	}
	for len(b) > 0 {
		if k.left == 0 {
			line, after, whole := bytes.Cut(b, []byte("\r\n"))
			if !whole {
				return b, nil
			}
			size, err := strconv.ParseUint(string(line), 16, 31)
			if err != nil {
				return b, err
			}
			if size == 0 {
				return b, errEnded
			}
			k.left, b = int(size)+2, after
			continue
		}
		n := min(len(b), k.left)
		if data := min(n, k.left-2); data > 0 {
			use(b[:data])
		}
		k.left -= n
		b = b[n:]
	}
	return nil, nil
}
