package sse_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
)

// ready, the snapshot, live, and then what happens: in this order and shape.
func TestOrderAndShapes(t *testing.T) {
	g := gatewaytest.Start(t)
	g.Retain(t, "o/1", `{"a":1}`)
	g.Retain(t, "o/2", "two")
	c := follow(t, g, gatewaytest.All(t), "filter=o/%23")
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff", "Content-Length": "", "Content-Encoding": "",
	} {
		if got := c.answer.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	var seen []string
	anonymise := regexp.MustCompile(`"(stream|cursor|time|expires)":"[^"]+"`)
	note := func() {
		e, l := c.next()
		id := e.id
		if l.Cursor != nil && id == *l.Cursor {
			id = "its cursor"
		}
		seen = append(seen, e.name+" ["+id+"] "+anonymise.ReplaceAllString(e.data, `"$1":"…"`))
	}
	for range 4 {
		note()
	}
	slices.Sort(seen[1:3]) // the broker's order
	publish(t, g, "o/1", `[3]`)
	note()
	if r, _ := g.Do(t, gatewaytest.All(t), "DELETE", "/v1/topics/o/1", ""); r.StatusCode != 200 {
		t.Fatal(r.Status)
	}
	note()
	for i, want := range []string{
		`ready [] {"stream":"…","granted":["o/#"],"cursor":"…","resumed":false,"expires":"…"}`,
		`message [] {"type":"message","topic":"o/1","payload":{"a":1},"qos":0,"retain":true,"time":"…"}`,
		`message [] {"type":"message","topic":"o/2","text":"two","qos":0,"retain":true,"time":"…"}`,
		`live [] {"snapshot":2,"complete":true}`,
		`message [its cursor] {"type":"message","topic":"o/1","payload":[3],"qos":1,"retain":false,"time":"…","cursor":"…"}`,
		`message [its cursor] {"type":"message","topic":"o/1","text":"","qos":1,"retain":false,"time":"…","cursor":"…"}`,
	} {
		if seen[i] != want {
			t.Errorf("event %d:\n got %s\nwant %s", i, seen[i], want)
		}
	}
}

// NDJSON says the same, each object on a line with its type.
func TestLines(t *testing.T) {
	g := gatewaytest.Start(t)
	g.Retain(t, "l/1", "one")
	c := follow(t, g, gatewaytest.All(t), "filter=l/1", "Accept: application/x-ndjson")
	if kind := c.answer.Header.Get("Content-Type"); kind != "application/x-ndjson" {
		t.Errorf("the content type is %s", kind)
	}
	var kinds []string
	for range 3 {
		line, err := c.r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, gatewaytest.ParseLine(t, line).Type)
	}
	if !slices.Equal(kinds, []string{"ready", "message", "live"}) {
		t.Errorf("got %q", kinds)
	}
}

func TestAccept(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.All(t)
	for accept, want := range map[string]int{"text/html": 406, "text/event-stream;q=0": 406, "text/html, */*;q=0.1": 200} {
		c := open(t, g, http.DefaultClient, token, "filter=a", "Accept: "+accept)
		if c.answer.StatusCode != want {
			t.Errorf("Accept %s: %s", accept, c.answer.Status)
		}
		c.close()
	}
}

// In this query a plus sign is a plus sign, because people type MQTT's wildcard.
func TestFilterSpelling(t *testing.T) {
	g := gatewaytest.Start(t)
	const hint = `a filter ends in "/": a URL ends at "#", which must be written %23`
	for query, want := range map[string]struct {
		granted []string
		hint    string
	}{
		"filter=a/+/b":          {[]string{"a/+/b"}, ""},
		"filter=a/%2B/b":        {[]string{"a/+/b"}, ""},
		"filter=+":              {[]string{"+"}, ""},
		"filter=a/%23":          {[]string{"a/#"}, ""},
		"filter=%23":            {[]string{"#"}, ""},
		"filter=a%20b":          {[]string{"a b"}, ""},
		"filter=a%2Fb":          {[]string{"a/b"}, ""},
		"filter=%C3%A9":         {[]string{"é"}, ""},
		"filter=a/":             {[]string{"a/"}, hint},
		"filter=a/#":            {[]string{"a/"}, hint}, // what a client cuts off at #
		"filter=a&filter=b/":    {[]string{"a", "b/"}, hint},
		"filter=a&filter=b":     {[]string{"a", "b"}, ""},
		"filter=a&filter=a":     {[]string{"a"}, ""},
		"filter=a&filter=a/%23": {[]string{"a", "a/#"}, ""},
		"filter=//":             {[]string{"//"}, hint},
		"qos=2&filter=a&strict=false&snapshot=true&mode=all&on_slow=gap": {[]string{"a"}, ""},
	} {
		_, ready := follow(t, g, gatewaytest.All(t), query).next()
		if !slices.Equal(ready.Granted, want.granted) || ready.Hint != want.hint {
			t.Errorf("%s: %s", query, ready.Raw)
		}
	}
}

