//go:build !unix

package line

import "syscall"

// rawConn is nil: a goroutine makes every write.
func rawConn(Conn) syscall.RawConn { return nil }

func (l *Line) attempt(uintptr) bool { return true }
