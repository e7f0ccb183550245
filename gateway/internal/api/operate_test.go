package api_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"

	"flyscreen/gateway/gatewaytest"
	"flyscreen/gateway/gatewaytest/mosquitto"
	"flyscreen/gateway/wire"
)

// The state of each connection, before and after the broker's end.
func TestUpstreamState(t *testing.T) {
	broker := mosquitto.Start(t)
	g := gatewaytest.Start(t, "upstream.url="+broker.URL(), "upstream.connections=3")
	read := func() (state wire.UpstreamState) {
		r := do(t, g, "", "GET", "/v1/upstream", "")
		r.want(t, "the state", 200, "")
		if err := json.Unmarshal([]byte(r.body), &state); err != nil {
			t.Fatal(err)
		}
		return state
	}
	state := read()
	roles, ids := map[string]int{}, map[string]bool{}
	for _, c := range state.Connections {
		roles[c.Role]++
		ids[c.ClientID] = true
		if c.State != "up" || c.Since.IsZero() || c.RTT == nil || *c.RTT <= 0 || c.LastError != "" {
			t.Errorf("%+v", c)
		}
	}
	if len(ids) != 5 || roles["publish"] != 3 || roles["live"] != 1 || roles["snapshot"] != 1 || state.Outbox == nil || state.Broker != broker.URL() {
		t.Errorf("%+v", state)
	}
	broker.Kill()
	gatewaytest.Eventually(t, "all connections are down, with their reasons", func() bool {
		for _, c := range read().Connections {
			if c.State != "down" || c.LastError == "" || c.LastErrorAt == nil || c.RTT != nil {
				return false
			}
		}
		return true
	})
	broker.Start()
	gatewaytest.Eventually(t, "all connections are up, and remember why they were not", func() bool {
		for _, c := range read().Connections {
			if c.State != "up" || c.LastError == "" {
				return false
			}
		}
		return true
	})
	do(t, g, "", "GET", "/v1/upstream", "", "X-Forwarded-For: 192.0.2.1").want(t, "through a proxy", 404, "not-found")
	admin := gatewaytest.Start(t, "http.admin_listen=127.0.0.1:0", "outbox.enabled=false")
	do(t, admin, "", "GET", "/v1/upstream", "").want(t, "on the main listener", 404, "not-found")
	do(t, g, "", "GET", "/v1/outbox?limit=0", "").want(t, "limit 0", 400, "bad-request")
}

// Messages that wait can be listed, shown and dropped.
func TestOutboxOperations(t *testing.T) {
	broker := mosquitto.Start(t)
	g := gatewaytest.Start(t, "upstream.url="+broker.URL())
	token := gatewaytest.All(t)
	broker.Kill()
	gatewaytest.Eventually(t, "the connections are down", func() bool { return do(t, g, "", "GET", "/readyz", "").StatusCode == 503 })
	for i := range 3 {
		do(t, g, token, "POST", "/v1/topics/o/"+fmt.Sprint(i), fmt.Sprint("payload ", i)).want(t, "a publish", 202, "")
	}
	list := func() (l wire.OutboxList) {
		if err := json.Unmarshal([]byte(do(t, g, "", "GET", "/v1/outbox?limit=2", "").body), &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := list()
	if l.Queued != 3 || l.Quarantined != 0 || len(l.Messages) != 2 || l.Messages[1].Topic != "o/1" || l.Messages[1].State != "queued" || l.Messages[1].Bytes != 9 {
		t.Fatalf("%+v", l)
	}
	path := fmt.Sprint("/v1/outbox/", l.Messages[1].ID)
	var shown wire.OutboxMessage
	if err := json.Unmarshal([]byte(do(t, g, "", "GET", path, "").body), &shown); err != nil || shown.Base64 == nil {
		t.Fatalf("%+v, %v", shown, err)
	}
	if payload, err := base64.StdEncoding.DecodeString(*shown.Base64); err != nil || string(payload) != "payload 1" {
		t.Errorf("%q, %v", payload, err)
	}
	do(t, g, "", "POST", path+"/retry", "").want(t, "a retry of what is not in quarantine", 400, "bad-request")
	do(t, g, "", "DELETE", path, "").want(t, "a drop", 204, "")
	do(t, g, "", "DELETE", path, "").want(t, "a second drop", 404, "not-found")
	do(t, g, "", "GET", "/v1/outbox/x", "").want(t, "no id", 404, "not-found")
	broker.Start()
	gatewaytest.Eventually(t, "the rest is delivered", func() bool { return list().Queued == 0 })
	off := gatewaytest.Start(t, "outbox.enabled=false")
	do(t, off, "", "GET", "/v1/outbox", "").want(t, "a list of no outbox", 404, "not-found")
}
