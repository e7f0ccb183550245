//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
)

// A marker is found in whatever envelope the server wraps the payload in: its
// bytes are letters and digits, which no encoding but base64 changes.
//
//	fLy7 <due: 16 hex digits> <publisher: 4> <number: 8> <topic: 4>
const markerLen = 4 + 2*markerBytes

const markerBytes = 8 + 2 + 4 + 2

var magic = []byte("fLy7")

// marker tells one publish from all others.
type marker struct {
	due       int64  // when it should have been sent, in nanoseconds since 1970
	publisher uint16 // counted from 0
	number    uint32 // of this publisher's messages to this topic, from 1
	topic     uint16 // counted from 0
}

// put writes m over the first markerLen bytes of b.
func (m marker) put(b []byte) {
	var raw [markerBytes]byte
	binary.BigEndian.PutUint64(raw[:], uint64(m.due)) //nolint:gosec // the same bits come back
	binary.BigEndian.PutUint16(raw[8:], m.publisher)
	binary.BigEndian.PutUint32(raw[10:], m.number)
	binary.BigEndian.PutUint16(raw[14:], m.topic)
	copy(b, magic)
	hex.Encode(b[len(magic):markerLen], raw[:])
}

// nextMarker finds the first whole marker in b. used is how many bytes are done
// with: to the marker's end, or, without one, all but what may be a marker's
// beginning.
func nextMarker(b []byte) (m marker, used int, found bool) {
	i := bytes.Index(b, magic)
	if i < 0 {
		return m, max(0, len(b)-len(magic)+1), false
	}
	if i+markerLen > len(b) {
		return m, i, false
	}
	var raw [markerBytes]byte
	if _, err := hex.Decode(raw[:], b[i+len(magic):i+markerLen]); err != nil {
		return m, i + len(magic), false // the magic by chance; scan goes on behind it
	}
	m.due = int64(binary.BigEndian.Uint64(raw[:])) //nolint:gosec // put's conversion, undone
	m.publisher = binary.BigEndian.Uint16(raw[8:])
	m.number = binary.BigEndian.Uint32(raw[10:])
	m.topic = binary.BigEndian.Uint16(raw[14:])
	return m, i + markerLen, true
}

// scan calls see for each whole marker in b and returns what may be the beginning
// of one more.
func scan(b []byte, see func(marker)) (rest []byte) {
	for {
		m, used, found := nextMarker(b)
		b = b[used:]
		switch {
		case found:
			see(m)
		case used == 0 || len(b) < len(magic):
			return b
		}
	}
}

// markedPayload is a JSON object of size bytes (120 at least) with room for a marker, and
// where the marker stands in it.
func markedPayload(size int) (payload []byte, at int) {
	payload = []byte(`{"device":"dev-0042","value":21.537,"unit":"C","marker":"`)
	at = len(payload)
	payload = append(payload, make([]byte, markerLen)...)
	marker{}.put(payload[at:])
	payload = append(payload, `","pad":"`...)
	for len(payload) < size-2 {
		payload = append(payload, 'x')
	}
	return append(payload, `"}`...), at
}

// tally is what streams have seen.
type tally struct {
	delivered uint64 // messages, each counted once per stream
	earlier   uint64 // messages that were due before the measurement
	skipped   uint64 // numbers jumped over: lost, or yet to come out of order
	late      uint64 // numbers at or below one seen already: repeated or out of order
	strange   uint64 // markers of publishers that there are not, or of another topic
	lost      uint64 // connections that ended
	reads     uint64 // read calls that brought bytes
	bytes     uint64
}

// checker follows one stream: the last number seen from each of its topic's
// publishers.
type checker struct {
	topic uint16
	first uint16   // the publisher of last[0]
	last  []uint32 // of consecutive publishers
}

// newChecker is for a stream of the topic. One topic has all publishers; of many
// each has one: publisher p has the topics p, p+publishers, and so on.
func newChecker(topic uint16, topics, publishers int) checker {
	if topics == 1 {
		return checker{last: make([]uint32, publishers)}
	}
	return checker{topic: topic, first: topic % uint16(publishers), last: make([]uint32, 1)} //nolint:gosec // a few publishers
}

// see judges m and reports whether it is a delivery that counts: one that was due
// at since or later. What came before a publisher's first message on this stream
// was before it subscribed.
func (c checker) see(m marker, since int64, t *tally) bool {
	at := int(m.publisher) - int(c.first)
	if at < 0 || at >= len(c.last) || m.number == 0 || m.topic != c.topic {
		t.strange++
		return false
	}
	last := &c.last[at]
	if m.number <= *last {
		t.late++
		return false
	}
	if *last > 0 {
		t.skipped += uint64(m.number - *last - 1)
	}
	*last = m.number
	if m.due < since {
		t.earlier++
		return false
	}
	t.delivered++
	return true
}

// begun reports whether the stream has had a message from each publisher.
func (c checker) begun() bool {
	for _, last := range c.last {
		if last == 0 {
			return false
		}
	}
	return true
}
