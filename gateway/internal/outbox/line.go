package outbox

import (
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

const (
	// slots are what a line's topics are spread over; a topic goes past the file only
	// while its slot has nothing in it.
	slots = 256
	// windowMessages and windowBytes bound what a line holds of the file in memory,
	// and so what it has under way.
	windowMessages = 256
	windowBytes    = 8 << 20
	// expireEvery is how often a line looks for messages that are too old.
	expireEvery = 15 * time.Second
)

// entry is a message on its way. Its fields are guarded by its line's mu.
type entry struct {
	message
	key  *answer  // to be remembered with it; nil without
	from *message // in quarantine, from where it comes back; nil without

	result  chan outcome // gets the caller's answer, once
	told    bool
	waits   bool // stands in the window
	left    bool // the caller has gone without an answer
	flying  bool
	done    bool // delivered, quarantined or dropped: the file will follow
	stored  bool // durable
	failed  bool // could not be stored
	lost    int  // connections that ended while it was under way
	alone   int  // of those, while it was on trial
	blamed  bool // the last of them ended with nothing else under way
	suspect bool // it may be why they ended: it travels alone
	cause   string
}

type outcome struct {
	delivery mqtt.Delivery
	err      error
}

func (e *entry) tell(d mqtt.Delivery, err error) {
	if !e.told {
		e.told = true
		e.result <- outcome{d, err}
	}
}

// slot is where some of a line's topics stand.
type slot struct {
	direct int      // under way past the file
	kept   int      // in the file, or on their way there
	held   []*entry // wait until direct is 0, to be kept behind those
}

// line is what goes over one connection to the broker: the order of a topic is kept
// within it. Messages of a topic go directly while nothing of its slot is kept;
// otherwise into the file, and from there strictly in order with a window.
type line struct {
	o    *Outbox
	n    int
	wake chan struct{}

	loading sync.Mutex // held while the window is filled from the file; before mu

	mu       sync.Mutex // guards the following, and the entries
	up       bool
	slots    [slots]slot
	flying   int               // under way, directly or from the window
	window   []*entry          // of the file, in order; those behind it are only there
	resident map[uint64]*entry // of the file or on their way there, until it has forgotten them
	bytes    int               // of window
	loaded   uint64            // the last sequence number that was read from the file
	more     bool              // the file has messages behind the window
	arrivals uint64            // messages that the window did not take
	casualty []*entry          // under way when the connection ended, until the next is up
	suspects int               // in window
	trial    *entry            // the only one under way: if the connection ends now, it is to blame
	clean    bool              // nothing else can be
	zeros    int               // QoS 0 messages since the last trial that went well
	calm     chan struct{}     // closed when the trial is over

	low atomic.Uint64 // no message of the file with a lower number is still to be delivered
}

// nothing is low's value for an empty line.
const nothing = ^uint64(0)

func newLine(o *Outbox, n int) *line {
	l := &line{o: o, n: n, wake: make(chan struct{}, 1), resident: map[uint64]*entry{}}
	l.low.Store(nothing)
	return l
}

func slotOf(t mqtt.Topic) int {
	hash := uint32(2166136261) // FNV-1a
	for i := range len(t) {
		hash = (hash ^ uint32(t[i])) * 16777619
	}
	return int(hash>>16^hash) % slots
}

func (l *line) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// accept sends e directly if nothing is in its way, and keeps it otherwise.
func (l *line) accept(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &l.slots[slotOf(e.m.Topic)]
	if l.up && l.suspects == 0 && l.trial == nil && s.kept == 0 && len(s.held) == 0 {
		e.flying = true
		err := l.o.broker.Send(e.m, func(_ mqtt.Delivery, err error) { l.directDone(e, err) })
		if err == nil {
			s.direct++
			l.flying++
			return
		}
		e.flying = false
		if !storable(err) {
			e.tell("", err)
			return
		}
	}
	if s.direct > 0 || len(s.held) > 0 { // those may yet have to be kept, and were first
		s.held = append(s.held, e)
		return
	}
	l.keepLocked(e)
}

// storable reports whether a message that failed so is worth another try.
func storable(err error) bool {
	switch fault.From(err).Code {
	case fault.UpstreamUnavailable, fault.UpstreamTimeout, fault.Overloaded, fault.Draining:
		return true
	}
	return false
}

// directDone is told how a message that went directly ended.
func (l *line) directDone(e *entry, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.seq != 0 { // its caller did not wait that long: it is kept by now
		l.landedLocked(e, err)
		return
	}
	l.flying--
	e.flying = false
	s := &l.slots[slotOf(e.m.Topic)]
	s.direct--
	switch {
	case err == nil:
		e.tell(mqtt.Acknowledged, nil)
	case e.left, !storable(err):
		e.tell("", err)
	default:
		l.lostLocked(e, err)
		l.keepLocked(e)
	}
	l.releaseLocked(s)
	l.poke()
}

// releaseLocked keeps what waited for the direct messages of s.
func (l *line) releaseLocked(s *slot) {
	if s.direct > 0 {
		return
	}
	held := s.held
	s.held = nil
	for _, e := range held {
		if !e.left {
			l.keepLocked(e)
		}
	}
}

// keepLocked hands e to the committer. Whatever calls it for a topic does so in the
// topic's order.
func (l *line) keepLocked(e *entry) {
	uncertain := e.flying || e.lost > 0
	if err := l.o.reserve(e.size()); err != nil {
		if uncertain {
			err = fault.New(fault.UpstreamTimeout, "the broker did not answer, and the outbox is full; whether it has the message is unknown").Because(err)
		}
		e.failed = true
		e.tell("", err)
		return
	}
	s := &l.slots[slotOf(e.m.Topic)]
	s.kept++
	l.o.commits.add(&operation{
		bytes: e.size(),
		apply: func(tx *bbolt.Tx, st *store) error {
			stored := message{seq: e.seq, accepted: e.accepted, m: e.m}
			if e.from != nil {
				if err := tx.Bucket(bucketPoison).Delete(seqKey(e.from.seq)); err != nil {
					return err
				}
			}
			if err := putMessage(&stored)(tx, st); err != nil || e.key == nil {
				return err
			}
			return tx.Bucket(bucketAnswers).Put(e.key.id[:], e.key.encode())
		},
		done: func(err error) { l.committed(e, err, uncertain) },
	}, func(seq uint64) { e.seq = seq })
	l.resident[e.seq] = e
}

// committed is told that e is in the file, or why not.
func (l *line) committed(e *entry, err error, uncertain bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.poke()
	s := &l.slots[slotOf(e.m.Topic)]
	if err != nil {
		e.failed = true
		delete(l.resident, e.seq)
		if !e.done {
			s.kept--
			l.o.release(e.size())
		}
		code := fault.New(fault.UpstreamUnavailable, "the broker cannot be reached, and the outbox cannot write to its disk; the message was not sent").Retry(time.Second)
		if uncertain {
			code = fault.New(fault.UpstreamTimeout, "the broker did not answer, and the outbox cannot write to its disk; whether the broker has the message is unknown")
		}
		e.tell("", code.Because(err))
		return
	}
	e.stored = true
	if e.from != nil {
		l.o.poison.Add(-1)
		l.o.bytes.Add(-int64(e.from.size()))
	}
	e.tell(mqtt.Queued, nil)
	switch {
	case e.done:
		l.forgetLocked(e)
	case e.flying || e.lost > 0 || e.seq <= l.loaded || !l.more && len(l.window) < windowMessages && l.bytes < windowBytes:
		l.insertLocked(e)
	default: // the window gets it from the file
		delete(l.resident, e.seq)
		l.more = true
		l.arrivals++
		l.noteLowLocked()
	}
}

// giveUp is for a caller who waits no longer. A message that is under way is kept,
// and what comes of it is still heard; one that was not sent is not sent any more.
// keep false is for a caller that has left.
func (l *line) giveUp(e *entry, keep bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.told || e.seq != 0 {
		return
	}
	s := &l.slots[slotOf(e.m.Topic)]
	if !e.flying {
		e.left = true
		e.tell("", fault.New(fault.Overloaded, "the broker is too slow; the message was not sent").Retry(time.Second))
		return
	}
	if !keep {
		e.left = true
		return
	}
	s.direct--
	l.keepLocked(e)
	if e.failed { // no room: it is still under way, as nobody's
		e.seq = ^uint64(0)
	}
	l.releaseLocked(s)
}
