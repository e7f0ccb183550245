//go:build unix

package line

import (
	"errors"
	"net"
	"syscall"
)

// rawConn is the descriptor of a connection that the kernel's write goes to as it
// is; nil where something lies between, such as TLS.
func rawConn(conn Conn) syscall.RawConn {
	switch conn := conn.(type) {
	case *net.TCPConn:
		raw, err := conn.SyscallConn()
		if err == nil {
			return raw
		}
	case *net.UnixConn:
		raw, err := conn.SyscallConn()
		if err == nil {
			return raw
		}
	}
	return nil
}

// attempt writes what the socket takes of l.b; the descriptor is non-blocking.
func (l *Line) attempt(fd uintptr) bool {
	for l.n < len(l.b) {
		n, err := syscall.Write(int(fd), l.b[l.n:])
		switch {
		case n > 0:
			l.n += n
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return true
		case err != nil:
			l.errno = err
			return true
		default:
			return true
		}
		if n > 0 && l.n < len(l.b) {
			return true // a short write: the socket is full
		}
	}
	return true
}
