package blackbox_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
)

// Without the broker messages are kept and told as queued; with it they arrive, but
// for one that the broker does not bear, which an operator finds, retries and drops.
func TestOutbox(t *testing.T) {
	s := boot(t, "mosquitto", nil)
	token := everything(t)
	s.mosquitto.kill()
	conf, err := os.ReadFile(s.conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.conf, append(conf, "max_packet_size 2000\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "/readyz is red", func() bool { return s.readiness(t) == http.StatusServiceUnavailable })
	for _, r := range []struct{ method, payload string }{
		{http.MethodPost, "event"}, {http.MethodPut, "state"}, {http.MethodPost, strings.Repeat("x", 3000)}, {http.MethodDelete, ""},
	} {
		a := s.do(t, r.method, "/v1/topics/outbox/x", token, []byte(r.payload))
		if a.status != http.StatusAccepted || !strings.Contains(string(a.body), `"delivery":"queued"`) {
			t.Errorf("%s: %d %s", r.method, a.status, a.body)
		}
	}
	if l := s.outbox(t); l.Queued != 4 || len(l.Messages) != 4 || l.Messages[1].Topic != "outbox/x" || !l.Messages[1].Retain {
		t.Errorf("%+v", l)
	}
	s.startMosquitto(t)
	inQuarantine := func() bool { l := s.outbox(t); return l.Queued == 0 && l.Quarantined == 1 && len(l.Messages) == 1 }
	eventually(t, "the quarantine", inQuarantine)
	s.awaitReady(t)
	path := fmt.Sprint("/v1/outbox/", s.outbox(t).Messages[0].ID)
	var shown struct{ Base64, Reason string }
	if a := s.do(t, http.MethodGet, path, "", nil); json.Unmarshal(a.body, &shown) != nil || shown.Reason == "" {
		t.Errorf("%s: %s", path, a.body)
	}
	if payload, err := base64.StdEncoding.DecodeString(shown.Base64); err != nil || len(payload) != 3000 {
		t.Errorf("%d bytes, %v", len(payload), err)
	}
	if a := s.do(t, http.MethodPost, path+"/retry", "", nil); a.status != http.StatusNoContent {
		t.Errorf("retry: %d %s", a.status, a.body)
	}
	eventually(t, "the quarantine again", inQuarantine)
	path = fmt.Sprint("/v1/outbox/", s.outbox(t).Messages[0].ID)
	if a := s.do(t, http.MethodDelete, path, "", nil); a.status != http.StatusNoContent {
		t.Errorf("drop: %d %s", a.status, a.body)
	}
	for _, r := range []struct{ method, path string }{
		{http.MethodGet, path}, {http.MethodDelete, path}, {http.MethodPost, path + "/retry"},
	} {
		wantProblem(t, r.method+" "+r.path, s.do(t, r.method, r.path, "", nil), http.StatusNotFound, "not-found")
	}
	wantProblem(t, "limit=0", s.do(t, http.MethodGet, "/v1/outbox?limit=0", "", nil), http.StatusBadRequest, "bad-request")
	for _, path := range []string{"/v1/outbox", "/v1/upstream"} {
		wantProblem(t, path+" through a proxy", s.do(t, http.MethodGet, path, "", nil, "X-Forwarded-For", "192.0.2.1"), http.StatusNotFound, "not-found")
	}
	s.publish(t, token, "outbox/x", []byte("directly"))
	s.mosquitto.kill()
	eventually(t, "a message to be queued", func() bool {
		return s.do(t, http.MethodPost, "/v1/topics/outbox/x", token, []byte("y")).status == http.StatusAccepted
	})
	l := s.outbox(t)
	wantProblem(t, "a retry of what waits", s.do(t, http.MethodPost, fmt.Sprintf("/v1/outbox/%d/retry", l.Messages[0].ID), "", nil), http.StatusBadRequest, "bad-request")
}

type outboxList struct {
	Messages []struct {
		ID     uint64
		Topic  string
		Retain bool
	}
	Queued, Quarantined int
}

func (s *site) outbox(t *testing.T) (l outboxList) {
	t.Helper()
	if a := s.do(t, http.MethodGet, "/v1/outbox", "", nil); a.status != http.StatusOK || json.Unmarshal(a.body, &l) != nil {
		t.Fatalf("/v1/outbox: %d %s", a.status, a.body)
	}
	return l
}

// The state of each connection to the broker, for operators.
func TestUpstreamState(t *testing.T) {
	onBoth(t, map[string]any{"upstream.connections": 2}, func(t *testing.T, s *site) {
		var state struct {
			Connections []struct{ Role, State string }
		}
		a := s.do(t, http.MethodGet, "/v1/upstream", "", nil)
		if json.Unmarshal(a.body, &state) != nil || len(state.Connections) != 4 || state.Connections[0].State != "up" {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
}

// A repetition with its key publishes nothing.
func TestIdempotency(t *testing.T) {
	onBoth(t, nil, func(t *testing.T, s *site) {
		token := everything(t)
		st := s.followLive(t, "sse", token, "once/#")
		for n := range 2 {
			for method, payload := range map[string]string{http.MethodPost: "event", http.MethodPut: "state", http.MethodDelete: ""} {
				a := s.do(t, method, "/v1/topics/once/"+method, token, []byte(payload), "Idempotency-Key", method)
				if replayed := a.header.Get("Idempotency-Replayed"); a.status != http.StatusOK || (replayed == "true") != (n == 1) {
					t.Errorf("%s, %d: %d %s %q", method, n, a.status, a.body, replayed)
				}
				a = s.do(t, method, "/v1/topics/once/"+method+"/other", token, []byte(payload), "Idempotency-Key", method)
				wantProblem(t, method+" another request", a, http.StatusUnprocessableEntity, "idempotency-mismatch")
			}
			batch := `{"messages":[{"topic":"once/batch","text":"b"},{"topic":"once/own","text":"o","idempotency_key":"own"}]}`
			if a := s.do(t, http.MethodPost, "/v1/messages", token, []byte(batch), "Content-Type", "application/json", "Idempotency-Key", "batch"); a.status != http.StatusOK {
				t.Errorf("batch: %d %s", a.status, a.body)
			}
		}
		other := `{"messages":[{"topic":"once/batch","text":"c"}]}`
		a := s.do(t, http.MethodPost, "/v1/messages", token, []byte(other), "Content-Type", "application/json", "Idempotency-Key", "batch")
		wantProblem(t, "another batch", a, http.StatusUnprocessableEntity, "idempotency-mismatch")
		s.publish(t, token, "once/end", []byte("end"))
		all := st.until(t, "once/end")
		for _, topic := range []string{"once/POST", "once/PUT", "once/DELETE", "once/batch", "once/own"} {
			if n := countTopic(all, topic); n != 1 {
				t.Errorf("%s was published %d times", topic, n)
			}
		}
	})
}
