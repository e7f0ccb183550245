//go:build unix

package line

import (
	"errors"
	"syscall"
)

// Readable returns when there is something to read from the connection, or an
// error or the end, which the next read tells. It needs less stack than a read; it
// returns at once where it does not know.
func (l *Line) Readable() {
	if l.raw != nil {
		_ = l.raw.Read(peek) // the next read tells
	}
}

// peek reports whether a read would not have to wait.
func peek(fd uintptr) bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
	return !errors.Is(err, syscall.EAGAIN)
}
