package outbox

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// noteLowLocked keeps low; whatever changes the window or more calls it.
func (l *line) noteLowLocked() {
	low := nothing
	if len(l.window) > 0 {
		low = l.window[0].seq
	}
	if l.more {
		low = min(low, l.loaded+1)
	}
	l.low.Store(low)
}

// insertLocked puts e into the window.
func (l *line) insertLocked(e *entry) {
	if !l.more {
		l.loaded = max(l.loaded, e.seq)
	}
	l.resident[e.seq] = e
	e.waits = true
	at, _ := slices.BinarySearchFunc(l.window, e.seq, func(w *entry, seq uint64) int {
		if w.seq < seq {
			return -1
		}
		return 1
	})
	l.window = slices.Insert(l.window, at, e)
	l.bytes += e.size()
	if e.suspect {
		l.suspects++
	}
	l.noteLowLocked()
}

// finishLocked takes e, which needs no more sending, out of the window.
func (l *line) finishLocked(e *entry) {
	e.done = true
	l.slots[slotOf(e.m.Topic)].kept--
	l.o.release(e.size())
	if !e.waits {
		return
	}
	at := slices.Index(l.window, e)
	l.window = slices.Delete(l.window, at, at+1)
	l.bytes -= e.size()
	if e.suspect {
		l.suspects--
	}
	l.noteLowLocked()
}

// forgetLocked deletes e from the file.
func (l *line) forgetLocked(e *entry) {
	l.o.commits.add(&operation{must: true, apply: deleteMessage(e.seq), done: func(error) { l.forgotten(e) }}, nil)
}

func (l *line) forgotten(e *entry) {
	l.loading.Lock() // or the window might be filled with what was read before
	defer l.loading.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.resident, e.seq)
}

// run sends what is kept until ctx is done.
func (l *line) run(ctx context.Context) {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.wake:
		case <-tick.C:
			l.expire()
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil && l.pump() {
		}
	}
}

// pump sends from the window what may go now, and reports whether the window can be
// filled and sent from again.
func (l *line) pump() (again bool) {
	l.mu.Lock()
	l.sendLocked()
	fill := l.up && l.more && len(l.window) < windowMessages/2 && l.bytes < windowBytes/2
	l.mu.Unlock()
	return fill && l.fill()
}

func (l *line) sendLocked() {
	if !l.up || l.trial != nil {
		return
	}
	under := 0
	for _, e := range l.window {
		if e.flying {
			under++
			continue
		}
		if e.done {
			continue
		}
		if e.suspect && l.flying > 0 || under >= windowMessages {
			return
		}
		e.flying = true
		if err := l.o.broker.Send(e.m, func(_ mqtt.Delivery, err error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.landedLocked(e, err)
		}); err != nil {
			e.flying = false
			if !storable(err) { // the broker's limits have become narrower
				l.quarantineLocked(e, fault.From(err).Detail)
				l.poke()
			} else if l.up {
				time.AfterFunc(50*time.Millisecond, l.poke) // full, or about to go down
			}
			return
		}
		l.flying++
		under++
		if e.suspect {
			l.trial, l.clean, l.calm = e, l.zeros == 0, make(chan struct{})
			return
		}
	}
}

// landedLocked is told how a message from the window ended.
func (l *line) landedLocked(e *entry, err error) {
	defer l.poke()
	l.flying--
	e.flying = false
	trial := l.trial == e
	if trial {
		l.trial = nil
		close(l.calm)
	}
	switch {
	case e.done || e.failed:
	case err == nil:
		if trial {
			l.zeros = 0
		}
		l.finishLocked(e)
		e.tell(mqtt.Acknowledged, nil)
		l.o.metrics.delivered.Inc()
		if e.stored { // otherwise committed does it
			l.forgetLocked(e)
		}
	default:
		l.lostLocked(e, err)
		if trial && l.clean && fault.Is(err, fault.UpstreamTimeout) {
			e.alone++
			e.blamed = true
		}
	}
}

// fill reads the next messages from the file into the window.
func (l *line) fill() (progress bool) {
	s := l.o.commits.store.Load()
	if s == nil {
		return false
	}
	l.loading.Lock()
	defer l.loading.Unlock()
	l.mu.Lock()
	from, arrivals, room, bytes := l.loaded, l.arrivals, windowMessages-len(l.window), windowBytes-l.bytes
	l.mu.Unlock()
	var next []*message
	all := true
	err := s.eachMessage(from+1, func(r *message) bool {
		if l.o.broker.Line(r.m.Topic) != l.n {
			return true
		}
		if room--; room < 0 || bytes <= 0 {
			all = false
			return false
		}
		bytes -= r.size()
		next = append(next, r)
		return true
	})
	if err != nil {
		l.o.failing(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range next {
		l.loaded = max(l.loaded, r.seq)
		if l.resident[r.seq] == nil {
			l.insertLocked(&entry{message: *r, stored: true, told: true})
		}
	}
	if all && l.arrivals == arrivals && (err == nil || errors.Is(err, errDamaged)) {
		l.more = false
	}
	l.noteLowLocked()
	return len(next) > 0 || !l.more
}

// eachMessage calls do with the messages from seq on, in order, until it returns
// false. A damaged record, which opening would have found, is passed over: it must
// not hold up the others. The error is of the first of them.
func (s *store) eachMessage(seq uint64, do func(*message) bool) error {
	var first error
	err := s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketMessages).Cursor()
		for k, v := c.Seek(seqKey(seq)); k != nil; k, v = c.Next() {
			var r *message
			_, body, _, err := open(v)
			if err == nil {
				r, err = decodeMessage(body)
			}
			if err != nil {
				first = cmp.Or(first, fmt.Errorf("message %d: %w; it is passed over until the next start", binary.BigEndian.Uint64(k), err))
				continue
			}
			if !do(r) {
				return nil
			}
		}
		return nil
	})
	return cmp.Or(err, first)
}

// expire puts what is older than the bound into quarantine.
func (l *line) expire() {
	s := l.o.commits.store.Load()
	if s == nil {
		return
	}
	l.loading.Lock()
	defer l.loading.Unlock()
	before := time.Now().Add(-l.o.options.MaxAge)
	var old []*message
	if err := s.eachMessage(0, func(r *message) bool {
		if !r.accepted.Before(before) || len(old) >= commitOperations {
			return false
		}
		if l.o.broker.Line(r.m.Topic) == l.n {
			old = append(old, r)
		}
		return true
	}); err != nil {
		l.o.failing(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range old {
		e := l.resident[r.seq]
		switch {
		case e == nil:
			e = &entry{message: *r, stored: true, told: true}
			l.resident[r.seq] = e
		case e.flying || e.done:
			continue
		}
		l.o.metrics.expired.Inc()
		l.quarantineLocked(e, fmt.Sprintf("it waited for longer than %s", l.o.options.MaxAge))
	}
}