func TestRefused(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.Token(t, auth.Claims{All: []string{"#"}, Sub: []string{"$share/x"}[:0]})
	for query, want := range map[string]string{
		"":                                    "bad-request",
		"filter=":                             "invalid-filter",
		"filter":                              "invalid-filter",
		"filter=a%23":                         "invalid-filter",
		"filter=a/%23/b":                      "invalid-filter",
		"filter=a%2B":                         "invalid-filter",
		"filter=a+b":                          "invalid-filter",
		"filter=%FF":                          "invalid-filter",
		"filter=%00":                          "invalid-filter",
		"filter=" + strings.Repeat("a", 1025): "invalid-filter",
		"filter=" + strings.Repeat("a/", 32) + "a": "invalid-filter",
		"filter=$share/g/a":                        "invalid-filter",
		strings.Repeat("filter=a&", 17):            "bad-request",
		"filter=%zz":                               "bad-request",
		"filter=a&qos=3":                           "bad-request",
		"filter=a&qos=1&qos=1":                     "bad-request",
		"filter=a&snapshot=no":                     "bad-request",
		"filter=a&strict=1":                        "bad-request",
		"filter=a&fitler=b":                        "bad-request",
		"filter=a&mode=all&mode=all":               "bad-request",
	} {
		if r, body := g.Do(t, token, "GET", "/v1/stream?"+query, ""); r.StatusCode != 400 || !strings.Contains(body, "/problems/"+want+`"`) {
			t.Errorf("%s: %d %s, want 400 %s", query, r.StatusCode, body, want)
		}
	}
	for _, option := range []string{"since=x", "since=", "interval=100", "mode=latest&interval=-1", "mode=latest&interval=3600001", "mode=x", "mode=", "on_slow=x"} {
		if r, body := g.Do(t, token, "GET", "/v1/stream?filter=a&"+option, ""); r.StatusCode != 400 || !strings.Contains(body, "/problems/bad-request") {
			t.Errorf("%s: %d %s", option, r.StatusCode, body)
		}
	}
	for _, option := range []string{"mode=latest", "mode=latest&interval=100", "mode=latest&interval=0&on_slow=close", "on_slow=latest", "on_slow=close"} {
		follow(t, g, token, "filter=a&"+option).close()
	}
	for _, option := range []string{"session=x"} {
		if r, body := g.Do(t, token, "GET", "/v1/stream?filter=a&"+option, ""); r.StatusCode != 400 || !strings.Contains(body, "not supported yet") {
			t.Errorf("%s: %d %s", option, r.StatusCode, body)
		}
	}
	follow(t, g, token, strings.Repeat("filter=a&", 16)).close()
	if r, body := g.Do(t, "", "GET", "/v1/stream?filter=a", ""); r.StatusCode != 401 || r.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("no credential: %d %s", r.StatusCode, body)
	}
}

// A stream is narrowed to the grants, and told so; strict is all or nothing.
func TestGrants(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.Token(t, auth.Claims{Sub: []string{"pets/1/#", "plants/+"}})
	for query, want := range map[string][]string{
		"filter=%23":                                    {"pets/1/#", "plants/+"},
		"filter=pets/+/location":                        {"pets/1/location"},
		"filter=pets/1/a":                               {"pets/1/a"},
		"filter=pets/1/a&filter=stones":                 {"pets/1/a"}, // what is granted, and granted says what
		"filter=pets/1/a&filter=pets/%23":               {"pets/1/a", "pets/1/#"},
		"filter=pets/1/%23&strict=true":                 {"pets/1/#"},
		"filter=pets/1/%23&filter=plants/+&strict=true": {"pets/1/#", "plants/+"},
		"filter=pets/%23&strict=true":                   nil,
		"filter=pets/1/a&filter=stones&strict=true":     nil,
		"filter=stones":                                 nil,
		"filter=$SYS/%23":                               nil,
	} {
		c := open(t, g, http.DefaultClient, token, query)
		if want == nil {
			text, _ := io.ReadAll(c.r)
			if h := c.answer.Header.Get("WWW-Authenticate"); c.answer.StatusCode != 403 || !strings.Contains(string(text), "/problems/not-authorized") || !strings.Contains(h, "insufficient_scope") {
				t.Errorf("%s: %s %s", query, c.answer.Status, text)
			}
			continue
		}
		if _, ready := c.next(); !slices.Equal(ready.Granted, want) {
			t.Errorf("%s: %s", query, ready.Raw)
		}
		c.close()
	}
	c := follow(t, g, token, "filter=%23")
	c.until("live")
	for _, topic := range []string{"pets/2/a", "stones", "pets/1/a", "plants/a/b", "plants/a"} {
		publish(t, g, topic, topic)
	}
	for _, want := range []string{"pets/1/a", "plants/a"} {
		if _, m := c.next(); m.Topic != want {
			t.Errorf("got %s, want %s", m.Raw, want)
		}
	}
	if r, _ := g.Do(t, gatewaytest.Token(t, auth.Claims{Pub: []string{"#"}}), "GET", "/v1/stream?filter=a", ""); r.StatusCode != 403 {
		t.Errorf("with a publish grant: %s", r.Status)
	}
}

