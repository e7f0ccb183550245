package stream

import "flyscreen/gateway/wire"

// Missed implements hub.Subscriber: a message that one of the stream's filters
// matches could not be taken from the broker, so the stream tells a gap of one.
func (s *Stream) Missed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := 1
	s.gap(&one, wire.GapUpstream)
}
