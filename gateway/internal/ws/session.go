package ws

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/internal/line"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/wire"

	"github.com/coder/websocket"
)

// pingEvery and pongWithin find clients that are gone. Tests shorten them.
var (
	pingEvery  = 25 * time.Second
	pongWithin = 10 * time.Second
)

// session is one connection.
type session struct {
	door    *Door
	conn    *websocket.Conn
	line    *line.Line
	socket  *socket
	address string
	stream  atomic.Pointer[stream.Stream] // set before run

	steps atomic.Int64 // odd while the reader handles a frame
	heard atomic.Int64 // the last sign of life, in Unix nanoseconds

	// The pump's own:
	pinged time.Time // an unanswered ping; zero: none
	ping   time.Time // the next one

	// The reader's own:
	format     *stream.Format
	since      hub.Position // for the first subscribe
	known      bool         // the stream has a principal
	begun      bool         // connect has come, or a frame that needs it
	complaints int
	rest       io.Reader // of a message that is too large
	authTimer  *time.Timer
}

// expired and freed are the line's questions, which come before there is a stream.
func (c *session) expired() bool {
	s := c.stream.Load()
	return s != nil && s.Expired()
}

func (c *session) freed() {
	if s := c.stream.Load(); s != nil {
		s.Freed()
	}
}

// refuse ends a connection that got no stream, or whose stream is not to be.
func (c *session) refuse(err error) {
	code := wire.CloseFrom(err)
	e := fault.From(err)
	end := wire.NewEvent(stream.EndEvent, wire.End{
		Code: code, Reason: e.Detail, Reconnect: code.Reconnect(), AfterMS: e.RetryAfter.Milliseconds(),
	})
	if c.line.Offer(c.format.Close(c.format.Event(c.format.Open(nil), end), 0)) == nil {
		_ = c.conn.Close(websocket.StatusCode(code), closeReason(e.Detail))
	}
	c.leave(err)
}

// run serves the connection until either side ends it.
func (c *session) run() {
	s := c.stream.Load()
	if !c.known {
		c.authTimer = time.AfterFunc(c.door.options.AuthTimeout, func() {
			s.End(wire.CloseUnauthenticated, "no connect frame with a token came in time")
		})
		defer c.authTimer.Stop()
	}
	s.Attach(c, c.format)
	done := make(chan struct{})
	var err error
	for over := false; !over; {
		if !c.socket.buffered() {
			c.line.Readable()
		}
		c.door.crew.do(func() {
			over, err = c.readOne(s)
			done <- struct{}{}
		}, done)
	}
	c.leave(err)
}

// leave returns when nothing of the connection is left.
func (c *session) leave(err error) {
	if s := c.stream.Load(); s != nil {
		s.Lost()
		_ = c.conn.CloseNow()
		s.Close()
	} else {
		_ = c.conn.CloseNow()
	}
	c.line.Wait()
	c.door.log.Debug("connection ended", "err", err)
}

// readOne handles the next frame. over says that it was the last.
func (c *session) readOne(s *stream.Stream) (over bool, err error) {
	// The library ends the connection with a context; ours ends with CloseNow.
	ctx := context.Background()
	kind, data, err := c.receive(ctx)
	switch {
	case errors.Is(err, errTooBig):
		s.End(wire.CloseTooBig, "the frame is too large")
		return true, c.linger(ctx, err)
	case err != nil:
		return true, err
	}
	c.heard.Store(time.Now().UnixNano())
	c.steps.Add(1)
	done := c.handle(ctx, kind, data)
	c.steps.Add(1)
	if done {
		return true, c.linger(ctx, nil)
	}
	return false, nil
}

var errTooBig = errors.New("a frame beyond the limit")

// receive reads one message, up to what the largest payload can need.
func (c *session) receive(ctx context.Context) (websocket.MessageType, []byte, error) {
	kind, r, err := c.conn.Reader(ctx)
	if err != nil {
		return 0, nil, err
	}
	most := frameExtra // enough for connect
	if c.known {
		most += escapeBound * c.door.options.Publish.MaxPayload()
	}
	data, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if err == nil && len(data) > most {
		c.rest, err = r, errTooBig
	}
	return kind, data, err
}

// linger passes over what a client still sends that is being ended, until it has
// closed the connection or its time is over.
func (c *session) linger(ctx context.Context, cause error) error {
	r, err := c.rest, error(nil)
	for err == nil {
		if r != nil {
			_, _ = io.Copy(io.Discard, r) // the next call tells what went wrong
		}
		_, r, err = c.conn.Reader(ctx)
	}
	if cause != nil {
		return cause
	}
	return err
}

func (c *session) authenticate(p auth.Principal) error {
	if err := c.stream.Load().Authenticate(p); err != nil {
		return err
	}
	c.known = true
	if c.authTimer != nil {
		c.authTimer.Stop()
	}
	return nil
}

// Free implements stream.Sink.
func (c *session) Free() bool { return c.line.Free() }

// Offer implements stream.Sink.
func (c *session) Offer(b []byte, _ time.Time) error { return c.line.Offer(b) }

// Tick implements stream.Sink: it pings, and drops a client that does not answer. A
// pong waits its turn behind other frames, so a reader that is at work counts as
// one.
func (c *session) Tick(now time.Time) (next time.Time) {
	switch {
	case c.ping.IsZero():
		c.ping = now.Add(pingEvery)
	case !c.pinged.IsZero() && (c.heard.Load() >= c.pinged.UnixNano() || c.steps.Load()%2 == 1):
		c.pinged, c.ping = time.Time{}, c.pinged.Add(pingEvery)
	case !c.pinged.IsZero() && now.Sub(c.pinged) >= pongWithin:
		c.line.Drop(errSilent)
		return time.Time{}
	case c.pinged.IsZero() && !now.Before(c.ping):
		if err := c.line.Control([]byte{pingFrame, 0}, false); err != nil {
			c.line.Drop(err)
			return time.Time{}
		}
		c.pinged = now
	}
	if !c.pinged.IsZero() {
		return c.pinged.Add(pongWithin)
	}
	return c.ping
}

var errSilent = errors.New("the client does not answer a ping")

func (c *session) ponged(context.Context, []byte) { c.heard.Store(time.Now().UnixNano()) }

// closeWithin is how long a client has to answer a close frame.
const closeWithin = 5 * time.Second

// Finish implements stream.Sink. The closing handshake is the reader's: it goes on
// until the client's close frame comes, for a few seconds at most. To call the
// library for it would make two readers.
func (c *session) Finish(end wire.End) {
	reason := closeReason(end.Reason)
	b := append(make([]byte, 0, 4+len(reason)), closeFrame, byte(2+len(reason))) //nolint:gosec // closeReason bounds it
	b = append(binary.BigEndian.AppendUint16(b, uint16(end.Code)), reason...)    //nolint:gosec // four digits
	if c.line.Control(b, true) != nil || c.socket.SetReadDeadline(time.Now().Add(closeWithin)) != nil {
		c.line.Drop(net.ErrClosed)
	}
	c.stream.Load().Lost()
}

// closeReason cuts s to what a close frame can hold (RFC 6455 section 5.5).
func closeReason(s string) string {
	const most = 123
	if len(s) <= most {
		return s
	}
	s = s[:most]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}
