package stream

import (
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// Missed implements hub.Subscriber: a message that one of the stream's filters
// matches could not be taken from the broker, so the stream tells a gap of one,
// unless the client may not know of the message at all.
func (s *Stream) Missed(t mqtt.Topic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forbids(t, 0) {
		return
	}
	one := 1
	s.gap(&one, wire.GapUpstream)
}
