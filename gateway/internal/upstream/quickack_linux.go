package upstream

import (
	"net"
	"syscall"
)

// quickAck makes the kernel acknowledge what it has received at once. Brokers
// with Nagle's algorithm on (Mosquitto's default) hold back their next small
// packet until the previous one is acknowledged, and the kernel delays that by
// 40 ms. The option is not sticky, so this runs after each read from the socket.
// Measured with Mosquitto 2.0.11: a snapshot of 30 messages takes 0.5 ms instead
// of 45 ms, and publishes from 64 callers gain a third.
func quickAck(tcp *net.TCPConn) {
	raw, err := tcp.SyscallConn()
	if err != nil {
		return // the connection is closed, which the next read reports
	}
	_ = raw.Control(func(fd uintptr) { // an optimisation: failure costs 40 ms
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	})
}
