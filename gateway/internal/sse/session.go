package sse

import (
	"errors"
	"net"
	"net/http"
	"time"

	"flyscreen/gateway/internal/line"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/wire"
)

// session is one client's stream: what the pump writes to. Over HTTP/1 the
// connection is taken from net/http, so that an idle stream keeps none of its
// buffers and no deep stack; its one goroutine waits for the client to leave.
// Over HTTP/2 the handler's goroutine waits.
type session struct {
	door      *Door
	stream    *stream.Stream
	line      *line.Line
	heartbeat []byte
	farewell  string // behind the last event
	wrote     time.Time
}

// Free implements stream.Sink.
func (c *session) Free() bool { return c.line.Free() }

// Offer implements stream.Sink.
func (c *session) Offer(b []byte, now time.Time) error {
	c.wrote = now
	return c.line.Offer(b)
}

// Tick implements stream.Sink: a quiet stream gives signs of life. One that is
// behind needs none, and its client would not see them.
func (c *session) Tick(now time.Time) (next time.Time) {
	if c.wrote.IsZero() {
		c.wrote = now
	}
	if now.Sub(c.wrote) >= heartbeat && c.line.Free() {
		if err := c.Offer(c.heartbeat, now); err != nil {
			c.stream.Lost()
			return time.Time{}
		}
	}
	if next = c.wrote.Add(heartbeat); !next.After(now) {
		next = now.Add(heartbeat)
	}
	return next
}

// Finish implements stream.Sink.
func (c *session) Finish(wire.End) {
	if c.farewell != "" {
		_ = c.line.Offer([]byte(c.farewell)) // a client that is gone misses nothing
	}
	c.line.Finish()
	c.stream.Lost()
}

// headers are those of every stream.
func (f *format) headers(h http.Header) {
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no")
	h.Set("X-Content-Type-Options", "nosniff")
}

// hijack takes the connection over and leaves the stream to a goroutine of its own.
func (d *Door) hijack(w http.ResponseWriter, r *http.Request, s *stream.Stream, f *format) error {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.Close()
		return err
	}
	f.headers(w.Header())
	format, head := f.plain, "HTTP/1.0 200 OK\r\n"
	c := &session{door: d, stream: s, heartbeat: f.heartbeat}
	if r.ProtoMinor > 0 {
		format, head = f.chunked, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
		c.heartbeat = f.chunked.Close(append(f.chunked.Open(nil), f.heartbeat...), 0)
		c.farewell = lastChunk
	}
	c.line = line.New(conn, line.Options{Timeout: d.options.WriteTimeout, Expired: s.Expired, Freed: s.Freed})
	if err := c.line.Offer(appendHead(head, w.Header())); err != nil {
		d.log.Debug("stream lost", "stream", s.ID(), "err", err)
	}
	s.Attach(c, format)
	d.options.Go(func() { c.wait(conn) })
	return nil
}

// appendHead is the head of an answer whose connection ends with it.
func appendHead(first string, h http.Header) []byte {
	b := &headBuffer{bytes: []byte(first)}
	b.bytes = append(b.bytes, "Connection: close\r\nDate: "...)
	b.bytes = time.Now().UTC().AppendFormat(b.bytes, http.TimeFormat)
	b.bytes = append(b.bytes, "\r\n"...)
	_ = h.Write(b) // it cannot fail
	return append(b.bytes, "\r\n"...)
}

type headBuffer struct{ bytes []byte }

// Write implements io.Writer.
func (b *headBuffer) Write(p []byte) (int, error) {
	b.bytes = append(b.bytes, p...)
	return len(p), nil
}

// maxIgnored is what a client may send on a stream, where there is nothing to say.
const maxIgnored = 64 << 10

var errTalks = errors.New("the client sends on a stream")

// wait returns when the client has left or the stream has ended. What a client
// still sends means nothing, and only a little of it is read.
func (c *session) wait(conn net.Conn) {
	ignored := make([]byte, 64)
	for read := 0; read <= maxIgnored; {
		n, err := conn.Read(ignored)
		if read += n; err != nil {
			c.end(err)
			return
		}
	}
	c.end(errTalks)
}

func (c *session) end(err error) {
	c.stream.Lost()
	c.line.Drop(net.ErrClosed)
	c.stream.Close()
	c.line.Wait()
	c.door.log.Debug("stream closed", "stream", c.stream.ID(), "err", err)
}

// respond serves the stream over HTTP/2, where the connection belongs to others too.
func (d *Door) respond(w http.ResponseWriter, r *http.Request, s *stream.Stream, f *format) {
	f.headers(w.Header())
	w.WriteHeader(http.StatusOK)
	c := &session{door: d, stream: s, heartbeat: f.heartbeat}
	out := &response{w: w, control: http.NewResponseController(w)}
	c.line = line.New(out, line.Options{Timeout: d.options.WriteTimeout, Expired: s.Expired, Freed: s.Freed})
	s.Attach(c, f.plain)
	select {
	case <-r.Context().Done():
	case <-s.Gone():
	}
	s.Close() // nothing more is offered
	c.line.Settle()
	d.log.Debug("stream closed", "stream", s.ID())
}

// response is an HTTP/2 answer as a line sees it.
type response struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// Write implements io.Writer.
func (o *response) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if err != nil {
		return n, err
	}
	return n, o.control.Flush()
}

// SetWriteDeadline implements line.Conn.
func (o *response) SetWriteDeadline(t time.Time) error { return o.control.SetWriteDeadline(t) }

// Close implements io.Closer: the handler's return ends the answer.
func (o *response) Close() error { return nil }
