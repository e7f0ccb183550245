package upstream

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// lane publishes on one session, beside the client library: the library keeps the
// connection alive, a lane writes the PUBLISH packets and takes their answers. It
// joins what is waiting in one write, has many packets under way, and keeps their
// order, none of which the library's calls can do.
//
// Sends from one goroutine are written in their order. Each flight ends once, with
// its callback: answered, written (QoS 0), or failed when the session is over, then
// in the order in which they were sent.
type lane struct {
	conn    *conn
	max     int           // flights
	wake    chan struct{} // something is queued
	quit    chan struct{}
	stopped chan struct{} // the writer has returned

	mu       sync.Mutex // guards the following
	queue    []byte     // whole packets to be written next
	unsent   []*flight  // QoS 0 in queue
	writing  []*flight  // QoS 0 in the write under way
	waiting  map[uint16]*flight
	sent     uint64 // flights so far
	batch    uint64 // of queue
	written  uint64 // the last batch that is written
	lastID   uint16
	closed   bool
	full     bool      // a send was refused since the last check
	answered time.Time // the last answer
	newest   uint64    // the latest flight that was answered
	left     int       // flights at the end; set by close
}

// flight is a publish under way.
type flight struct {
	qos       mqtt.QoS
	number    uint64 // in the order of sending
	batch     uint64
	at        time.Time
	received  bool // QoS 2: the PUBREC came
	completed func(error)
}

// laneBytes bounds what waits to be written; a single larger packet passes when
// nothing else waits.
const laneBytes = 4 << 20

// spareBytes is the largest write buffer that is kept for the next time.
const spareBytes = 1 << 20

func newLane(c *conn, maxFlights int) *lane {
	return &lane{
		conn: c, max: maxFlights, wake: make(chan struct{}, 1), quit: make(chan struct{}), stopped: make(chan struct{}),
		waiting: map[uint16]*flight{}, batch: 1, answered: time.Now(),
	}
}

// send queues m. Its error means that m was not taken and completed is never
// called; completed must not block.
func (l *lane) send(m mqtt.Message, completed func(error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return unavailable("the message was not sent", errClosed)
	}
	if len(l.waiting) >= l.max || len(l.queue) > 0 && len(l.queue)+len(m.Topic)+len(m.Payload) > laneBytes {
		l.full = true
		return fault.New(fault.Overloaded, "%d messages wait for the broker's answer; this one was not sent", len(l.waiting)).Retry(time.Second)
	}
	l.sent++
	f := &flight{qos: m.QoS, number: l.sent, batch: l.batch, at: time.Now(), completed: completed}
	var id uint16
	if m.QoS == 0 {
		l.unsent = append(l.unsent, f)
	} else {
		id = l.freeIDLocked()
		l.waiting[id] = f
	}
	l.queue = appendPublish(l.queue, m, id)
	l.wakeWriter()
	return nil
}

func (l *lane) wakeWriter() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lane) freeIDLocked() uint16 {
	for { // max is far below the number of identifiers
		if l.lastID++; l.lastID == 0 {
			continue // 3.1.1 section 2.3.1: not zero
		}
		if _, taken := l.waiting[l.lastID]; !taken {
			return l.lastID
		}
	}
}

// appendPublish appends a PUBLISH packet (3.1.1 section 3.3); m fits one.
func appendPublish(b []byte, m mqtt.Message, id uint16) []byte {
	first := byte(typePublish<<4) | byte(m.QoS)<<1
	if m.Retain {
		first |= 1
	}
	remaining := 2 + len(m.Topic) + len(m.Payload)
	if m.QoS > 0 {
		remaining += 2
	}
	b = append(b, first)
	b = binary.AppendUvarint(b, uint64(remaining))             // MQTT's encoding is the same base 128 (section 2.2.3)
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Topic))) //nolint:gosec // checkPublish bounds it
	b = append(b, m.Topic...)
	if m.QoS > 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	return append(b, m.Payload...)
}

