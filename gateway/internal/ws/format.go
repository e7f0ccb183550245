package ws

import (
	"encoding/binary"

	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/wire"
)

// The first byte of a frame that is a whole message (RFC 6455 section 5.2). Frames
// of a server are not masked, so they are the same for every client.
const (
	textFrame  = 0x81
	closeFrame = 0x88
	pingFrame  = 0x89
)

// single is one object a frame.
var single = &stream.Format{
	Open:  func(dst []byte) []byte { return dst },
	Close: func(dst []byte, _ int) []byte { return dst },
	Message: func(dst []byte, f *hub.Frame, position uint64) []byte {
		if position == 0 || f.Seq == 0 { // nearly always: the length is known before
			return append(appendHeader(dst, len(f.JSON)), f.JSON...)
		}
		start := len(dst)
		return frame(stream.AppendObject(append(dst, room...), f, position), start)
	},
	Event: func(dst []byte, e *wire.Event) []byte {
		start := len(dst)
		return frame(e.AppendTyped(append(dst, room...)), start)
	},
}

// batched is an array of all that waits in one frame.
var batched = &stream.Format{
	Open: func(dst []byte) []byte { return append(append(dst, room...), '[') },
	Close: func(dst []byte, start int) []byte {
		dst[len(dst)-1] = ']' // in place of the last comma
		return frame(dst, start)
	},
	Message: func(dst []byte, f *hub.Frame, position uint64) []byte {
		return append(stream.AppendObject(dst, f, position), ',')
	},
	Event: func(dst []byte, e *wire.Event) []byte { return append(e.AppendTyped(dst), ',') },
}

// room is left for a frame's header until the length is known.
const room = "\x00\x00\x00\x00"

// frame puts the header before what follows dst[start] and room.
func frame(dst []byte, start int) []byte {
	var header [10]byte
	size := len(dst) - start - len(room)
	h := appendHeader(header[:0], size)
	if grow := len(h) - len(room); grow != 0 {
		if grow > 0 {
			dst = append(dst, header[:grow]...)
		}
		copy(dst[start+len(h):], dst[start+len(room):start+len(room)+size])
		dst = dst[:start+len(h)+size]
	}
	copy(dst[start:], h)
	return dst
}

func appendHeader(dst []byte, size int) []byte {
	switch {
	case size < 126:
		return append(dst, textFrame, byte(size)) //nolint:gosec // it fits
	case size < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, textFrame, 126), uint16(size))
	default:
		return binary.BigEndian.AppendUint64(append(dst, textFrame, 127), uint64(size))
	}
}
