package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
	"flyscreen/gateway/gatewaytest/mosquitto"
)

// What is revoked at one gateway ends streams at all that share the broker, is
// refused there, and after a restart too; nobody reads or writes the control topic.
func TestRevocationsReachAllGateways(t *testing.T) {
	url := mosquitto.Start(t).URL()
	one, two := gatewaytest.Start(t, "upstream.url="+url), gatewaytest.Start(t, "upstream.url="+url)
	admin := gatewaytest.Token(t, auth.Claims{Subject: "admin", Pub: []string{"flyscreen-barrier/control/revocations"}})
	bob := gatewaytest.Token(t, auth.Claims{Subject: "bob", All: []string{"#"}})
	body := fmt.Sprintf(`{"sub":"bob","until":%d}`, time.Now().Add(time.Hour).Unix())
	post := func(token, body string) (int, string) {
		answer, text := one.Do(t, token, http.MethodPost, "/v1/revocations", body, "Content-Type: application/json")
		return answer.StatusCode, text
	}
	for what, row := range map[string]struct {
		token, body string
		status      int
	}{
		"nobody":           {"", body, http.StatusUnauthorized},
		"all topics":       {gatewaytest.All(t), body, http.StatusForbidden},
		"nothing revoked":  {admin, `{}`, http.StatusBadRequest},
		"until then":       {admin, `{"sub":"bob","until":1}`, http.StatusBadRequest},
		"more than it may": {admin, `{"sub":"` + strings.Repeat("b", 20_000) + `"}`, http.StatusRequestEntityTooLarge},
	} {
		if status, text := post(row.token, row.body); status != row.status {
			t.Errorf("%s: %d %s", what, status, text)
		}
	}
	everything := two.Follow(t, gatewaytest.All(t), "filter=%23")
	here, there := one.Follow(t, bob, "filter=a"), two.Follow(t, bob, "filter=a")
	if status, text := post(admin, body); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	begun := time.Now()
	for _, s := range []*gatewaytest.Stream{here, there} {
		if end := s.Until("end"); end[len(end)-1].Code != 4410 || end[len(end)-1].Reconnect {
			t.Errorf("%+v", end)
		}
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	three := gatewaytest.Start(t, "upstream.url="+url) // as one that was restarted
	for n, g := range []*gatewaytest.Gateway{one, two, three} {
		if answer, text := g.Do(t, bob, http.MethodPost, "/v1/topics/a", "x"); answer.StatusCode != http.StatusUnauthorized {
			t.Errorf("gateway %d: %s %s", n, answer.Status, text)
		}
		if answer, text := g.Do(t, gatewaytest.All(t), http.MethodPost, "/v1/topics/a", "x"); answer.StatusCode != http.StatusOK {
			t.Errorf("gateway %d, somebody else: %s %s", n, answer.Status, text)
		}
	}
	if m := everything.Until("message"); m[len(m)-1].Topic != "a" {
		t.Errorf("a stream got %+v", m)
	}
	if answer, text := one.Do(t, admin, http.MethodPost, "/v1/topics/flyscreen-barrier/control/revocations", "x"); answer.StatusCode != http.StatusBadRequest {
		t.Errorf("a publish to the control topic: %s %s", answer.Status, text)
	}
}
