package outbox

import (
	"context"
	"fmt"
	"time"

	"flyscreen/gateway/fault"
)

// lostLocked notes that the connection ended with e under way.
func (l *line) lostLocked(e *entry, err error) {
	if !fault.Is(err, fault.UpstreamTimeout) { // it was not even sent
		return
	}
	e.lost++
	e.cause = fault.From(err).Detail
	if cause := fault.From(err).Unwrap(); cause != nil {
		e.cause = cause.Error()
	}
	l.casualty = append(l.casualty, e)
}

// link is told that the connection came or went; of one that came, whether the
// broker survived the end of the one before.
func (l *line) link(up, survived bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.poke()
	l.up = up
	if !up {
		return
	}
	l.zeros = 0
	for _, e := range l.casualty {
		blamed := e.blamed
		e.blamed = false
		if e.done || e.failed {
			continue
		}
		if blamed && (survived && e.lost >= poisonTries || e.alone >= crashTries) {
			l.quarantineLocked(e, fmt.Sprintf("the connection ended %d times while this message was under way, the last time with nothing else: %s", e.lost, e.cause))
			continue
		}
		if suspicious := survived || e.lost >= crashTries-1; suspicious && !e.suspect {
			e.suspect = true
			if e.waits {
				l.suspects++
			}
		}
	}
	l.casualty = nil
}

const (
	// poisonTries is after how many lost connections a message that was alone under way
	// the last time is quarantined, if the broker was there all the time.
	poisonTries = 2
	// crashTries is the same if the broker went away each time: it may have crashed of it.
	crashTries = 5
)

// quarantineLocked takes e, which is in the file or about to be, out of the way.
func (l *line) quarantineLocked(e *entry, reason string) {
	l.finishLocked(e)
	e.reason = reason[:min(len(reason), 500)]
	poison := e.message
	l.o.quarantined(&poison)
	l.o.commits.add(&operation{must: true, bytes: e.size(), apply: movePoison(&poison), done: func(error) { l.forgotten(e) }}, nil)
}

// quiet waits for the end of a trial: a QoS 0 message could be to blame too, and is
// not heard of again.
func (l *line) quiet(ctx context.Context) error {
	for {
		l.mu.Lock()
		if l.trial == nil {
			l.zeros++
			l.mu.Unlock()
			return nil
		}
		calm := l.calm
		l.mu.Unlock()
		select {
		case <-calm:
		case <-ctx.Done():
			return fault.New(fault.Overloaded, "the broker connection is being tried; the message was not sent").Retry(time.Second).Because(ctx.Err())
		}
	}
}
