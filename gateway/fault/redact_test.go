package fault_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"flyscreen/gateway/fault"
)

const token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJkYXNoIiwiZXhwIjo0MDAwMDAwMDAwfQ.c1LROH7eNQwUT8KMVEO52VC3WZ9e_AnDWbZ7aMmowV8"

func TestRedact(t *testing.T) {
	parts := strings.Split(token, ".")
	for text, want := range map[string]string{
		"":                               "",
		"no grant for pets/1":            "no grant for pets/1",
		"the token " + token + " is bad": "the token *** is bad",
		"/v1/topics/" + token + "/x":     "/v1/topics/***/x",
		token + " and " + token:          "*** and ***",
		"unsecured " + parts[0] + "." + parts[1] + ".":                  "unsecured ***",
		"cut " + token[:30]:                                             "cut ***",
		"claims only " + parts[1]:                                       "claims only ***",
		"bearer." + base64.RawURLEncoding.EncodeToString([]byte(token)): "bearer.***",
		"spaced " + base64.RawURLEncoding.EncodeToString([]byte(`{ "alg":"none"}`)) + "." + parts[1] + ".": "spaced ***",
		"fsk_abcdefghij_ABCDEFGHIJKLMNOPQRSTUVWXYZ is an API key":                                          "*** is an API key",
		"fst_ABCDEFGHIJKLMNOPQRSTUVWXYZ is a ticket":                                                       "*** is a ticket",
		"eyJ is short, fsk_ is a prefix":                                                                   "eyJ is short, fsk_ is a prefix",
		"eyelash/keyJob.x":                                                                                 "eyelash/keyJob.x",
	} {
		if got := fault.Redact(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
	if e := fault.New(fault.NotAuthorized, "no grant for the topic %q", "a/"+token); strings.Contains(e.Error(), token[:20]) || !strings.Contains(e.Detail, `"a/***"`) {
		t.Errorf("the fault says %v", e)
	}
}
