package line_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/gateway/internal/line"
)

// conn is a connection whose writes the test lets through one by one.
type conn struct {
	pass chan struct{} // nil lets all through

	mu       sync.Mutex // guards what follows
	writes   []string
	deadline time.Time
	closed   bool
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, string(p))
	deadline := c.deadline
	c.mu.Unlock()
	if c.pass == nil {
		return len(p), nil
	}
	select {
	case <-c.pass:
		return len(p), nil
	case <-time.After(time.Until(deadline)):
		return 0, os.ErrDeadlineExceeded
	}
}

func (c *conn) got() ([]string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.writes), c.closed
}

func offer(t *testing.T, l *line.Line, s string) {
	t.Helper()
	if err := l.Offer([]byte(s)); err != nil {
		t.Errorf("offer %.20q: %v", s, err)
	}
}

// inBubble runs test with a line whose writes wait to be let through; freed counts
// the calls of Freed.
func inBubble(t *testing.T, o line.Options, test func(c *conn, l *line.Line, freed *atomic.Int64)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		var freed atomic.Int64
		o.Freed = func() { freed.Add(1) }
		c := &conn{pass: make(chan struct{})}
		test(c, line.New(c, o), &freed)
	})
}

// What a client does not take waits for it, with control frames behind, and who
// offers does not.
func TestWhatWaitsGoesOutInOrder(t *testing.T) {
	inBubble(t, line.Options{Timeout: time.Minute}, func(c *conn, l *line.Line, freed *atomic.Int64) {
		offer(t, l, "data")
		synctest.Wait()
		if l.Free() || freed.Load() != 0 {
			t.Error("the line is free while its client is behind")
		}
		for range 2 {
			if err := l.Control([]byte("pong"), false); err != nil {
				t.Error(err)
			}
		}
		close(c.pass)
		l.Wait()
		if got, closed := c.got(); !slices.Equal(got, []string{"data", "pongpong"}) || closed {
			t.Errorf("got %q, closed %v", got, closed)
		}
		if !l.Free() || freed.Load() != 1 {
			t.Errorf("free %v, told %d times", l.Free(), freed.Load())
		}
	})
}

// A client that makes us answer and does not read costs a bounded buffer.
func TestControlFramesAreBounded(t *testing.T) {
	inBubble(t, line.Options{Timeout: time.Minute}, func(c *conn, l *line.Line, _ *atomic.Int64) {
		offer(t, l, "data")
		synctest.Wait()
		pong := make([]byte, 127)
		taken := 0
		for ; taken < 10000; taken++ {
			if err := l.Control(pong, false); errors.Is(err, line.ErrBehind) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if want := line.MaxBehind / len(pong); taken != want {
			t.Errorf("%d pongs were taken, want %d", taken, want)
		}
		close(c.pass)
		l.Wait()
		if err := l.Control(pong, false); err != nil {
			t.Errorf("when the client has caught up: %v", err)
		}
		l.Wait()
	})
}

// Nothing follows the last control frame.
func TestLastControlFrame(t *testing.T) {
	inBubble(t, line.Options{Timeout: time.Minute}, func(c *conn, l *line.Line, _ *atomic.Int64) {
		close(c.pass)
		if err := l.Control([]byte("close"), true); err != nil {
			t.Error(err)
		}
		if err := l.Offer([]byte("data")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("an offer behind it: %v", err)
		}
		l.Wait()
	})
}

// A write that does not get through within the deadline ends the connection for
// all.
func TestWriteDeadline(t *testing.T) {
	inBubble(t, line.Options{Timeout: 10 * time.Second}, func(c *conn, l *line.Line, freed *atomic.Int64) {
		begun := time.Now()
		offer(t, l, "data")
		synctest.Wait()
		offer(t, l, "behind")
		l.Wait()
		if took := time.Since(begun); took != 10*time.Second {
			t.Errorf("took %s", took)
		}
		if err := l.Offer([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a later offer: %v", err)
		}
		if got, closed := c.got(); !slices.Equal(got, []string{"data"}) || !closed || freed.Load() != 1 {
			t.Errorf("got %q, closed %v, told %d times", got, closed, freed.Load())
		}
	})
}

// The deadline is each piece's own: it hits who does not read, not who is slow.
func TestDeadlineIsRenewed(t *testing.T) {
	inBubble(t, line.Options{Timeout: 10 * time.Second}, func(c *conn, l *line.Line, _ *atomic.Int64) {
		big := string(make([]byte, 3*line.Piece))
		for n := range 3 {
			time.AfterFunc(time.Duration(n+1)*9*time.Second, func() { c.pass <- struct{}{} })
		}
		offer(t, l, big)
		l.Wait()
		offer(t, l, "")
		if got, _ := c.got(); len(got) != 3 {
			t.Errorf("%d writes", len(got))
		}
	})
}

// A slow client gets nothing of what waits for it when its token has expired.
func TestExpiryCutsWhatWaits(t *testing.T) {
	var expired atomic.Bool
	inBubble(t, line.Options{Timeout: time.Minute, Expired: expired.Load}, func(c *conn, l *line.Line, _ *atomic.Int64) {
		offer(t, l, string(make([]byte, 3*line.Piece)))
		synctest.Wait()
		expired.Store(true)
		c.pass <- struct{}{}
		l.Wait()
		if got, closed := c.got(); len(got) != 1 || !closed {
			t.Errorf("%d writes, closed %v", len(got), closed)
		}
		if err := l.Offer([]byte("x")); !errors.Is(err, line.ErrExpired) {
			t.Errorf("a later offer: %v", err)
		}
	})
}

func TestFinishClosesBehindWhatWaits(t *testing.T) {
	inBubble(t, line.Options{Timeout: time.Minute}, func(c *conn, l *line.Line, _ *atomic.Int64) {
		offer(t, l, "last")
		synctest.Wait()
		l.Finish()
		if _, closed := c.got(); closed {
			t.Error("closed before the last byte")
		}
		close(c.pass)
		l.Wait()
		if got, closed := c.got(); !slices.Equal(got, []string{"last"}) || !closed {
			t.Errorf("got %q, closed %v", got, closed)
		}
	})
}

// Over TCP there is no goroutine while the socket takes what it is given, and every
// byte arrives in order when it does not.
func TestTCP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	served, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	free := make(chan struct{}, 1)
	l := line.New(served, line.Options{Timeout: time.Minute, Freed: func() { free <- struct{}{} }})
	want := []byte("hello")
	offer(t, l, "hello")
	if !l.Free() {
		t.Fatal("five bytes filled the socket")
	}
	for n := byte(0); l.Free(); n++ { // until it does
		part := bytes.Repeat([]byte{n}, 100_000)
		offer(t, l, string(part))
		want = append(want, part...)
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("of %d bytes: %v, equal %v", len(want), err, bytes.Equal(got, want))
	}
	<-free
	l.Finish()
	l.Wait()
	if n, err := client.Read(got); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if err := l.Offer([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("behind the end: %v", err)
	}
}
