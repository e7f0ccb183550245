package hub

import (
	"bytes"
	"strconv"
	"time"

	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// Frame is a message with what all its receivers share: one encoding, made once.
// Nobody may change it.
type Frame struct {
	Topic mqtt.Topic
	// Seq numbers live messages in the order of delivery; 0 on snapshots.
	Seq uint64
	// JSON is the message object on one line.
	JSON []byte
	// Lost marks a message that could not be taken from the broker: there is
	// nothing but its topic and place.
	Lost bool

	body, bodyEnd int // of the payload's member in JSON
	cursor        int // where the member "cursor" begins in JSON; 0 without one
	received      time.Time
}

// NewFrame encodes m. seq and epoch make its cursor; seq 0 leaves it out.
func NewFrame(m mqtt.Message, epoch string, seq uint64) *Frame {
	f := &Frame{Topic: m.Topic, Seq: seq, received: m.Time}
	b := make([]byte, 0, len(m.Payload)+len(m.Topic)+160)
	b, f.body, f.bodyEnd = wire.AppendMessageOpen(b, m)
	if seq != 0 {
		f.cursor = len(b)
		b = append(b, cursorMember...)
		b = appendCursor(b, epoch, seq)
		b = append(b, '"')
	}
	f.JSON = append(b, '}')
	return f
}

const cursorMember = `,"cursor":"`

// Cursor is the message's position for clients; empty on snapshots.
func (f *Frame) Cursor() []byte {
	if f.cursor == 0 {
		return nil
	}
	return f.JSON[f.cursor+len(cursorMember) : len(f.JSON)-len(`"}`)]
}

// AppendCursorAt appends the cursor for another position of the same process; f
// must have one itself.
func (f *Frame) AppendCursorAt(dst []byte, seq uint64) []byte {
	own := f.Cursor()
	dst = append(dst, own[:bytes.IndexByte(own, '-')+1]...)
	return strconv.AppendUint(dst, seq, 10)
}

// AppendJSONAt appends the message object with the cursor for another position.
func (f *Frame) AppendJSONAt(dst []byte, seq uint64) []byte {
	dst = append(dst, f.JSON[:f.cursor]...)
	dst = append(dst, cursorMember...)
	return append(f.AppendCursorAt(dst, seq), '"', '}')
}

// SamePayload reports whether clients see the same payload in both.
func (f *Frame) SamePayload(g *Frame) bool {
	return bytes.Equal(f.JSON[f.body:f.bodyEnd], g.JSON[g.body:g.bodyEnd])
}

// size is about what f costs in memory.
func (f *Frame) size() int { return cap(f.JSON) + len(f.Topic) + frameOverhead }

// frameOverhead is the structs beside a frame's bytes.
const frameOverhead = 160

func appendCursor(dst []byte, epoch string, seq uint64) []byte {
	dst = append(append(dst, epoch...), '-')
	return strconv.AppendUint(dst, seq, 10)
}
