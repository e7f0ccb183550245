package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// conn is the net.Conn that the client library reads and writes. It stands
// between the library and the broker because the library trusts the broker: it
// allocates what a header announces, indexes past its own slices, completes the
// wrong token, and waits for ever in a write.
//
// One goroutine reads; any may write, each Write one whole packet. A conn ends
// once, with a cause, and then fails every Read and Write with it; unlike an
// ordinary closed connection the library notices that.
type conn struct {
	wire         wireConn
	r            *bufio.Reader
	pass         int    // bytes of the checked packet that the reader has not taken yet
	instead      []byte // bytes that the reader takes before any others
	substitute   []byte // follows an oversized packet's end (oversize.go); nil: none is under way
	skip         int    // bytes of the oversized packet that have not been thrown away yet
	greeted      bool
	track        *tracker
	lane         *lane // takes the answers to publishes, past the library; nil except for publishing
	maxPacket    int
	writeTimeout time.Duration
	in, out      prometheus.Counter

	shed atomic.Bool // retained messages at QoS 0 are thrown away before the library sees them

	lastRead atomic.Int64 // unix nanoseconds
	asked    atomic.Int64 // when a CONNECT or PINGREQ was sent that is not answered yet; unix nanoseconds
	rtt      atomic.Int64 // nanoseconds that the last answer to one took
	refused  refusal      // a CONNACK return code other than 0; read it when the handshake is over
	ended    chan struct{}
	endOnce  sync.Once
	cause    error // set before ended is closed

	wmu sync.Mutex // held through each write, so that packets stay whole
}

func newConn(w wireConn, maxPacket int, writeTimeout time.Duration, in, out prometheus.Counter) *conn {
	c := &conn{wire: w, track: newTracker(), maxPacket: maxPacket, writeTimeout: writeTimeout, in: in, out: out, ended: make(chan struct{})}
	c.r = bufio.NewReaderSize(socket{c}, 64<<10)
	c.lastRead.Store(time.Now().UnixNano())
	return c
}

// end closes the connection for the given cause; only the first call counts.
func (c *conn) end(cause error) {
	c.endOnce.Do(func() {
		c.cause = cause
		close(c.ended)
		c.wire.abort()
	})
}

// silence is how long nothing has been read.
func (c *conn) silence() time.Duration {
	return time.Since(time.Unix(0, c.lastRead.Load()))
}

// socket is the raw side of a conn, under the buffer.
type socket struct{ c *conn }

func (s socket) Read(p []byte) (int, error) {
	n, err := s.c.wire.Read(p)
	if n > 0 {
		s.c.lastRead.Store(time.Now().UnixNano())
		s.c.in.Add(float64(n))
		quickAck(s.c.wire.tcp)
	}
	return n, err
}

// Read hands out checked packets only.
func (c *conn) Read(p []byte) (int, error) {
	for c.pass == 0 && len(c.instead) == 0 {
		if err := c.next(); err != nil {
			return 0, c.fail(err)
		}
	}
	if len(c.instead) > 0 {
		n := copy(p, c.instead)
		c.instead = c.instead[n:]
		return n, nil
	}
	n, err := c.r.Read(p[:min(len(p), c.pass)])
	c.pass -= n
	if err != nil {
		return n, c.fail(err)
	}
	return n, nil
}

// fail ends the connection because of err and returns the cause that it ended
// with, which is another one if it had ended before.
func (c *conn) fail(err error) error {
	if errors.Is(err, io.EOF) {
		err = errors.New("the broker closed the connection")
	}
	c.end(err)
	<-c.ended
	return c.cause
}

// next checks the packet that comes next and, unless it is to be dropped, sets
// pass to its length. It goes on with an oversized packet in steps.
func (c *conn) next() error {
	if c.substitute != nil {
		return c.skipOn()
	}
	h, err := c.peekHeader()
	if err != nil {
		return err
	}
	if err := checkInbound(h); err != nil {
		return err
	}
	if c.greeted == (h.kind == typeConnack) { // 3.1.1 section 3.2: the first packet, and only the first
		return fmt.Errorf("the broker sent a packet of type %d out of turn", h.kind)
	}
	pass := true
	if h.kind == typePublish {
		err = c.checkPublish(h)
	} else {
		pass, err = c.checkControl(h)
	}
	if err != nil {
		return err
	}
	if h.kind == typePublish && h.total > c.maxPacket {
		return c.replace(h)
	}
	if h.kind == typePublish && h.qos() == 0 && h.flags&1 != 0 && c.shed.Load() {
		pass = false
	}
	if pass {
		c.pass = h.total
		return nil
	}
	_, err = c.r.Discard(h.total)
	return err
}

