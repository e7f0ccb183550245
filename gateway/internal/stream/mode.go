package stream

import (
	"time"

	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/mqtt"
)

// OnSlow is what happens when more waits for a client than its queue may hold.
type OnSlow int

// The policies for a slow client.
const (
	OnSlowGap    OnSlow = iota // drop the oldest message and tell it
	OnSlowLatest               // keep the newest message of each topic
	OnSlowClose                // end the stream
)

// Mode is how the messages of a filter are delivered.
type Mode struct {
	// Latest delivers the newest message of each topic, at most one in Interval, and
	// leaves out what was replaced meanwhile.
	Latest   bool
	Interval time.Duration
	OnSlow   OnSlow
}

// MaxInterval is the longest Interval.
const MaxInterval = time.Hour

// stronger is the mode for a topic that filters of both modes match: the one that
// promises more.
func (m Mode) stronger(n Mode) Mode {
	m.OnSlow = m.OnSlow.stronger(n.OnSlow)
	switch {
	case !n.Latest:
		m.Latest, m.Interval = false, 0
	case m.Latest:
		m.Interval = min(m.Interval, n.Interval)
	}
	return m
}

func (o OnSlow) stronger(p OnSlow) OnSlow {
	switch {
	case o == OnSlowClose || p == OnSlowClose:
		return OnSlowClose
	case o == OnSlowGap || p == OnSlowGap:
		return OnSlowGap
	}
	return OnSlowLatest
}

// conflates reports whether an older message may be left out for a newer one of
// its topic when the queue is full.
func (m Mode) conflates() bool { return m.Latest || m.OnSlow == OnSlowLatest }

// modeOf is the mode for messages of t. Needs s.mu.
func (s *Stream) modeOf(t mqtt.Topic) Mode {
	if s.uniform {
		return s.mode
	}
	var mode Mode
	found := false
	for _, sub := range s.subs {
		if !sub.matches(t) {
			continue
		}
		if !found {
			mode, found = sub.mode, true
			continue
		}
		mode = mode.stronger(sub.mode)
	}
	return mode
}

func (sub *subscription) matches(t mqtt.Topic) bool {
	for _, f := range sub.granted {
		if f.Matches(t) {
			return true
		}
	}
	return false
}

// blend notes whether one mode holds for the whole stream. Needs s.mu.
func (s *Stream) blend() {
	s.uniform = true
	for i, sub := range s.subs {
		if i == 0 {
			s.mode = sub.mode
		}
		s.uniform = s.uniform && sub.mode == s.mode
	}
}

// remode puts what waits where a change of modes wants it. Needs s.mu.
func (s *Stream) remode() {
	q := &s.queue
	if s.uniform && s.mode == (Mode{}) && q.newest == nil || s.ended {
		return
	}
	s.count(q.conflate(func(f *hub.Frame) bool { return s.modeOf(f.Topic).Latest }, time.Now()))
	if q.newest != nil {
		q.newest.retime(func(t mqtt.Topic) time.Duration { return s.modeOf(t).Interval }, time.Now())
		q.pushBatchFirst(q.newest.release(func(t mqtt.Topic) bool { return !s.modeOf(t).conflates() }))
	}
	s.signal()
}
