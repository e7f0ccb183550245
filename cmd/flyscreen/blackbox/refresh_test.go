package blackbox_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// An open stream takes a new token in band, over HTTP and over a WebSocket.
func TestNewTokensForOpenStreams(t *testing.T) {
	s := boot(t, "embedded", nil)
	wide := tokenFor(t, "reader", grants{Sub: []string{"a/#", "b"}})
	narrow := tokenFor(t, "reader", grants{Sub: []string{"b"}})
	nothing := tokenFor(t, "reader", grants{Sub: []string{"c"}})
	other := tokenFor(t, "other", grants{Sub: []string{"#"}})

	st := s.followLive(t, "ndjson", wide, "a/x", "b")
	all := st.events(t)
	path := "/v1/stream/" + all[slices.IndexFunc(all, func(e event) bool { return e.Type == "ready" })].Stream + "/token"
	wantProblem(t, "no token", s.do(t, http.MethodPut, path, "", nil), http.StatusUnauthorized, "unauthenticated")
	wantProblem(t, "another subject", s.do(t, http.MethodPut, path, other, nil), http.StatusNotFound, "not-found")
	wantProblem(t, "a parameter", s.do(t, http.MethodPut, path+"?x=1", narrow, nil), http.StatusBadRequest, "bad-request")
	wantProblem(t, "a body", s.do(t, http.MethodPut, path, narrow, []byte("x")), http.StatusRequestEntityTooLarge, "too-large")
	if a := s.do(t, http.MethodPut, path, narrow, nil); a.status != http.StatusOK || !strings.Contains(string(a.body), `"granted":["b"]`) {
		t.Errorf("the refresh: %d %s", a.status, a.body)
	}
	s.publish(t, everything(t), "a/x", []byte("1"))
	s.publish(t, everything(t), "b", []byte("2"))
	if all := st.until(t, "b"); countTopic(all, "a/x") > 0 {
		t.Error("a message came that the new token does not allow")
	}
	wantProblem(t, "nothing left", s.do(t, http.MethodPut, path, nothing, nil), http.StatusForbidden, "not-authorized")
	st.await(t, "the end", func(all []event) bool {
		return count(all, "end") > 0 && all[len(all)-1].Code == 4403
	})

	ws := s.followLive(t, "ws", wide, "a/x", "b")
	ws.process.send(t, frame("auth", "id", 7, "token", other))
	ws.await(t, "the refusal", func(all []event) bool { return len(refusals(all)) > 0 })
	ws.process.send(t, frame("auth", "id", 8, "token", narrow))
	ws.await(t, "authack", func(all []event) bool { return count(all, "authack") > 0 })
	s.publish(t, everything(t), "a/x", []byte("3"))
	s.publish(t, everything(t), "b", []byte("4"))
	if all := ws.until(t, "b"); countTopic(all, "a/x") > 0 {
		t.Error("ws: a message came that the new token does not allow")
	}
}

// The same key on a WebSocket publishes once.
func TestIdempotentFrames(t *testing.T) {
	s := boot(t, "embedded", nil)
	token := everything(t)
	ws := s.followLive(t, "ws", token, "a")
	for id := range 2 {
		ws.process.send(t, frame("publish", "id", id+1, "topic", "a", "text", "once", "idempotency_key", "k"))
	}
	ws.await(t, "two answers", func(all []event) bool { return count(all, "puback") == 2 })
	s.publish(t, token, "a", []byte("last"))
	all := ws.await(t, "the last", func(all []event) bool {
		return slices.ContainsFunc(all, func(e event) bool { return e.Text != nil && *e.Text == "last" })
	})
	if n := countTopic(all, "a"); n != 2 {
		t.Errorf("%d messages came, want the one and the last", n)
	}
}
