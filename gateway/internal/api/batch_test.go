package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
)

const (
	asJSON   = "Content-Type: application/json"
	asNDJSON = "Content-Type: application/x-ndjson"
)

// results is a batch's answer, each element as its delivery or its problem's code.
func results(t *testing.T, r reply) (all []string) {
	t.Helper()
	r.want(t, "batch", 200, "")
	var body struct {
		Results []struct {
			Delivery string
			Problem  *struct {
				Code   string
				Status int
			}
		}
	}
	if err := json.Unmarshal([]byte(r.body), &body); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	for _, one := range body.Results {
		if (one.Delivery == "") == (one.Problem == nil) {
			t.Errorf("not exactly one of delivery and problem: %s", r.body)
		}
		if one.Problem != nil {
			one.Delivery = one.Problem.Code
		}
		all = append(all, one.Delivery)
	}
	return all
}

// Each element gets its own answer, in order, in both forms.
func TestBatch(t *testing.T) {
	g := gatewaytest.Start(t, "limits.payload_bytes=1000")
	token := gatewaytest.Token(t, auth.Claims{All: []string{"b/#"}})
	stream := g.Follow(t, token, "filter=b/%23")
	published := map[string]string{"b/0": `{"a":1}`, "b/1": "x", "b/2": "\xff\xfe", "b/4": ""}
	elements := []struct{ json, result string }{
		{`{"topic":"b/0","payload":{"a":1}}`, "acknowledged"},
		{`{"topic":"b/+","text":"x"}`, "invalid-topic"},
		{`{"topic":"b/1","text":"x","qos":0}`, "sent"},
		{`{"topic":"c/1","text":"x"}`, "not-authorized"},
		{`{"topic":"b/2","base64":"//4=","qos":2,"retain":true}`, "acknowledged"},
		{`{"topic":"b/3","text":"x","qos":3}`, "bad-request"},
		{`{"topic":"b/3","text":"x","payload":1}`, "invalid-payload"},
		{`{"topic":"b/3"}`, "invalid-payload"},
		{`{"topic":"b/3","base64":"!"}`, "invalid-payload"},
		{`{"text":"x"}`, "invalid-topic"},
		{`{"topic":"b/3","text":"` + strings.Repeat("x", 1001) + `"}`, "too-large"},
		{`{"topic":"b/4","text":""}`, "acknowledged"},
	}
	var lines []string
	for _, e := range elements {
		lines = append(lines, e.json)
	}
	for form, body := range map[string]string{
		asJSON:                       `{"messages":[` + strings.Join(lines, ",") + `]}`,
		asNDJSON:                     strings.Join(lines, "\n"),
		asNDJSON + "; charset=utf-8": "\r\n" + strings.Join(lines, "\r\n") + "\r\n\n",
	} {
		got := results(t, do(t, g, token, "POST", "/v1/messages", body, form))
		if len(got) != len(elements) {
			t.Fatalf("%s: %d results", form, len(got))
		}
		for i, e := range elements {
			if got[i] != e.result {
				t.Errorf("%s: element %d: %s, want %s", form, i, got[i], e.result)
			}
		}
		seen := map[string]bool{}
		for range published {
			m := stream.Next()
			if want, is := published[m.Topic]; !is || seen[m.Topic] || string(m.Bytes(t)) != want {
				t.Errorf("%s: the stream got %s", form, m.Raw)
			}
			seen[m.Topic] = true
		}
		wantHeld(t, g, token, "b/2", "\xff\xfe")
		do(t, g, token, "DELETE", "/v1/topics/b/2", "").want(t, "DELETE", 200, "")
		stream.Next()
	}
}

func TestBatchRefused(t *testing.T) {
	g := gatewaytest.Start(t, "limits.batch_messages=3")
	token := gatewaytest.All(t)
	one := `{"topic":"b","text":"x"}`
	many := func(n int) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }
	for _, c := range []struct {
		what, form, body string
		status           int
		code             string
	}{
		{"at the limit", asJSON, `{"messages":[` + many(3) + `]}`, 200, ""},
		{"at the limit", asNDJSON, strings.Repeat(one+"\n", 3), 200, ""},
		{"beyond the limit", asJSON, `{"messages":[` + many(4) + `]}`, 400, "bad-request"},
		{"beyond the limit", asNDJSON, strings.Repeat(one+"\n", 4), 400, "bad-request"},
		{"none", asJSON, `{"messages":[]}`, 400, "bad-request"},
		{"none", asJSON, `{}`, 400, "bad-request"},
		{"none", asNDJSON, "\n\n", 400, "bad-request"},
		{"unknown member", asJSON, `{"messages":[` + one + `],"x":1}`, 400, "invalid-payload"},
		{"unknown member inside", asJSON, `{"messages":[{"topic":"b","text":"x","retian":true}]}`, 400, "invalid-payload"},
		{"unknown member inside", asNDJSON, one + "\n" + `{"topic":"b","text":"x","retian":true}`, 400, "invalid-payload"},
		{"an array", asJSON, `[` + one + `]`, 400, "invalid-payload"},
		{"not JSON", asJSON, `{"messages":[`, 400, "invalid-payload"},
		{"not JSON", asNDJSON, one + "\n{", 400, "invalid-payload"},
		{"two on a line", asNDJSON, one + one, 400, "invalid-payload"},
		{"not UTF-8", asJSON, "{\"messages\":[{\"topic\":\"b\",\"text\":\"\xff\"}]}", 400, "invalid-payload"},
		{"something behind", asJSON, `{"messages":[` + one + `]}x`, 400, "invalid-payload"},
		{"a form", "Content-Type: application/x-www-form-urlencoded", one, 415, "unsupported-media-type"},
		{"no type", "Content-Type: ", one, 415, "unsupported-media-type"},
	} {
		do(t, g, token, "POST", "/v1/messages", c.body, c.form).want(t, c.what+" as "+c.form, c.status, c.code)
	}
	r := do(t, g, token, "POST", "/v1/messages", one+"\n{}\n{", asNDJSON)
	if !strings.Contains(r.body, "line 3") {
		t.Errorf("%s does not say where", r.body)
	}
	do(t, g, token, "POST", "/v1/messages?qos=1", `{"messages":[`+one+`]}`, asJSON).want(t, "unknown parameter", 400, "bad-request")
	do(t, g, "", "POST", "/v1/messages", `{"messages":[`+one+`]}`, asJSON).want(t, "no credential", 401, "unauthenticated")
}

// Messages of one topic keep their order, whatever else is in the batch.
func TestBatchOrder(t *testing.T) {
	g := gatewaytest.Start(t, "limits.publish_rate=100000", "limits.publish_burst=100000", "limits.queue_messages=2000")
	token := gatewaytest.All(t)
	stream := g.Follow(t, token, "filter=order/%23")
	const topics, rounds = 20, 50
	var body strings.Builder
	for n := range rounds {
		for topic := range topics {
			fmt.Fprintf(&body, `{"topic":"order/%d","payload":%d,"qos":%d}`+"\n", topic, n, 1+topic%2)
		}
	}
	got := results(t, do(t, g, token, "POST", "/v1/messages", body.String(), asNDJSON))
	for i, one := range got {
		if one != "acknowledged" {
			t.Fatalf("element %d: %s", i, one)
		}
	}
	next := map[string]int{}
	for range topics * rounds {
		m := stream.Next()
		if want := fmt.Sprint(next[m.Topic]); string(m.Payload) != want {
			t.Fatalf("%s: %s came where %s was due", m.Topic, m.Payload, want)
		}
		next[m.Topic]++
	}
}
