package upstream

import (
	"fmt"
	"sync"
)

// tracker knows which of our packets wait for an answer, and lets only the
// fitting answer through to the client library. The library completes whatever
// waits under an identifier when any acknowledgement with that identifier comes:
// a SUBACK would count as a PUBACK, and a SUBACK with too many codes panics.
type tracker struct {
	mu      sync.Mutex // guards the following
	waiting map[uint16]*awaited
}

// awaited is one packet of ours without its answer.
type awaited struct {
	kind     byte // typePublish, typeSubscribe or typeUnsub
	qos      byte
	filters  int
	written  bool // the whole packet was written
	received bool // QoS 2: the PUBREC came
}

func newTracker() *tracker { return &tracker{waiting: make(map[uint16]*awaited)} }

// sending notes a packet before its first byte is written.
func (t *tracker) sending(o outbound) {
	if o.id == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting[o.id] = &awaited{kind: o.kind, qos: o.qos(), filters: o.filters}
}

// sent notes that the whole packet was written.
func (t *tracker) sent(o outbound) {
	if o.id == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.waiting[o.id]; a != nil {
		a.written = true
	}
}

// unwritten reports whether id's packet is still being written. An answer that
// comes so early has to wait: the library must not complete a token from two
// goroutines at once.
func (t *tracker) unwritten(id uint16) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.waiting[id]
	return a != nil && !a.written
}

// answer judges an acknowledgement of the given kind: pass it on, drop it because
// nothing (or nothing any more) waits for it, or an error when it does not fit
// what waits. codes is the number of a SUBACK's return codes.
func (t *tracker) answer(kind byte, id uint16, codes int) (pass bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.waiting[id]
	if a == nil {
		return false, nil
	}
	fits := false
	switch kind {
	case typePuback:
		fits = a.kind == typePublish && a.qos == 1
	case typePubrec:
		if a.kind == typePublish && a.qos == 2 {
			a.received = true
			return true, nil
		}
	case typePubcomp:
		fits = a.kind == typePublish && a.qos == 2 && a.received
	case typeSuback:
		fits = a.kind == typeSubscribe && a.filters == codes
	case typeUnsuback:
		fits = a.kind == typeUnsub
	}
	if !fits {
		return false, fmt.Errorf("the broker answered packet %d (type %d, QoS %d, %d filters) with a packet of type %d and %d codes", id, a.kind, a.qos, a.filters, kind, codes)
	}
	delete(t.waiting, id)
	return true, nil
}
