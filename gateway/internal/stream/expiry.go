package stream

import (
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/wire"
)

// expiryWarning is how long before its token's end a stream is told.
const expiryWarning = 60 * time.Second

// greeting is how long the warning of a token that expires soon waits for the
// stream's first event, so that it does not come before it.
const greeting = time.Second

// Authenticate sets the stream's principal, before the first Subscribe, and its
// end at the token's expiry. It fails when the subject has too many streams, or when
// the principal has been revoked since it was read.
func (s *Stream) Authenticate(p auth.Principal) error {
	if err := s.registry.claim(s, p); err != nil {
		return err
	}
	s.mu.Lock()
	s.principal, s.known = p, true
	s.setEnd()
	s.mu.Unlock()
	// Either Recheck has seen the stream by now, or this sees what Recheck is for.
	now, err := s.registry.current(p)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rights == 0 {
		s.principal = now
	}
	return nil
}

// setEnd schedules the end of the principal's credential and its announcement.
// Needs s.mu.
func (s *Stream) setEnd() {
	s.warnAt, s.endsAt = time.Time{}, time.Time{}
	p := s.principal
	if p.Ends.IsZero() {
		return
	}
	s.endsAt = p.Ends
	s.warnAt = p.Expires.Add(-expiryWarning)
	if earliest := time.Now().Add(greeting); s.warnAt.Before(earliest) {
		s.warnAt = earliest
	}
	s.shard.schedule(s, soonest(s.warnAt, s.endsAt))
}

// greeted is called behind each event; the warning need not wait any more. Needs
// s.mu.
func (s *Stream) greeted() {
	if !s.warnAt.IsZero() && time.Until(s.principal.Expires) < expiryWarning {
		s.warn(time.Now())
	}
}

// warn tells that the token expires soon, once. Needs s.mu.
func (s *Stream) warn(now time.Time) {
	s.warnAt = time.Time{}
	left := max(0, s.principal.Expires.Sub(now))
	s.pushEvent(wire.NewEvent("token_expiring", wire.TokenExpiring{Seconds: int(left.Round(time.Second).Seconds())}))
}

// expire ends the stream at once: what waits is not delivered any more. Needs s.mu.
func (s *Stream) expire() {
	s.expired.Store(true)
	if !s.ended {
		s.queue.clear()
		s.endWith(wire.CloseUnauthenticated, "the token has expired")
	}
}
