package upstream

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Packet types (3.1.1 section 2.2.1).
const (
	typeConnect   = 1
	typeConnack   = 2
	typePublish   = 3
	typePuback    = 4
	typePubrec    = 5
	typePubrel    = 6
	typePubcomp   = 7
	typeSubscribe = 8
	typeSuback    = 9
	typeUnsub     = 10
	typeUnsuback  = 11
	typePingreq   = 12
	typePingresp  = 13
)

// maxControl bounds every packet from the broker that is not a PUBLISH; the
// longest honest one is a SUBACK for filtersPerPacket filters.
const maxControl = 1024

// errShort asks for more bytes.
var errShort = errors.New("incomplete packet")

// header is a fixed header and the packet's total length, itself included.
type header struct {
	kind, flags byte
	size        int // bytes of the fixed header
	total       int
}

func (h header) qos() byte { return h.flags >> 1 & 3 }

// parseHeader reads a fixed header (3.1.1 section 2.2) from the start of b.
func parseHeader(b []byte) (header, error) {
	if len(b) < 2 {
		return header{}, errShort
	}
	h := header{kind: b[0] >> 4, flags: b[0] & 15}
	remaining := 0
	for i := 1; i <= 4; i++ {
		if i == len(b) {
			return header{}, errShort
		}
		remaining |= int(b[i]&127) << (7 * (i - 1))
		if b[i] < 128 {
			h.size, h.total = i+1, i+1+remaining
			return h, nil
		}
	}
	return header{}, errors.New("the broker sent a remaining length of more than four bytes")
}

// checkInbound holds a fixed header from the broker to what a server may send
// (3.1.1 section 2.2.1) and to our bounds, before anybody allocates for it. A
// PUBLISH may have any size here: conn replaces one that is too large.
func checkInbound(h header) error {
	remaining, want := h.total-h.size, -1
	switch h.kind {
	case typePublish:
		switch {
		case h.qos() > 1: // we subscribe at QoS 0 and 1 only (section 3.8.4), and 3 is malformed
			return fmt.Errorf("the broker sent a PUBLISH with QoS %d", h.qos())
		case remaining < 3+2*int(h.qos()):
			return errors.New("the broker sent a PUBLISH that is too short")
		}
		return nil
	case typeConnack, typePuback, typePubrec, typePubcomp, typeUnsuback:
		want = 2
	case typePingresp:
		want = 0
	case typeSuback:
		if remaining >= 3 && remaining <= maxControl {
			return nil
		}
	default:
		return fmt.Errorf("the broker sent a packet of type %d, which is not a server's to send here", h.kind)
	}
	if remaining != want {
		return fmt.Errorf("the broker sent a packet of type %d with %d bytes", h.kind, remaining)
	}
	return nil
}

// outbound is what matters of a packet that we send.
type outbound struct {
	header
	id      uint16 // 0: the packet has none
	filters int    // of a SUBSCRIBE
}

// parseOutbound reads one whole packet of our own. An error means a bug on our
// side of the socket, or in the client library.
func parseOutbound(p []byte) (outbound, error) {
	h, err := parseHeader(p)
	if err != nil {
		return outbound{}, err
	}
	if h.total != len(p) {
		return outbound{}, fmt.Errorf("a write of %d bytes holds a packet of %d", len(p), h.total)
	}
	out, body := outbound{header: h}, p[h.size:]
	switch {
	case h.kind == typePublish && h.qos() > 0:
		at := 2 + int(u16(body))
		if len(body) < at+2 {
			return out, errors.New("a PUBLISH ends in its header")
		}
		out.id = u16(body[at:])
	case h.kind == typeSubscribe || h.kind == typeUnsub:
		out.id = u16(body)
		if h.kind == typeSubscribe {
			out.filters = countFilters(body[min(2, len(body)):])
		}
	}
	return out, nil
}

func countFilters(b []byte) int {
	n := 0
	for len(b) >= 3 {
		b = b[min(3+int(u16(b)), len(b)):]
		n++
	}
	return n
}

// u16 reads a big-endian number, 0 when b is too short.
func u16(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}
