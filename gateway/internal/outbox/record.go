package outbox

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"flyscreen/gateway/mqtt"
)

// A record is what the file holds of one thing. It can be told from anything else
// and judged by itself, so that what is readable can be found in a damaged file
// without its index:
//
//	magic 4 | crc 4, of all that follows | length 4, of all that follows | kind 1 | body
const (
	recordMagic  = "\xf1y\x01S"
	recordHeader = 4 + 4 + 4
	recordMost   = 512 << 20 // no length is larger: MQTT carries 256 MiB
)

type kind byte

const (
	kindMessage kind = 'm' // waits to be delivered
	kindPoison  kind = 'q' // in quarantine
	kindAnswer  kind = 'a' // what a key was answered
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errDamaged = errors.New("a damaged record")

// message is a kindMessage or kindPoison. Its body:
//
//	seq 8 | floor 8 | accepted 8 | flags 1 | reason's length 2 | reason | topic's length 2 | topic | payload
type message struct {
	seq uint64
	// floor is the first sequence number that was not delivered yet when the record
	// was written; what a damaged file holds below it is old.
	floor    uint64
	accepted time.Time
	reason   string // of a kindPoison
	m        mqtt.Message
}

const messageFixed = 8 + 8 + 8 + 1 + 2 + 2

func (r *message) size() int {
	return recordHeader + 1 + messageFixed + len(r.reason) + len(r.m.Topic) + len(r.m.Payload)
}

func (r *message) encode(k kind) []byte {
	b := begin(k, r.size())
	b = binary.BigEndian.AppendUint64(b, r.seq)
	b = binary.BigEndian.AppendUint64(b, r.floor)
	b = binary.BigEndian.AppendUint64(b, uint64(r.accepted.UnixNano()))
	flags := byte(r.m.QoS)
	if r.m.Retain {
		flags |= 4
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.reason))) //nolint:gosec // quarantine bounds it
	b = append(b, r.reason...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.m.Topic))) //nolint:gosec // MQTT bounds it
	b = append(b, r.m.Topic...)
	return seal(append(b, r.m.Payload...))
}

// decodeMessage reads a body; the payload is a copy.
func decodeMessage(body []byte) (*message, error) {
	if len(body) < messageFixed {
		return nil, errDamaged
	}
	r := &message{
		seq: binary.BigEndian.Uint64(body), floor: binary.BigEndian.Uint64(body[8:]),
		accepted: time.Unix(0, int64(binary.BigEndian.Uint64(body[16:]))), //nolint:gosec // and back
	}
	r.m.QoS, r.m.Retain = mqtt.QoS(body[24]&3), body[24]&4 != 0
	reason, rest, ok := cutText(body[25:])
	if !ok {
		return nil, errDamaged
	}
	topic, payload, ok := cutText(rest)
	if !ok {
		return nil, errDamaged
	}
	r.reason, r.m.Topic, r.m.Payload = reason, mqtt.Topic(topic), append([]byte(nil), payload...)
	return r, nil
}

// cutText reads a text with its length before it.
func cutText(b []byte) (text string, rest []byte, ok bool) {
	if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
		return "", nil, false
	}
	end := 2 + int(binary.BigEndian.Uint16(b))
	return string(b[2:end]), b[end:], true
}

// answer is a kindAnswer. Its body: id 32 | request 32 | at 8 | delivery.
type answer struct {
	id, request [32]byte
	at          time.Time
	delivery    mqtt.Delivery
}

func (a *answer) encode() []byte {
	b := begin(kindAnswer, recordHeader+1+72+len(a.delivery))
	b = append(append(b, a.id[:]...), a.request[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(a.at.UnixNano()))
	return seal(append(b, a.delivery...))
}

func decodeAnswer(body []byte) (*answer, error) {
	if len(body) < 72 {
		return nil, errDamaged
	}
	a := &answer{at: time.Unix(0, int64(binary.BigEndian.Uint64(body[64:]))), delivery: mqtt.Delivery(body[72:])} //nolint:gosec // and back
	copy(a.id[:], body)
	copy(a.request[:], body[32:])
	return a, nil
}

func begin(k kind, size int) []byte {
	b := make([]byte, recordHeader, size)
	copy(b, recordMagic)
	return append(b, byte(k))
}

// seal fills in length and checksum.
func seal(b []byte) []byte {
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-recordHeader)) //nolint:gosec // recordMost bounds it
	binary.BigEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	return b
}

// open checks a record at the start of b and returns its kind, its body, and the
// length of the whole.
func open(b []byte) (k kind, body []byte, whole int, err error) {
	if len(b) <= recordHeader || string(b[:4]) != recordMagic {
		return 0, nil, 0, errDamaged
	}
	n := int(binary.BigEndian.Uint32(b[8:]))
	if n < 1 || n > recordMost || recordHeader+n > len(b) {
		return 0, nil, 0, errDamaged
	}
	whole = recordHeader + n
	if crc32.Checksum(b[8:whole], castagnoli) != binary.BigEndian.Uint32(b[4:]) {
		return 0, nil, 0, errDamaged
	}
	return kind(b[recordHeader]), b[recordHeader+1 : whole], whole, nil
}