func TestSnapshotOption(t *testing.T) {
	g := gatewaytest.Start(t)
	g.Retain(t, "s/1", "old")
	c := follow(t, g, gatewaytest.All(t), "filter=s/1&snapshot=false")
	c.next()
	if _, live := c.next(); live.Raw != `{"snapshot":0,"complete":true}` {
		t.Errorf("got %s", live.Raw)
	}
	publish(t, g, "s/1", "new")
	if _, m := c.next(); string(m.Bytes(t)) != "new" {
		t.Errorf("got %s", m.Raw)
	}
}

// A client that comes back is told that it may have missed something, and gets the
// state anew.
func TestLastEventID(t *testing.T) {
	g := gatewaytest.Start(t)
	g.Retain(t, "r/1", "state")
	c := follow(t, g, gatewaytest.All(t), "filter=r/%23", "Last-Event-ID: k3f8-1029")
	var names []string
	for range 4 {
		e, _ := c.next()
		names = append(names, e.name+" "+strings.Repeat(e.data, btoi(e.name == "gap")))
	}
	if want := []string{"ready ", `gap {"missed":null,"reason":"node"}`, "message ", "live "}; !slices.Equal(names, want) {
		t.Errorf("got %q", names)
	}
	c = follow(t, g, gatewaytest.All(t), "filter=r/%23")
	c.next()
	if e, _ := c.next(); e.name != "message" {
		t.Errorf("without the header a %s came", e.name)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Nothing comes after the token's end: the stream says that it ends, and why.
func TestExpiry(t *testing.T) {
	g := gatewaytest.Start(t, "limits.leeway=1s")
	begun := time.Now()
	c := follow(t, g, gatewaytest.Token(t, auth.Claims{Sub: []string{"#"}, TTL: time.Second}), "filter=e")
	stays := follow(t, g, gatewaytest.All(t), "filter=e")
	_, ready := c.until("ready")
	expires, err := time.Parse(time.RFC3339, *ready.Expires)
	if err != nil || expires.Before(begun) || expires.After(begun.Add(4*time.Second)) {
		t.Errorf("expires %s: %v", *ready.Expires, err)
	}
	_, end := c.until("end")
	if end.Code != 4401 || end.Reconnect || !strings.Contains(end.Reason, "expired") {
		t.Errorf("got %s", end.Raw)
	}
	if now := time.Now(); now.Before(expires) {
		t.Errorf("ended %s before the token", expires.Sub(now))
	}
	if e, err := c.read(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end came %v, %v", e, err)
	}
	stays.until("live")
	publish(t, g, "e", "x")
	if _, m := stays.next(); m.Topic != "e" {
		t.Errorf("a neighbour got %s", m.Raw)
	}
}

func TestAnonymous(t *testing.T) {
	g := gatewaytest.Start(t, "auth.anonymous.sub=open/#")
	_, ready := follow(t, g, "", "filter=%23").next()
	if !slices.Equal(ready.Granted, []string{"open/#"}) || ready.Expires != nil || !strings.Contains(ready.Raw, `"expires":null`) {
		t.Errorf("got %s", ready.Raw)
	}
	if r, _ := g.Do(t, "nonsense", "GET", "/v1/stream?filter=open/a", ""); r.StatusCode != 401 {
		t.Errorf("a bad token makes nobody anonymous: %s", r.Status)
	}
}

// The query is the same whether a browser or a person wrote it.
func TestEscapedLikeABrowser(t *testing.T) {
	g := gatewaytest.Start(t)
	_, ready := follow(t, g, gatewaytest.All(t), url.Values{"filter": {"a/+/#"}}.Encode()).next()
	granted, err := json.Marshal(ready.Granted)
	if err != nil || string(granted) != `["a/+/#"]` {
		t.Errorf("got %s", ready.Raw)
	}
}
