//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	handshakeTime = 30 * time.Second // for one stream to be live
	dialsAtOnce   = 64
	// sources is how many loopback addresses the streams come from: one has ports
	// for 28,000 connections, those of the last minute included.
	sources = 8
)

// streams are all streams of a measurement, with the one goroutine that reads
// them.
type streams struct {
	target target
	reader *reader
	all    []*streamConn
	// stalled is how many of the first streams have small receive buffers, because
	// they will stop reading.
	stalled int
}

// openStreams opens the streams of l and returns when all are live. Stream i
// follows topic i modulo the number of topics.
func openStreams(ctx context.Context, t target, l load) (*streams, error) {
	r, err := newReader()
	if err != nil {
		return nil, err
	}
	s := &streams{target: t, reader: r, all: make([]*streamConn, l.streams), stalled: l.stalled}
	for i := range s.all {
		seen := newChecker(uint16(i%l.topics), l.topics, l.publishers) //nolint:gosec // at most 15,000
		s.all[i] = &streamConn{index: i, door: t.Door, seen: seen}
	}
	if err := s.connect(ctx, s.all); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// repair opens again what the server ended, and says how many that were.
func (s *streams) repair(ctx context.Context) (int, error) {
	var ended []*streamConn
	for _, c := range s.all {
		if c.ended.Load() {
			ended = append(ended, c)
		}
	}
	return len(ended), s.connect(ctx, ended)
}

// connect returns the first error, when all dials are over.
func (s *streams) connect(ctx context.Context, list []*streamConn) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	failed := make(chan error, dialsAtOnce)
	for range min(dialsAtOnce, len(list)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(list) {
					return
				}
				if err := s.open(ctx, list[i]); err != nil {
					failed <- fmt.Errorf("stream %d of %d: %w", i+1, len(list), err)
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// open makes c live and hands its descriptor to the reader.
func (s *streams) open(ctx context.Context, c *streamConn) error {
	t := s.target
	u, err := url.Parse(t.fill(t.StreamURL, c.index, int(c.seen.topic)))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+c.index%sources))}} //nolint:gosec // 2 to 9
	if c.index < s.stalled {
		dialer.Control = smallBuffer
	}
	conn, err := dialer.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the duplicate stays
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	clear(c.seen.last)
	c.chunk = chunks{}
	if c.rest, err = handshake(conn, u, t, c); err != nil {
		return err
	}
	if c.fd, err = duplicate(conn.(*net.TCPConn)); err != nil {
		return err
	}
	return s.reader.adopt(c)
}

// smallBuffer lets the server notice early that a stream does not read. The size of
// its segments is a network's: with those of loopback the kernel lets the server
// write 2.5 MB ahead.
func smallBuffer(_, _ string, c syscall.RawConn) (err error) {
	controlErr := c.Control(func(fd uintptr) {
		err = errors.Join(
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096),
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400))
	})
	return errors.Join(controlErr, err)
}

// handshake sends what the target wants and reads until the stream is live. It
// returns the bytes behind the answer's head.
func handshake(conn net.Conn, u *url.URL, t target, c *streamConn) ([]byte, error) {
	headers, status := t.StreamHeaders, "200"
	if c.door != "sse" {
		headers, status = append(upgradeHeaders(t.Subprotocol), headers...), "101"
	} else {
		headers = append([]string{"Accept: text/event-stream"}, headers...)
	}
	if _, err := conn.Write(httpRequest("GET", u, headers, nil)); err != nil {
		return nil, err
	}
	head, rest, err := readHead(conn, status)
	if err != nil {
		return nil, err
	}
	c.chunk.on = isChunked(head)
	if _, err := conn.Write(hello(t, c)); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	for !bytes.Contains(rest, []byte(t.Ready)) {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, fmt.Errorf("waiting for %q after %d bytes: %w", t.Ready, len(rest), err)
		}
		rest = append(rest, buf[:n]...)
	}
	return rest, nil
}

// hello is all that the client says before the stream is live.
func hello(t target, c *streamConn) (b []byte) {
	if t.Door == "mqtt" {
		b = clientFrame(opBinary, mqttConnect(fmt.Sprintf("flyload-sub-%d", c.index)))
		return append(b, clientFrame(opBinary, mqttSubscribe(t.topic(int(c.seen.topic))))...)
	}
	for _, text := range t.Hello {
		b = append(b, clientFrame(opText, []byte(t.fill(text, c.index, int(c.seen.topic))))...)
	}
	return b
}

// duplicate gives a descriptor that Go's own poller does not watch: it would be
// woken for each arrival.
func duplicate(conn *net.TCPConn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(own uintptr) {
		if fd, err = syscall.Dup(int(own)); err == nil {
			syscall.CloseOnExec(fd)
		}
	})
	if controlErr != nil {
		return 0, controlErr
	}
	return fd, err
}

// unbegun is how many streams have not had a message from each publisher.
func (s *streams) unbegun() int {
	s.reader.mu.Lock()
	defer s.reader.mu.Unlock()
	n := 0
	for _, c := range s.all {
		if !c.seen.begun() {
			n++
		}
	}
	return n
}

func (s *streams) close() { s.reader.close() }
