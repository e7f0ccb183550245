package sse

import (
	"testing"
	"time"
)

// Negotiate is the content type that an Accept header gets.
func Negotiate(accept ...string) (string, error) {
	f, err := negotiate(accept)
	if err != nil {
		return "", err
	}
	return f.contentType, nil
}

// SetHeartbeat changes the pause after which a quiet stream gives a sign of life,
// until the test ends. To be called before the gateway starts.
func SetHeartbeat(t *testing.T, d time.Duration) {
	standard := heartbeat
	t.Cleanup(func() { heartbeat = standard })
	heartbeat = d
}
