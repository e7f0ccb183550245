//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
)

// The floor is the least that a server does which writes once for each message and
// socket: no tokens, no filters, no queues. It takes WebSockets at the path of a
// topic and MQTT publishes (QoS 0), frames a message once, and hands it with one
// blocking write to each WebSocket of that topic, in one loop.
type floor struct {
	mu     sync.Mutex // guards what follows; held while it writes
	topics map[string][]int
	frame  []byte
}

// startFloor runs this program as the floor.
func startFloor(ctx context.Context, e env, _ load) (*server, error) {
	addresses, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	p, err := launch(e.dir, e.cores.server, "floor", e.self, "floor", addresses[0], addresses[1])
	if err != nil {
		return nil, err
	}
	t := target{Topic: "load/{k}", Door: "ws", StreamURL: "http://" + addresses[0] + "/{topic}",
		Publish: "mqtt", PublishURL: "tcp://" + addresses[1]}
	return awaited(ctx, &server{target: t, parts: []*process{p}}, listens(addresses...))
}

// serveFloor runs until a listener fails.
func serveFloor(web, broker string) error {
	f := &floor{topics: map[string][]int{}}
	failed := make(chan error, 2)
	for address, serve := range map[string]func(net.Conn) error{web: f.subscriber, broker: f.publisher} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					failed <- err
					return
				}
				go func() {
					defer func() { _ = c.Close() }()
					_ = serve(c) // the load tool sees that its connection ended
				}()
			}
		}()
	}
	return <-failed
}

// subscriber answers the handshake and keeps a duplicate of the socket that
// blocks, which Go's poller knows nothing of.
func (f *floor) subscriber(c net.Conn) error {
	request, err := http.ReadRequest(bufio.NewReaderSize(c, 1024))
	if err != nil {
		return err
	}
	// The answer to the one key that upgradeHeaders sends.
	const answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	if _, err := io.WriteString(c, answer); err != nil {
		return err
	}
	fd, err := duplicate(c.(*net.TCPConn))
	if err != nil {
		return err
	}
	if err := syscall.SetNonblock(fd, false); err != nil {
		return err
	}
	topic := strings.TrimPrefix(request.URL.Path, "/")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.topics[topic] = append(f.topics[topic], fd)
	return nil
}

// publisher takes CONNECT and PUBLISH packets.
func (f *floor) publisher(c net.Conn) error {
	r := bufio.NewReaderSize(c, 64<<10)
	body := make([]byte, 0, 64<<10)
	for {
		head, err := r.ReadByte()
		if err != nil {
			return err
		}
		size, err := binary.ReadUvarint(r) // MQTT's remaining length is coded alike
		if err != nil || size > uint64(cap(body)) {
			return errors.Join(err, errors.New("a packet's length is wrong"))
		}
		body = body[:size]
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		switch head >> 4 {
		case 1: // CONNECT
			if _, err := c.Write([]byte{0x20, 2, 0, 0}); err != nil {
				return err
			}
		case 3: // PUBLISH
			if len(body) < 2 || len(body) < 2+int(binary.BigEndian.Uint16(body)) {
				return errors.New("a PUBLISH is cut")
			}
			n := 2 + int(binary.BigEndian.Uint16(body))
			f.publish(string(body[2:n]), body[n:])
		}
	}
}

func (f *floor) publish(topic string, payload []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frame = serverFrame(f.frame[:0], payload)
	live := f.topics[topic][:0]
	for _, fd := range f.topics[topic] {
		if writeAll(fd, f.frame) {
			live = append(live, fd)
		} else {
			_ = syscall.Close(fd)
		}
	}
	f.topics[topic] = live
}

func writeAll(fd int, b []byte) bool {
	for len(b) > 0 {
		n, err := syscall.Write(fd, b)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return false
		}
		b = b[n:]
	}
	return true
}

// serverFrame appends a text frame of up to 65,535 bytes to b.
func serverFrame(b, payload []byte) []byte {
	if n := len(payload); n < 126 {
		b = append(b, 0x80|opText, byte(n))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 0x80|opText, 126), uint16(n)) //nolint:gosec // a packet has at most 64 KiB
	}
	return append(b, payload...)
}
