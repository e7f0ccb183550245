package broker

import (
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// listenerID is the name under which mochi files our clients.
const listenerID = "tcp"

// waits says how long one connection may take.
type waits struct {
	connect time.Duration // from accept to the whole CONNECT packet
	write   time.Duration // for one write; a reader that is slower is closed
	last    time.Duration // the same while the broker stops
}

var defaultWaits = waits{connect: 10 * time.Second, write: 10 * time.Second, last: time.Second}

// How long accept rests after a failure such as too many open files.
const (
	shortestRest = 5 * time.Millisecond
	longestRest  = time.Second
)

// accept takes connections from l until Stop. Go sets TCP_NODELAY on each.
func (b *Broker) accept(l net.Listener) {
	rest := shortestRest
	for {
		raw, err := l.Accept()
		if err != nil {
			if b.stopping.Load() {
				return
			}
			b.log.Warn("accept broker connection", "err", err, "again_in", rest)
			select {
			case <-b.halt:
				return
			case <-time.After(rest):
			}
			rest = min(2*rest, longestRest)
			continue
		}
		rest = shortestRest
		c := &conn{Conn: raw, broker: b}
		if !b.admit(c) {
			_ = raw.Close()
			b.metrics.rejected.Inc()
			continue
		}
		b.serving.Go(func() {
			defer b.release(c)
			b.serve(c)
		})
	}
}

func (b *Broker) admit(c *conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped || len(b.conns) >= b.options.MaxConnections {
		return false
	}
	b.conns[c] = struct{}{}
	b.metrics.connections.Inc()
	return true
}

func (b *Broker) release(c *conn) {
	_ = c.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, c)
	b.metrics.connections.Dec()
}

// serve runs one connection to its end. mochi's decoder panics on some truncated
// MQTT 5 packets; such a packet ends its connection and nothing else.
func (b *Broker) serve(c *conn) {
	defer b.guard.end(c)
	defer func() {
		if cause := recover(); cause != nil {
			b.metrics.panics.Inc()
			b.log.Error("broker connection panicked", "remote", c.RemoteAddr().String(),
				"cause", fmt.Sprint(cause), "stack", string(debug.Stack()))
			b.forget(c)
		}
	}()
	// mochi sets its own deadline, from the keep-alive, once it has the CONNECT.
	if err := c.SetReadDeadline(time.Now().Add(b.wait.connect)); err != nil {
		return
	}
	if err := b.server.EstablishConnection(listenerID, c); err != nil {
		b.log.Debug("broker connection ended", "remote", c.RemoteAddr().String(), "err", err)
	}
}

// forget does what mochi does at the end of a connection and a panic skipped:
// a clean session goes with its connection. A durable one stays, marked as
// disconnected. The will is not sent.
func (b *Broker) forget(c *conn) {
	for id, cl := range b.server.Clients.GetAll() {
		if cl.Net.Conn != net.Conn(c) {
			continue
		}
		if p := &cl.Properties; p.ProtocolVersion == 5 && p.Props.SessionExpiryInterval != 0 ||
			p.ProtocolVersion < 5 && !p.Clean {
			return
		}
		if cl.IsTakenOver() {
			return
		}
		cl.ClearInflights()
		b.server.UnsubscribeClient(cl)
		b.server.Clients.Delete(id)
		return
	}
}

// conn is a client's connection as mochi sees it. mochi sets one deadline for
// reading and writing from the client's keep-alive, none at all for keep-alive
// 0, and goes on after a failed write. Here each write has its own deadline, and
// the first that fails closes the connection: after half a packet nothing that
// follows could be understood.
type conn struct {
	net.Conn
	broker *Broker

	closing sync.Once
}

// Write writes p within waits.write. mochi calls it under the client's lock.
func (c *conn) Write(p []byte) (int, error) {
	wait := c.broker.wait.write
	if c.broker.stopping.Load() {
		wait = c.broker.wait.last
	}
	if err := c.SetWriteDeadline(time.Now().Add(wait)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if err != nil {
		_ = c.Close()
	}
	return n, err
}

// SetDeadline is mochi's keep-alive: a bound for silence, so for reading only.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// hurry bounds the write that is under way by waits.last.
func (c *conn) hurry() { _ = c.SetWriteDeadline(time.Now().Add(c.broker.wait.last)) }

// Close closes the connection; only the first call can fail.
func (c *conn) Close() (err error) {
	c.closing.Do(func() { err = c.Conn.Close() })
	return err
}
