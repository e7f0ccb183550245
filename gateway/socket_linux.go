package gateway

import (
	"syscall"
	"time"
)

// deadAfter is how long a client may leave what it was sent unacknowledged. The
// signs of life on quiet streams come well within it, so a client that vanished
// without a word is gone within a minute.
const deadAfter = 40 * time.Second

// tcpUserTimeout is TCP_USER_TIMEOUT (RFC 5482); package syscall lacks it.
const tcpUserTimeout = 18

// giveUpOnTheDead makes the kernel end such connections; those that the listener
// accepts inherit it.
func giveUpOnTheDead(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(deadAfter.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return failed
}
