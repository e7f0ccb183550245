//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"strings"
	"testing"
)

// TestChunksAreTakenOff cuts a chunked body at each byte.
func TestChunksAreTakenOff(t *testing.T) {
	const coded = "5\r\nhello\r\n1\r\n,\r\nb\r\n wide world\r\n"
	for cut := range len(coded) + 1 {
		var body []byte
		use := func(b []byte) { body = append(body, b...) }
		k := chunks{on: true}
		rest, err := k.bodies([]byte(coded[:cut]), use)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = k.bodies(append(bytes.Clone(rest), coded[cut:]...), use); err != nil {
			t.Fatal(err)
		}
		if string(body) != "hello, wide world" {
			t.Fatalf("cut at %d: the body is %q", cut, body)
		}
	}
	k := chunks{on: true}
	if _, err := k.bodies([]byte("0\r\n\r\n"), func([]byte) {}); !errors.Is(err, errEnded) {
		t.Errorf("the last chunk gave %v, want the stream's end", err)
	}
	if _, err := k.bodies([]byte("xyz\r\n"), func([]byte) {}); err == nil {
		t.Error("a chunk without a size was taken")
	}
}

func TestFrames(t *testing.T) {
	for _, n := range []int{0, 125, 126, 65535, 70000} {
		frame := textFrame(n)
		op, payload, used := nextFrame(append(bytes.Clone(frame), "next"...))
		if op != opText || len(payload) != n || used != len(frame) {
			t.Errorf("%d bytes: op %d, %d bytes, %d of %d used", n, op, len(payload), used, len(frame))
		}
		if _, _, used := nextFrame(frame[:len(frame)-1]); used != 0 {
			t.Errorf("%d bytes: a cut frame was taken for a whole one", n)
		}
	}
}

func textFrame(n int) []byte {
	b := []byte{0x80 | opText}
	switch {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = append(b, 126, byte(n>>8), byte(n))
	default:
		b = append(b, 127, 0, 0, 0, 0, 0, byte(n>>16), byte(n>>8), byte(n))
	}
	return append(b, make([]byte, n)...)
}

func TestAnswers(t *testing.T) {
	r := bufio.NewReader(strings.NewReader("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}" +
		"HTTP/1.1 503 No\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n" + "HTTP/1.1 200 OK\r\n\r\n"))
	for _, want := range []int{200, 503} {
		if got, err := readAnswer(r); got != want || err != nil {
			t.Errorf("got %d, %v; want %d", got, err, want)
		}
	}
	if _, err := readAnswer(r); err == nil {
		t.Error("an answer without a length was taken")
	}
}

func TestPublishPacket(t *testing.T) {
	got := mqttPublish("a/b", bytes.Repeat([]byte("x"), 200))
	want := "\x30\xcd\x01\x00\x03a/b" + strings.Repeat("x", 200)
	if string(got) != want {
		t.Errorf("the packet is %q", got)
	}
}
