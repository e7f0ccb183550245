package ws_test

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/gateway/internal/ws"
)

// line is a connection whose writes the test lets through one by one.
type line struct {
	net.Conn
	pass chan struct{} // nil lets all through

	mu       sync.Mutex // guards what follows
	writes   []string
	deadline time.Time
}

func (l *line) SetWriteDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
	return nil
}

func (l *line) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.writes = append(l.writes, string(p))
	deadline := l.deadline
	l.mu.Unlock()
	if l.pass == nil {
		return len(p), nil
	}
	select {
	case <-l.pass:
		return len(p), nil
	case <-time.After(time.Until(deadline)):
		return 0, os.ErrDeadlineExceeded
	}
}

func (l *line) got() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.writes)
}

func write(t *testing.T, c ws.Coalescer, s string) {
	t.Helper()
	if n, err := c.Write([]byte(s)); err != nil || n != len(s) {
		t.Errorf("write %.20q: %d, %v", s, n, err)
	}
}

func TestCoalescing(t *testing.T) {
	l := &line{}
	c := ws.NewCoalescer(l, time.Second)
	write(t, c, "alone")
	c.Cork()
	write(t, c, "a")
	write(t, c, "b")
	write(t, c, "c")
	if got := l.got(); !slices.Equal(got, []string{"alone"}) || c.Waiting() != 3 {
		t.Errorf("before uncork: %q, %d bytes wait", got, c.Waiting())
	}
	if err := c.Uncork(); err != nil {
		t.Fatal(err)
	}
	if err := c.Uncork(); err != nil {
		t.Fatal(err)
	}
	write(t, c, "after")
	if got := l.got(); !slices.Equal(got, []string{"alone", "abc", "after"}) {
		t.Errorf("got %q", got)
	}
}

// A control frame never waits for a blocked write; it goes out behind it.
func TestControlFrameBehindABlockedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{pass: make(chan struct{})}
		c := ws.NewCoalescer(l, time.Minute)
		var wg sync.WaitGroup
		c.Cork()
		write(t, c, "data")
		wg.Go(func() {
			if err := c.Uncork(); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		write(t, c, "pong")
		write(t, c, "pong")
		close(l.pass)
		wg.Wait()
		if got := l.got(); !slices.Equal(got, []string{"data", "pongpong"}) {
			t.Errorf("got %q", got)
		}
	})
}

// The writer collects nothing more while anything is being written, be it a
// control frame: otherwise a whole queue would move into this buffer.
func TestUncorkWaitsForAControlFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{pass: make(chan struct{})}
		c := ws.NewCoalescer(l, time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() { write(t, c, "pong") })
		synctest.Wait()
		c.Cork()
		write(t, c, "data")
		done := make(chan error, 1)
		wg.Go(func() { done <- c.Uncork() })
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("uncork returned with %d bytes waiting: %v", c.Waiting(), err)
		default:
		}
		close(l.pass)
		if err := <-done; err != nil || c.Waiting() != 0 {
			t.Errorf("%v, %d bytes wait", err, c.Waiting())
		}
		wg.Wait()
		if got := strings.Join(l.got(), "|"); got != "pong|data" {
			t.Errorf("got %q", got)
		}
	})
}

// A client that makes us answer and does not read costs a bounded buffer.
func TestBehindIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{pass: make(chan struct{})}
		c := ws.NewCoalescer(l, time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() { write(t, c, "data") })
		synctest.Wait()
		pong := make([]byte, 127)
		taken := 0
		for ; taken < 10000; taken++ {
			if _, err := c.Write(pong); errors.Is(err, ws.ErrBehind) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if want := ws.MaxBehind / len(pong); taken != want || c.Waiting() > ws.MaxBehind {
			t.Errorf("%d pongs were taken, want %d; %d bytes wait", taken, want, c.Waiting())
		}
		close(l.pass)
		wg.Wait()
		write(t, c, "again")
	})
}

// A write that does not get through within the deadline ends the connection for
// all writers.
func TestWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{pass: make(chan struct{})}
		c := ws.NewCoalescer(l, 10*time.Second)
		begun := time.Now()
		c.Cork()
		write(t, c, "data")
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := c.Uncork(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("uncork: %v", err)
			}
		})
		synctest.Wait()
		write(t, c, "behind")
		wg.Wait()
		if took := time.Since(begun); took != 10*time.Second {
			t.Errorf("took %s", took)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a later write: %v", err)
		}
		c.Cork()
		if err := c.Uncork(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a later uncork: %v", err)
		}
		if got := l.got(); !slices.Equal(got, []string{"data"}) {
			t.Errorf("the line got %q", got)
		}
	})
}

// The deadline is each write's own.
func TestDeadlineIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{pass: make(chan struct{})}
		c := ws.NewCoalescer(l, 10*time.Second)
		for range 3 {
			time.AfterFunc(9*time.Second, func() { l.pass <- struct{}{} })
			write(t, c, "slow but moving")
		}
	})
}