func (c *conn) peekHeader() (header, error) {
	for n := 2; ; n++ {
		b, err := c.r.Peek(n)
		if err != nil {
			return header{}, err
		}
		h, err := parseHeader(b)
		if !errors.Is(err, errShort) {
			return h, err
		}
	}
}

// checkPublish checks that the topic lies within the packet.
func (c *conn) checkPublish(h header) error {
	b, err := c.r.Peek(h.size + 2)
	if err != nil {
		return err
	}
	topic := int(u16(b[h.size:]))
	if topic == 0 || h.size+2+topic+2*int(h.qos()) > h.total {
		return fmt.Errorf("the broker sent a PUBLISH of %d bytes with a topic of %d", h.total, topic)
	}
	return nil
}

func (c *conn) checkControl(h header) (pass bool, err error) {
	b, err := c.r.Peek(h.total)
	if err != nil {
		return false, err
	}
	body := b[h.size:]
	switch h.kind {
	case typePingresp:
		c.heard()
		return true, nil
	case typeConnack:
		c.heard()
		return true, c.checkConnack(body[1])
	}
	id := u16(body)
	if c.lane != nil && (h.kind == typePuback || h.kind == typePubrec || h.kind == typePubcomp) {
		return false, c.lane.answer(h.kind, id)
	}
	if c.track.unwritten(id) {
		c.awaitWrite()
	}
	return c.track.answer(h.kind, id, len(body)-2)
}

// awaitWrite waits for the write in progress.
func (c *conn) awaitWrite() {
	c.wmu.Lock()
	defer c.wmu.Unlock()
}

// checkConnack lets only known return codes through (3.1.1 section 3.2.2.3): the
// library takes an unknown one for success.
func (c *conn) checkConnack(code byte) error {
	c.greeted = true
	if code == 0 {
		return nil
	}
	c.refused = refusal(code)
	if code > 5 {
		return refusal(code)
	}
	return nil
}

// Write writes one whole packet within the write timeout. After an error the
// connection is over: part of the packet may have gone out.
func (c *conn) Write(p []byte) (int, error) {
	o, err := parseOutbound(p)
	if err != nil {
		return 0, c.fail(fmt.Errorf("writing to the broker: %w", err))
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	select {
	case <-c.ended:
		return 0, c.cause
	default:
	}
	if o.kind == typeConnect || o.kind == typePingreq {
		c.asked.Store(time.Now().UnixNano())
	}
	c.track.sending(o)
	_ = c.wire.SetWriteDeadline(time.Now().Add(c.writeTimeout)) // fails only if closed: Write says so
	n, err := c.wire.Write(p)
	if err != nil {
		return n, c.fail(fmt.Errorf("writing to the broker: %w", err))
	}
	_ = c.wire.SetWriteDeadline(time.Time{})
	c.out.Add(float64(n))
	c.track.sent(o)
	return n, nil
}

// writePiece is how much one write deadline is for.
const writePiece = 64 << 10

// writeBatch writes whole PUBLISH and PUBREL packets past the library, and calls
// written before anybody else may write. Errors are Write's.
func (c *conn) writeBatch(packets []byte, written func()) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	select {
	case <-c.ended:
		return c.cause
	default:
	}
	for len(packets) > 0 {
		_ = c.wire.SetWriteDeadline(time.Now().Add(c.writeTimeout)) // fails only if closed: Write says so
		n, err := c.wire.Write(packets[:min(len(packets), writePiece)])
		c.out.Add(float64(n))
		if err != nil {
			return c.fail(fmt.Errorf("writing to the broker: %w", err))
		}
		packets = packets[n:]
	}
	written()
	return nil
}

// heard notes how long the broker took to answer a CONNECT or PINGREQ.
func (c *conn) heard() {
	if asked := c.asked.Swap(0); asked != 0 {
		c.rtt.Store(time.Now().UnixNano() - asked)
	}
}

// errClosed is the cause of an end that we wanted.
var errClosed = errors.New("the connection was closed by the gateway")

// Close ends the connection from the library's side, after its DISCONNECT.
func (c *conn) Close() error {
	c.end(errClosed)
	return nil
}

// SetDeadline and SetReadDeadline bound the library's wait for the CONNACK; write
// deadlines are Write's own business.
func (c *conn) SetDeadline(t time.Time) error      { return c.wire.SetReadDeadline(t) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.wire.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(_ time.Time) error { return nil }
func (c *conn) LocalAddr() net.Addr                { return c.wire.tcp.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr               { return c.wire.tcp.RemoteAddr() }
