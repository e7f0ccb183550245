package stream

import (
	"math/rand/v2"
	"time"

	"flyscreen/gateway/wire"
)

// End queues the last event, behind what waits already; nothing is delivered
// after it.
func (s *Stream) End(code wire.CloseCode, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endWith(code, reason)
}

// endWith needs s.mu.
func (s *Stream) endWith(code wire.CloseCode, reason string) {
	if s.ended {
		return
	}
	s.end = wire.End{Code: code, Reason: reason, Reconnect: code.Reconnect()}
	if s.end.Reconnect {
		s.end.AfterMS = rand.Int64N(maxReconnectDelay.Milliseconds()) //nolint:gosec // not a secret: it only spreads load
	}
	s.queue.pushEvent(wire.NewEvent(EndEvent, s.end), nil)
	s.ended = true
	s.warnAt, s.endsAt = time.Time{}, time.Time{}
	s.signal()
}

// Expired reports whether the token's time is over. A sink that is still busy with
// what it was given before must stop: nothing is delivered any more but the end.
func (s *Stream) Expired() bool { return s.expired.Load() }

// Gone is closed when nothing can be written to the client any more: its
// connection was lost, or it was given the last event.
func (s *Stream) Gone() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over == nil {
		s.over = make(chan struct{})
		if s.gone {
			close(s.over)
		}
	}
	return s.over
}

// Lost tells that the client's connection is lost.
func (s *Stream) Lost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave()
}

// leave needs s.mu.
func (s *Stream) leave() {
	if s.gone {
		return
	}
	s.gone = true
	if s.over != nil {
		close(s.over)
	}
	s.wakeWaiting()
}

// EndEvent is the name of the event after which a door closes.
const EndEvent = "end"

// Close frees the stream, and returns when neither its sink nor any goroutine of
// it is in use. The door calls it once, when it is done.
func (s *Stream) Close() {
	s.mu.Lock()
	s.ended, s.closed = true, true
	s.warnAt, s.endsAt = time.Time{}, time.Time{}
	s.queue.clear()
	for _, j := range s.joins {
		if j.cancel != nil {
			j.cancel()
		}
	}
	if s.confirming != nil {
		s.confirming()
	}
	s.leave()
	s.mu.Unlock()
	s.hub.Leave(s) // a Subscribe that is under way sees that the stream is closed, and does the same
	s.shard.remove(s)
	s.serving.Lock()
	s.sink, s.finished = nil, true
	s.serving.Unlock()
	s.pending.Wait()
	s.registry.remove(s)
}
