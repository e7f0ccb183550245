package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
	"flyscreen/gateway/gatewaytest/mosquitto"
)

// list asks for retained messages and returns their topics.
func list(t *testing.T, g *gatewaytest.Gateway, token, query string) (topics []string, truncated bool) {
	t.Helper()
	r := do(t, g, token, "GET", "/v1/topics?"+query, "")
	r.want(t, "list "+query, 200, "")
	var body struct {
		Messages  []json.RawMessage
		Truncated *bool
	}
	if err := json.Unmarshal([]byte(r.body), &body); err != nil || body.Truncated == nil || body.Messages == nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	for _, raw := range body.Messages {
		m := gatewaytest.ParseLine(t, string(raw))
		if m.Type != "message" || !m.Retain || m.Cursor != nil || string(m.Bytes(t)) != m.Topic {
			t.Errorf("the list holds %s", raw)
		}
		topics = append(topics, m.Topic)
	}
	return topics, *body.Truncated
}

func TestList(t *testing.T) {
	t.Run("embedded", func(t *testing.T) { testList(t, gatewaytest.Start(t)) })
	t.Run("mosquitto", func(t *testing.T) { testList(t, gatewaytest.Start(t, "upstream.url="+mosquitto.Start(t).URL())) })
}

func testList(t *testing.T, g *gatewaytest.Gateway) {
	t.Helper()
	token := gatewaytest.All(t)
	for _, topic := range []string{"l/b", "l/a", "l/c/d", "l/c", "l", "other/x", "l/e f"} {
		do(t, g, token, "PUT", "/v1/topics/"+url.PathEscape(topic), topic).want(t, "PUT", 200, "")
	}
	do(t, g, token, "POST", "/v1/topics/l/event", "l/event").want(t, "POST", 200, "")
	some := gatewaytest.Token(t, auth.Claims{Sub: []string{"l/c/#", "l/a"}})
	for _, c := range []struct {
		token, query string
		want         []string
		truncated    bool
	}{
		{token, "filter=l/+", []string{"l/a", "l/b", "l/c", "l/e f"}, false},
		{token, "filter=l/%2B", []string{"l/a", "l/b", "l/c", "l/e f"}, false},
		{token, "filter=l/%23", []string{"l", "l/a", "l/b", "l/c", "l/c/d", "l/e f"}, false},
		{token, "filter=l/+&filter=l/%23&filter=other/x", []string{"l", "l/a", "l/b", "l/c", "l/c/d", "l/e f", "other/x"}, false},
		{token, "filter=l/e%20f", []string{"l/e f"}, false},
		{token, "filter=none/%23", nil, false},
		{token, "filter=l/+&limit=2", []string{"l/a", "l/b"}, true},
		{token, "filter=l/+&limit=4", []string{"l/a", "l/b", "l/c", "l/e f"}, false},
		{some, "filter=%23", []string{"l/a", "l/c", "l/c/d"}, false},
		{some, "filter=l/+&filter=l/c/+", []string{"l/a", "l/c", "l/c/d"}, false},
	} {
		got, truncated := list(t, g, c.token, c.query)
		if !slices.Equal(got, c.want) || truncated != c.truncated {
			t.Errorf("%s: %q, truncated %v; want %q, %v", c.query, got, truncated, c.want, c.truncated)
		}
	}
	for query, want := range map[string]string{
		"":                                    "bad-request",
		"limit=1":                             "bad-request",
		"filter=a&limit=0":                    "bad-request",
		"filter=a&limit=10001":                "bad-request",
		"filter=a&limit=1&limit=2":            "bad-request",
		"filter=a&qos=1":                      "bad-request",
		"filter=":                             "invalid-filter",
		"filter=a/%23/b":                      "invalid-filter",
		"filter=a%2Bb":                        "invalid-filter",
		"filter=a%00":                         "invalid-filter",
		strings.Repeat("filter=a&", 17):       "bad-request",
		"filter=" + strings.Repeat("a", 1025): "invalid-filter",
	} {
		do(t, g, token, "GET", "/v1/topics?"+query, "").want(t, query, 400, want)
	}
	do(t, g, token, "GET", "/v1/topics?"+strings.Repeat("filter=a&", 16), "").want(t, "16 filters", 200, "")
	do(t, g, some, "GET", "/v1/topics?filter=other/x", "").want(t, "nothing left", 403, "not-authorized")
	do(t, g, some, "GET", "/v1/topics?filter=%23&filter=other/x", "").want(t, "nothing left of one", 403, "not-authorized")
	do(t, g, token, "GET", "/v1/topics?filter=$SYS/%23", "").want(t, "$SYS without a grant that names it", 403, "not-authorized")
	do(t, g, token, "GET", "/v1/topics?filter=$share/g/l/a", "").want(t, "a shared subscription", 400, "invalid-filter")
}

// What the broker holds beyond the bounds is told, not left out silently, also
// when one of several filters hits them.
func TestListBounds(t *testing.T) {
	g := gatewaytest.Start(t, "limits.snapshot_messages=5")
	token := gatewaytest.All(t)
	for i := range 8 {
		topic := fmt.Sprintf("many/%d", i)
		do(t, g, token, "PUT", "/v1/topics/"+topic, topic).want(t, "PUT", 200, "")
	}
	do(t, g, token, "PUT", "/v1/topics/few", "few").want(t, "PUT", 200, "")
	if topics, truncated := list(t, g, token, "filter=few"); len(topics) != 1 || truncated {
		t.Errorf("few: %q, truncated %v", topics, truncated)
	}
	topics, truncated := list(t, g, token, "filter=many/%23&filter=few")
	if len(topics) < 5 || !truncated {
		t.Errorf("many: %q, truncated %v", topics, truncated)
	}
	gatewaytest.Eventually(t, "the reader of retained messages is back", func() bool {
		return do(t, g, token, "GET", "/v1/topics/few", "").body == "few"
	})
}