// write is the writer's goroutine; it returns when the session is over.
func (l *lane) write() {
	defer close(l.stopped)
	var spare []byte
	for {
		select {
		case <-l.wake:
		case <-l.quit:
			return
		case <-l.conn.ended:
			return
		}
		l.mu.Lock()
		packets, batch := l.queue, l.batch
		l.queue, l.batch = spare[:0], l.batch+1
		l.writing, l.unsent = l.unsent, nil
		l.mu.Unlock()
		err := l.conn.writeBatch(packets, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.written = batch
		})
		if err != nil {
			return
		}
		l.mu.Lock()
		through := l.writing
		l.writing = nil
		l.mu.Unlock()
		for _, f := range through {
			f.completed(nil)
		}
		if spare = packets; cap(spare) > spareBytes {
			spare = nil
		}
	}
}

// answer takes a PUBACK, PUBREC or PUBCOMP. One for nothing that was sent is
// dropped; one that does not fit what was is an error.
func (l *lane) answer(kind byte, id uint16) error {
	l.mu.Lock()
	f := l.waiting[id]
	early := f != nil && f.batch > l.written
	l.mu.Unlock()
	if early { // its write may be about to return; an answer to what is not written is for nothing of ours
		l.conn.awaitWrite()
	}
	l.mu.Lock()
	f = l.waiting[id]
	if f == nil || f.batch > l.written {
		l.mu.Unlock()
		return nil
	}
	over := kind == typePuback && f.qos == 1 || kind == typePubcomp && f.qos == 2 && f.received
	switch {
	case over:
		delete(l.waiting, id)
		l.answered, l.newest = time.Now(), max(l.newest, f.number)
	case kind == typePubrec && f.qos == 2:
		f.received = true
		l.queue = binary.BigEndian.AppendUint16(append(l.queue, typePubrel<<4|2, 2), id)
		l.wakeWriter()
	default:
		l.mu.Unlock()
		return fmt.Errorf("the broker answered packet %d (a PUBLISH with QoS %d) with a packet of type %d", id, f.qos, kind)
	}
	l.mu.Unlock()
	if over {
		f.completed(nil)
	}
	return nil
}

// close ends all flights, in the order of their sending. Only called once.
func (l *lane) close(cause error) {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	close(l.quit)
	timer := time.NewTimer(teardown)
	defer timer.Stop()
	select {
	case <-l.stopped:
	case <-timer.C: // in a write to a broker that hardly reads
		l.conn.end(cause)
		<-l.stopped
	}
	l.mu.Lock()
	left := slices.Concat(l.writing, l.unsent)
	for _, f := range l.waiting {
		left = append(left, f)
	}
	l.waiting, l.writing, l.unsent = map[uint16]*flight{}, nil, nil
	l.left = len(left)
	queued := l.batch
	l.mu.Unlock()
	slices.SortFunc(left, func(a, b *flight) int { return cmp.Compare(a.number, b.number) })
	for _, f := range left {
		if f.batch == queued {
			f.completed(unavailable("the message was not sent", cause))
			continue
		}
		f.completed(fault.New(fault.UpstreamTimeout, "the broker did not answer; whether it has the message is unknown").Because(cause))
	}
}

// flights is how many publishes wait for the broker's answer.
func (l *lane) flights() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}

// silentAfter is how long a broker may answer no publish at all, though some wait.
const silentAfter = 10 * time.Second

// stuck condemns a connection on which a publish has waited for longer than
// overdue, unless the broker is only slow: it answers others, and in order.
func (l *lane) stuck(overdue time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var oldest *flight
	for _, f := range l.waiting {
		if oldest == nil || f.number < oldest.number {
			oldest = f
		}
	}
	full := l.full
	l.full = false
	if oldest == nil || time.Since(oldest.at) <= overdue {
		return nil
	}
	if !full && l.newest < oldest.number && time.Since(l.answered) < silentAfter {
		return nil
	}
	return fmt.Errorf("%d publishes wait for the broker's answer, the oldest for %s", len(l.waiting), time.Since(oldest.at).Round(time.Second))
}

// errSilent is why the watchdog ended a connection.
var errSilent = errors.New("nothing was heard from the broker")

// brokerEnded reports whether a connection's end looks like the broker's doing
// rather than the network's or ours.
func brokerEnded(cause error) bool {
	return cause != nil && !errors.Is(cause, errSilent) && !errors.Is(cause, os.ErrDeadlineExceeded) && !errors.Is(cause, errClosed)
}
