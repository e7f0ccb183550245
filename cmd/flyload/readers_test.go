//go:build linux

package main

import (
	"testing"
	"time"
)

// BenchmarkFrames is what the client itself pays for a delivery, without the
// kernel: 64 WebSocket frames in one read.
func BenchmarkFrames(b *testing.B) {
	payload, at := markedPayload(120)
	body := append([]byte(`{"type":"message","topic":"load/0","seq":123456,"payload":`), payload...)
	at += len(body) - len(payload)
	body = append(body, '}')
	r := &reader{}
	c := &streamConn{door: "ws", seen: newChecker(0, 1, 1)}
	buf := make([]byte, 0, 64*300)
	number := uint32(0)
	for b.Loop() {
		buf = buf[:0]
		r.now = time.Now().UnixNano()
		for range 64 {
			number++
			marker{due: r.now, number: number}.put(body[at:])
			buf = serverFrame(buf, body)
		}
		if err := r.consume(c, buf); err != nil {
			b.Fatal(err)
		}
	}
	if r.tally.delivered != uint64(number) {
		b.Fatalf("%d of %d deliveries were counted", r.tally.delivered, number)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(number), "ns/delivery")
}
