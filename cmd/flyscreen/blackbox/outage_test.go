package blackbox_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"syscall"
	"testing"
)

// The broker dies and comes back: streams are told both and what it means, the
// subscriptions are there again, readiness follows, and nothing is promised in
// between, as there is no outbox.
func TestBrokerOutage(t *testing.T) {
	s := boot(t, "mosquitto", map[string]any{"outbox.enabled": false})
	token := everything(t)
	streams := map[string]*stream{}
	for _, door := range doors {
		streams[door] = s.followLive(t, door, token, "outage/#")
	}
	s.publish(t, token, "outage/before", []byte("1"))
	for _, st := range streams {
		st.until(t, "outage/before")
	}

	s.mosquitto.kill()
	for door, st := range streams {
		all := st.await(t, "told that the broker is gone", func(all []event) bool { return count(all, "upstream") == 1 })
		if e := pick(all, "upstream")[0]; e.Connected {
			t.Errorf("%s: %s", door, e.object)
		}
	}
	eventually(t, "/readyz is red", func() bool { return s.readiness(t) == http.StatusServiceUnavailable })
	var health struct {
		Status  string
		Reasons []string
	}
	if a := s.do(t, http.MethodGet, "/readyz", "", nil); json.Unmarshal(a.body, &health) != nil || health.Status != "unavailable" || len(health.Reasons) == 0 {
		t.Errorf("/readyz: %s", a.body)
	}
	if a := s.do(t, http.MethodGet, "/livez", "", nil); a.status != http.StatusOK {
		t.Errorf("/livez: %d", a.status)
	}
	for _, r := range []struct {
		method, path string
		body         []byte
	}{
		{http.MethodPost, "/v1/topics/outage/x", []byte("lost")},
		{http.MethodPost, "/v1/topics/outage/x?qos=0", []byte("lost")},
		{http.MethodPut, "/v1/topics/outage/x", []byte("lost")},
		{http.MethodDelete, "/v1/topics/outage/x", nil},
		{http.MethodGet, "/v1/topics/outage/x", nil},
		{http.MethodGet, "/v1/topics?filter=outage/%23", nil},
		{http.MethodGet, "/v1/stream?filter=outage/%23", nil},
	} {
		a := s.do(t, r.method, r.path, token, r.body)
		wantProblem(t, r.method+" "+r.path, a, http.StatusServiceUnavailable, "upstream-unavailable")
		if after, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || after < 1 {
			t.Errorf("%s %s: Retry-After %q", r.method, r.path, a.header.Get("Retry-After"))
		}
	}

	s.comeBack(t, streams, token, 1)
	if n := s.metric(t, "flyscreen_upstream_connection_losses_total"); n == 0 {
		t.Error("the lost connections are not counted")
	}
}

// In which order the gateway's connections come back is chance: whatever it is,
// the streams get what was retained meanwhile.
func TestBrokerOutagesInARow(t *testing.T) {
	s := boot(t, "mosquitto", nil)
	token := everything(t)
	streams := map[string]*stream{"sse": s.followLive(t, "sse", token, "outage/#"), "ws": s.followLive(t, "ws", token, "outage/#")}
	for n := 1; n <= 8; n++ {
		s.mosquitto.kill()
		for _, st := range streams {
			st.await(t, "told that the broker is gone", func(all []event) bool { return count(all, "upstream") == 2*n-1 })
		}
		s.comeBack(t, streams, token, n)
	}
}

// comeBack starts the broker again after its nth outage and checks what the
// streams are told and given.
func (s *site) comeBack(t *testing.T, streams map[string]*stream, token string, n int) {
	t.Helper()
	s.startMosquitto(t)
	meanwhile, after := fmt.Sprintf("outage/%d/meanwhile", n), fmt.Sprintf("outage/%d/after", n)
	s.mosquittoPub(t, meanwhile, []byte("2"), "-r", "-q", "1") // perhaps before the gateway is back
	s.awaitReady(t)
	for door, st := range streams {
		all := st.await(t, "told that the broker is back, and of the gap", func(all []event) bool {
			return count(all, "upstream") == 2*n && count(all, "gap") == n
		})
		if e := pick(all, "upstream")[2*n-1]; !e.Connected {
			t.Errorf("%s: %s", door, e.object)
		}
		if e := pick(all, "gap")[n-1]; e.Reason != "upstream" || e.Missed != nil {
			t.Errorf("%s: %s", door, e.object)
		}
	}
	s.publish(t, token, after, []byte("3"))
	for door, st := range streams {
		all := st.await(t, "what was retained meanwhile, and what came after", func(all []event) bool {
			return countTopic(all, meanwhile) > 0 && countTopic(all, after) > 0
		})
		if countTopic(all, meanwhile) != 1 || countTopic(all, after) != 1 {
			t.Errorf("%s: %s came %d times, %s %d times", door, meanwhile, countTopic(all, meanwhile), after, countTopic(all, after))
		}
		for _, e := range pick(all, "live") {
			if !e.Complete {
				t.Errorf("%s: a snapshot was not complete: %s", door, e.object)
			}
		}
	}
}

// A broker that no longer answers, though its connections stand, makes the
// gateway say so; no publish is acknowledged meanwhile.
func TestBrokerThatHangs(t *testing.T) {
	s := boot(t, "mosquitto", map[string]any{"outbox.enabled": false})
	token := everything(t)
	s.publish(t, token, "hang/x", []byte("control"))
	if err := s.mosquitto.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		a := s.do(t, http.MethodPost, "/v1/topics/hang/x", token, fmt.Appendf(nil, "%d", i))
		switch a.status {
		case http.StatusGatewayTimeout:
			wantProblem(t, "a publish to a broker that hangs", a, http.StatusGatewayTimeout, "upstream-timeout")
		default:
			wantProblem(t, "a publish to a broker that hangs", a, http.StatusServiceUnavailable, "upstream-unavailable")
		}
	}
	eventually(t, "/readyz is red", func() bool { return s.readiness(t) == http.StatusServiceUnavailable })
	if err := s.mosquitto.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.awaitReady(t)
	s.publish(t, token, "hang/x", []byte("control"))
}
