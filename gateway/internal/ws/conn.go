package ws

import (
	"bufio"
	"net"
	"net/http"

	"flyscreen/gateway/internal/line"
)

// The buffers of an idle connection. Larger frames pass them by.
const (
	readBuffer  = 64
	writeBuffer = 128 // a control frame, whole: it must be one write
)

// upgrader gives the WebSocket library a connection whose writes go through a line,
// so that its control frames and our data frames, which go there directly, keep out
// of each other. Its buffers are small: net/http's would stay with every client.
type upgrader struct {
	http.ResponseWriter
	options line.Options
	conn    *socket
}

// Hijack implements http.Hijacker.
func (u *upgrader) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	u.conn = &socket{Conn: conn, line: line.New(conn, u.options)}
	u.conn.reader = bufio.NewReaderSize(u.conn, readBuffer)
	if n := rw.Reader.Buffered(); n > 0 { // the client did not wait for our answer
		early, _ := rw.Reader.Peek(n)
		u.conn.early = append(u.conn.early, early...)
	}
	return u.conn, bufio.NewReadWriter(u.conn.reader, bufio.NewWriterSize(u.conn, writeBuffer)), nil
}

// socket is the connection as the library sees it.
type socket struct {
	net.Conn
	line   *line.Line
	reader *bufio.Reader // the library's
	early  []byte        // read before the connection was ours
}

// buffered reports whether a read may find something that the socket does not have
// any more.
func (s *socket) buffered() bool { return len(s.early) > 0 || s.reader.Buffered() > 0 }

// Read implements net.Conn.
func (s *socket) Read(b []byte) (int, error) {
	if len(s.early) > 0 {
		n := copy(b, s.early)
		if s.early = s.early[n:]; len(s.early) == 0 {
			s.early = nil
		}
		return n, nil
	}
	return s.Conn.Read(b)
}

// Write implements net.Conn for the library, which writes whole frames. Nothing may
// follow a close frame (RFC 6455 section 5.5.1).
func (s *socket) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	if err := s.line.Control(b, b[0] == closeFrame); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close implements net.Conn. What waits behind a slow client is given up.
func (s *socket) Close() error {
	s.line.Drop(net.ErrClosed)
	return nil
}
