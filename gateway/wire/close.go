package wire

import "flyscreen/gateway/fault"

// CloseCode says why a stream ended: the WebSocket close code, and the code of
// the end event on SSE and NDJSON. The JavaScript client mirrors this list.
type CloseCode int

// After these a client may reconnect as it is.
const (
	CloseGoingAway           CloseCode = 1001
	CloseRestart             CloseCode = 1012
	CloseTryLater            CloseCode = 1013
	CloseSlowConsumer        CloseCode = 4008
	CloseRateLimited         CloseCode = 4429
	CloseUpstreamUnavailable CloseCode = 4503
)

// After these it must change something first.
const (
	CloseUnsupported     CloseCode = 1003
	CloseInvalidUTF8     CloseCode = 1007
	CloseTooBig          CloseCode = 1009
	CloseProtocol        CloseCode = 4400
	CloseUnauthenticated CloseCode = 4401
	CloseNotAuthorized   CloseCode = 4403
	CloseRevoked         CloseCode = 4410
)

// CloseNormal is the clean end that the client asked for.
const CloseNormal CloseCode = 1000

// Reconnect reports whether a client that was ended with c should come back
// without changing anything.
func (c CloseCode) Reconnect() bool {
	switch c {
	case CloseGoingAway, CloseRestart, CloseTryLater, CloseSlowConsumer, CloseRateLimited, CloseUpstreamUnavailable:
		return true
	}
	return false
}

// CloseFrom is the close code for a failure that ends a stream.
func CloseFrom(err error) CloseCode {
	if s, known := spellings[fault.From(err).Code]; known {
		return s.close
	}
	return CloseTryLater
}
