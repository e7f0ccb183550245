// Package line is the way out to one client: a connection that takes bytes without
// making the writer wait. What the socket does not take at once waits here, bounded,
// and only then there is a goroutine that writes, until the client has caught up.
package line

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// maxBehind bounds what Write may add while the client is behind.
	maxBehind = 64 << 10
	// piece is what gets a write deadline of its own, so that it hits a client that
	// does not read and not one whose line is slow.
	piece = 32 << 10
)

// The faults of a line.
var (
	ErrBehind  = errors.New("the client does not read")
	ErrExpired = errors.New("the token expired while the client was slow")
)

// Options are what a line needs to know.
type Options struct {
	// Timeout bounds the writing of each 32 KiB to a client that is behind.
	Timeout time.Duration
	// Expired reports that nothing more may be delivered; nil: never.
	Expired func() bool
	// Freed is called, without a lock, when the line takes bytes again or has
	// failed; nil: nobody asks.
	Freed func()
}

// Conn is what a line needs of a connection.
type Conn interface {
	io.WriteCloser
	SetWriteDeadline(t time.Time) error
}

// Line is the writing side of a connection. Its methods are safe for concurrent
// use.
type Line struct {
	conn    Conn
	options Options
	raw     syscall.RawConn // nil: a write may wait, so a goroutine makes it
	try     func(fd uintptr) bool
	writers sync.WaitGroup

	mu      sync.Mutex // guards what follows; held through a write that does not wait
	b       []byte     // try's argument
	n       int        // and its results
	errno   error
	rest    []byte // waits for the goroutine
	extra   int    // of rest, what Write has added
	behind  bool   // the goroutine runs
	ended   bool   // nothing more is taken
	closing bool   // the connection is closed when rest is written
	err     error
}

// New makes a line of conn. Only to a plain TCP or Unix connection it writes
// without a goroutine.
func New(conn Conn, o Options) *Line {
	l := &Line{conn: conn, options: o, raw: rawConn(conn)}
	if l.raw != nil {
		l.try = l.attempt
	}
	return l
}

// Free reports whether Offer may be called: the client has caught up, or the line
// has failed and Offer says why.
func (l *Line) Free() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.behind
}

// Offer takes b, which is the caller's again when it returns, and writes what the
// socket takes at once. It is meant to be called when the line is free; what comes
// earlier waits behind the rest.
func (l *Line) Offer(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.offer(b)
}

// Control is Offer for a library's control frames, which go out behind what waits.
// It fails with ErrBehind when a client makes us answer and does not read. Nothing
// is taken after the last one.
func (l *Line) Control(b []byte, last bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.behind {
		if l.extra+len(b) > maxBehind {
			return ErrBehind
		}
		l.extra += len(b)
	}
	err := l.offer(b)
	l.ended = l.ended || last
	return err
}

// offer needs l.mu.
func (l *Line) offer(b []byte) error {
	if l.err == nil && l.ended {
		return net.ErrClosed
	}
	if l.err == nil && !l.behind && l.raw != nil {
		l.b, l.n, l.errno = b, 0, nil
		if err := l.raw.Write(l.try); err != nil {
			l.err = err
		} else if l.errno != nil {
			l.err = l.errno
		}
		l.b = nil
		b = b[l.n:]
	}
	if l.err != nil {
		_ = l.conn.Close() // so that who reads learns of it
	}
	if l.err != nil || len(b) == 0 {
		return l.err
	}
	l.rest = append(l.rest, b...)
	if !l.behind {
		l.behind = true
		l.writers.Go(l.catchUp)
	}
	return nil
}

// catchUp writes the rest, piece by piece, until there is none.
func (l *Line) catchUp() {
	var writing []byte
	for {
		l.mu.Lock()
		if len(l.rest) == 0 || l.err != nil {
			l.rest, l.extra, l.behind = nil, 0, false
			over := l.closing || l.err != nil
			l.mu.Unlock()
			if over {
				_ = l.conn.Close()
			}
			if l.options.Freed != nil {
				l.options.Freed()
			}
			return
		}
		writing, l.rest, l.extra = l.rest, writing[:0], 0
		l.mu.Unlock()
		if err := l.write(writing); err != nil {
			l.mu.Lock()
			l.err = err
			l.mu.Unlock()
		}
	}
}

// write gives each piece of b a deadline of its own. The first may hold the end;
// what a slow client would get after it is not written any more.
func (l *Line) write(b []byte) error {
	for first := true; len(b) > 0; first = false {
		if !first && l.options.Expired != nil && l.options.Expired() {
			return ErrExpired
		}
		part := b[:min(len(b), piece)]
		b = b[len(part):]
		if err := l.conn.SetWriteDeadline(time.Now().Add(l.options.Timeout)); err != nil {
			return err
		}
		if _, err := l.conn.Write(part); err != nil {
			return err
		}
	}
	return l.conn.SetWriteDeadline(time.Time{}) // a write that does not wait knows no deadline
}

// Finish closes the connection when everything has been written.
func (l *Line) Finish() {
	l.mu.Lock()
	l.ended, l.closing = true, true
	behind := l.behind
	l.mu.Unlock()
	if !behind {
		_ = l.conn.Close()
	}
}

// Drop closes the connection at once.
func (l *Line) Drop(cause error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = cause
	}
	l.mu.Unlock()
	_ = l.conn.Close()
}

// Wait returns when the line's goroutine has ended; the connection must have been
// closed.
func (l *Line) Wait() { l.writers.Wait() }

// Settle takes nothing more and returns when what waits has been written or has
// failed.
func (l *Line) Settle() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.writers.Wait()
}
