package api_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
)

func TestExplain(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.Token(t, auth.Claims{Pub: []string{"pets/+/commands/#"}, Sub: []string{"pets/1/#", "plants/#"}})
	for _, c := range []struct {
		question    string
		allowed     bool
		granted, by []string
		reason      string
	}{
		{`{"action":"publish","topic":"pets/1/commands/sit"}`, true, []string{"pets/1/commands/sit"}, []string{"pets/+/commands/#"}, "contains the topic"},
		{`{"action":"publish","topic":"pets/1/location"}`, false, nil, nil, "no publish grant"},
		{`{"action":"subscribe","filter":"pets/1/location"}`, true, []string{"pets/1/location"}, []string{"pets/1/#"}, "as it is"},
		{`{"action":"subscribe","filter":"#"}`, true, []string{"pets/1/#", "plants/#"}, []string{"pets/1/#", "plants/#"}, "narrowed"},
		{`{"action":"subscribe","filter":"pets/+/location"}`, true, []string{"pets/1/location"}, []string{"pets/1/#"}, "narrowed"},
		{`{"action":"subscribe","filter":"stones/#"}`, false, nil, nil, "no subscribe grant"},
		{`{"action":"subscribe","filter":"plants/+","strict":true}`, true, []string{"plants/+"}, []string{"plants/#"}, "contains the filter"},
		{`{"action":"subscribe","filter":"pets/#","strict":true}`, false, nil, nil, "as strict demands"},
		{`{"action":"subscribe","filter":"pets/#","strict":false}`, true, []string{"pets/1/#"}, []string{"pets/1/#"}, "narrowed"},
		{`{"action":"subscribe","filter":"$SYS/#"}`, false, nil, nil, "no subscribe grant"},
	} {
		r := do(t, g, token, "POST", "/v1/authz/explain", c.question, asJSON)
		r.want(t, c.question, 200, "")
		var v struct {
			Allowed     bool
			Granted, By []string
			Reason      string
		}
		if err := json.Unmarshal([]byte(r.body), &v); err != nil {
			t.Errorf("%s: %v", c.question, err)
			continue
		}
		if v.Allowed != c.allowed || !slices.Equal(v.Granted, c.granted) || !slices.Equal(v.By, c.by) || !strings.Contains(v.Reason, c.reason) || v.Granted == nil || v.By == nil {
			t.Errorf("%s: %s", c.question, r.body)
		}
	}
	for question, code := range map[string]string{
		`{"action":"publish","topic":"a/+"}`:             "invalid-topic",
		`{"action":"publish","topic":"$SYS/a"}`:          "invalid-topic",
		`{"action":"subscribe","filter":"a/#/b"}`:        "invalid-filter",
		`{"action":"subscribe","filter":"$share/g/a"}`:   "invalid-filter",
		`{"action":"publish","filter":"a"}`:              "bad-request",
		`{"action":"subscribe","topic":"a"}`:             "bad-request",
		`{"action":"publish","topic":"a","filter":"a"}`:  "bad-request",
		`{"action":"publish","topic":"a","strict":true}`: "bad-request",
		`{"action":"dance","topic":"a"}`:                 "bad-request",
		`{}`:                                             "bad-request",
		`{"action":"publish","topic":"a","x":1}`:         "invalid-payload",
		`{"action":"publish"`:                            "invalid-payload",
		`[]`:                                             "invalid-payload",
	} {
		do(t, g, token, "POST", "/v1/authz/explain", question, asJSON).want(t, question, 400, code)
	}
	do(t, g, token, "POST", "/v1/authz/explain", "{}", "Content-Type: text/plain").want(t, "text", 415, "unsupported-media-type")
	do(t, g, token, "POST", "/v1/authz/explain?x=1", "{}", asJSON).want(t, "unknown parameter", 400, "bad-request")
	do(t, g, token, "POST", "/v1/authz/explain", `{"action":"`+strings.Repeat("x", 128<<10)+`"}`, asJSON).want(t, "far too long", 413, "too-large")
	do(t, g, "", "POST", "/v1/authz/explain", `{"action":"publish","topic":"a"}`, asJSON).want(t, "no credential", 401, "unauthenticated")
}
