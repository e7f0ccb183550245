//go:build !linux

package upstream

import "net"

// quickAck does nothing where the system has no such option.
func quickAck(*net.TCPConn) {}
