package hub

import (
	"strconv"
	"strings"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// A stream that comes back says with a cursor up to where it has seen everything.
// What came after that is in the window, if the window still reaches back so far
// and the broker has sent us the filter's messages all the time since. The second
// is why filters linger after their last stream has left (interest.go), and why
// each knows since which position it has been covered.
//
// Attach and replay meet exactly: Join returns the position at which it
// attached the stream, under the lock that Deliver numbers, keeps and matches a
// message under. Every message up to it is in the window and was not delivered,
// every later one is delivered.

// Granted reports whether the broker's present connection brings all of filters, so
// that a snapshot may be asked for. The caller is subscribed to them.
func (h *Hub) Granted(filters []mqtt.Filter) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, f := range filters {
		if i := h.interests[f]; i == nil || !i.known || i.verdict != nil {
			return false
		}
	}
	return true
}

// Reconnected reports whether the broker's connection is another one than at
// position mark.
func (h *Hub) Reconnected(mark uint64) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.linked > mark
}

// Position is a parsed cursor.
type Position struct {
	seq   uint64
	ours  bool
	given bool
}

// Given reports whether there is a cursor at all.
func (p Position) Given() bool { return p.given }

// Seq is the number of the last message before it.
func (p Position) Seq() uint64 { return p.seq }

// ParsePosition reads a cursor. It fails with fault.BadRequest when text was never
// one; a cursor of another node or of an earlier run is a position like any other,
// from which Replay tells why it cannot go on.
func (h *Hub) ParsePosition(text string) (Position, error) {
	epoch, number, cut := strings.Cut(text, "-")
	seq, err := strconv.ParseUint(number, 10, 64)
	if !cut || err != nil || len(epoch) != len(h.epoch) || strconv.FormatUint(seq, 10) != number {
		return Position{}, fault.New(fault.BadRequest, "the cursor was not made by this service")
	}
	return Position{seq: seq, ours: epoch == h.epoch, given: true}, nil
}

// ForeignPosition is a position that nothing can be replayed from.
func ForeignPosition() Position { return Position{given: true} }

// Replay returns the live messages after position up to mark that match one of
// filters and, where that is not nil, except does not refuse. gap is empty, or the
// reason why there may be messages that it does not have (wire.GapNode, GapEvicted,
// GapUpstream), and then nothing is returned. The caller has been attached to
// filters, with the broker's grant, by a Join that returned mark.
func (h *Hub) Replay(position Position, mark uint64, filters []mqtt.Filter, except func(mqtt.Topic) bool) (frames []*Frame, gap string) {
	if !position.ours || position.seq > mark {
		return nil, wire.GapNode
	}
	if gap := h.uncovered(position.seq, filters); gap != "" {
		return nil, gap
	}
	judged := map[mqtt.Topic]bool{}
	frames, ok := h.window.between(position.seq, mark, func(f *Frame) bool {
		wanted, known := judged[f.Topic]
		if !known {
			wanted = matchesAny(filters, f.Topic) && (except == nil || !except(f.Topic))
			judged[f.Topic] = wanted
		}
		return wanted
	})
	if !ok {
		return nil, wire.GapEvicted
	}
	h.metrics.resumed.Inc()
	return frames, ""
}

// CoveredSince is the first position from which the window has all of filters, to
// which the caller is attached with the broker's grant.
func (h *Hub) CoveredSince(filters []mqtt.Filter) (seq uint64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, f := range filters {
		if since, ok := h.coveredSince(f); ok {
			seq = max(seq, since)
		}
	}
	return seq
}

// uncovered is why the window may lack messages of filters after seq; empty if it
// does not.
func (h *Hub) uncovered(seq uint64, filters []mqtt.Filter) string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, f := range filters {
		if since, ok := h.coveredSince(f); ok && since <= seq {
			continue
		}
		if seq < h.linked {
			return wire.GapUpstream
		}
		return wire.GapEvicted
	}
	return ""
}

func matchesAny(filters []mqtt.Filter, t mqtt.Topic) bool {
	for _, f := range filters {
		if f.Matches(t) {
			return true
		}
	}
	return false
}
