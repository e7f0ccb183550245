//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// Ready-made bytes instead of client libraries: the client must cost less than the
// server that it measures.

// httpRequest is an HTTP/1.1 request; headers are "Name: value".
func httpRequest(method string, u *url.URL, headers []string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, u.RequestURI(), u.Host)
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	if len(body) > 0 {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

func upgradeHeaders(subprotocol string) []string {
	h := []string{"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	if subprotocol != "" {
		h = append(h, "Sec-WebSocket-Protocol: "+subprotocol)
	}
	return h
}

// readHead reads an answer up to its blank line, checks its status and returns
// what came behind it.
func readHead(r io.Reader, status string) (head string, rest []byte, err error) {
	b := make([]byte, 0, 8<<10)
	for {
		if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
			head, rest = string(b[:i]), b[i+4:]
			line, _, _ := strings.Cut(head, "\r\n")
			if !strings.HasPrefix(line, "HTTP/1.1 "+status) {
				return head, rest, fmt.Errorf("the server answered %q", line)
			}
			return head, rest, nil
		}
		if len(b) == cap(b) {
			return "", nil, errors.New("the answer's head is too long")
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err != nil {
			return "", nil, err
		}
	}
}

// isChunked reports whether an answer's body comes in chunks (RFC 9112 section 7.1).
func isChunked(head string) bool {
	return strings.Contains(strings.ToLower(head), "\r\ntransfer-encoding: chunked")
}

// readAnswer reads one answer with a Content-Length from a kept-alive connection.
func readAnswer(r *bufio.Reader) (status int, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 {
		return 0, fmt.Errorf("the status line is %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, fmt.Errorf("the status line is %q", line)
	}
	length := -1
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return 0, err
		}
		name, value, isHeader := bytes.Cut(line, []byte(":"))
		if !isHeader {
			break
		}
		if bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 {
		return 0, errors.New("an answer without a Content-Length")
	}
	_, err = r.Discard(length)
	return status, err
}

// WebSocket opcodes (RFC 6455 section 5.2).
const (
	opText   = 1
	opBinary = 2
	opClose  = 8
	opPing   = 9
	opPong   = 10
)

// clientFrame is a final frame with a mask of zeros, which leaves the payload as
// it is. It takes up to 65,535 bytes.
func clientFrame(op byte, payload []byte) []byte {
	b := []byte{0x80 | op}
	if n := len(payload); n < 126 {
		b = append(b, 0x80|byte(n))
	} else {
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n)) //nolint:gosec // hello frames and pongs are short
	}
	b = append(b, 0, 0, 0, 0)
	return append(b, payload...)
}

// nextFrame takes a whole server frame off b; used is 0 if b holds less.
func nextFrame(b []byte) (op byte, payload []byte, used int) {
	if len(b) < 2 {
		return 0, nil, 0
	}
	n, head := uint64(b[1]&0x7f), 2
	switch {
	case n == 126 && len(b) >= 4:
		n, head = uint64(binary.BigEndian.Uint16(b[2:])), 4
	case n == 127 && len(b) >= 10:
		n, head = binary.BigEndian.Uint64(b[2:]), 10
	case n > 125:
		return 0, nil, 0
	}
	if uint64(len(b)-head) < n { //nolint:gosec // head is no more than len(b)
		return 0, nil, 0
	}
	end := head + int(n)
	return b[0] & 15, b[head:end], end
}

// MQTT 3.1.1 packets.

func mqttPacket(head byte, body []byte) []byte {
	b := []byte{head}
	n := len(body)
	for ; n > 127; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(append(b, byte(n)), body...)
}

func mqttString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...) //nolint:gosec // our own short names
}

// mqttConnect is a CONNECT with a clean session and an hour's keep-alive.
func mqttConnect(client string) []byte {
	return mqttPacket(0x10, mqttString(append(mqttString(nil, "MQTT"), 4, 2, 3600>>8, 3600&0xff), client))
}

// mqttSubscribe asks for a filter at QoS 0; subAck answers it.
func mqttSubscribe(filter string) []byte {
	return mqttPacket(0x82, append(mqttString([]byte{0, 1}, filter), 0))
}

const subAck = "\x90\x03\x00\x01\x00"

// mqttPublish is a PUBLISH at QoS 0.
func mqttPublish(topic string, payload []byte) []byte {
	return mqttPacket(0x30, append(mqttString(nil, topic), payload...))
}

// readConnack reads the answer to CONNECT.
func readConnack(r io.Reader) error {
	var b [4]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	if b[0] != 0x20 || b[3] != 0 {
		return fmt.Errorf("the broker answered CONNECT with % x", b)
	}
	return nil
}
