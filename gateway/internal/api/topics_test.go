package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
)

// Every method with every QoS does what it says, and says what it did.
func TestMethods(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.All(t)
	stream := g.Follow(t, token, "filter=m/%23&qos=2")
	n := 0
	for _, c := range []struct {
		method, query string
		retains       bool
	}{
		{"POST", "", false}, {"POST", "retain=false", false}, {"POST", "retain=true", true}, {"PUT", "", true},
	} {
		for _, qos := range []string{"", "0", "1", "2"} {
			n++
			topic, payload, query := fmt.Sprintf("m/%d", n), fmt.Sprintf("%d", n), c.query
			if qos != "" {
				query = strings.TrimPrefix(query+"&qos="+qos, "&")
			}
			r := do(t, g, token, c.method, "/v1/topics/"+topic+"?"+query, payload)
			want, status := fmt.Sprintf(`{"topic":%q,"qos":%s,"delivery":"acknowledged"}`, topic, qos), http.StatusOK
			switch qos {
			case "":
				want = fmt.Sprintf(`{"topic":%q,"qos":1,"delivery":"acknowledged"}`, topic)
			case "0":
				want, status = fmt.Sprintf(`{"topic":%q,"qos":0,"delivery":"sent"}`, topic), http.StatusAccepted
			}
			if r.StatusCode != status || r.body != want+"\n" || r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%s ?%s: %d %s", c.method, query, r.StatusCode, r.body)
			}
			if m := stream.Next(); m.Topic != topic || string(m.Payload) != payload || m.Retain {
				t.Errorf("%s ?%s: the stream got %s", c.method, query, m.Raw)
			}
			if c.retains {
				wantHeld(t, g, token, topic, payload)
				do(t, g, token, "DELETE", "/v1/topics/"+topic+strings.TrimSuffix("?qos="+qos, "?qos="), "").want(t, "DELETE", status, "")
				if m := stream.Next(); m.Topic != topic || m.Text == nil || *m.Text != "" {
					t.Errorf("DELETE: the stream got %s", m.Raw)
				}
			}
			wantHeld(t, g, token, topic, "-")
		}
	}
}

func TestEmptyBodies(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.All(t)
	stream := g.Follow(t, token, "filter=e/%23")
	do(t, g, token, "PUT", "/v1/topics/e/1", "kept").want(t, "PUT", 200, "")
	do(t, g, token, "PUT", "/v1/topics/e/1", "").want(t, "PUT without a body", 400, "invalid-payload")
	do(t, g, token, "DELETE", "/v1/topics/e/1", "x").want(t, "DELETE with a body", 400, "invalid-payload")
	wantHeld(t, g, token, "e/1", "kept")
	do(t, g, token, "POST", "/v1/topics/e/1", "").want(t, "POST without a body", 200, "")
	do(t, g, token, "DELETE", "/v1/topics/e/1", "").want(t, "DELETE", 200, "")
	do(t, g, token, "DELETE", "/v1/topics/e/1", "").want(t, "DELETE of nothing", 200, "")
	wantHeld(t, g, token, "e/1", "-")
	for _, want := range []string{"kept", "", "", ""} {
		if m := stream.Next(); string(m.Bytes(t)) != want {
			t.Errorf("the stream got %s, want %q", m.Raw, want)
		}
	}
}

func TestGet(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.All(t)
	for i, c := range []struct{ payload, kind string }{
		{`{"a": 1}` + "\r\n", "application/json"},
		{`"x"`, "application/json"},
		{"hello <b>\n", "text/plain; charset=utf-8"},
		{"\uFEFF{}", "text/plain; charset=utf-8"},
		{"<!doctype html><script>alert(1)</script>", "text/plain; charset=utf-8"},
		{"\x00\x01", "text/plain; charset=utf-8"},
		{"\xff\x00", "application/octet-stream"},
		{"{\"a\":\"\xff\"}", "application/octet-stream"},
		{strings.Repeat("x", 256<<10), "text/plain; charset=utf-8"},
	} {
		path := fmt.Sprintf("/v1/topics/get/%d", i)
		do(t, g, token, "PUT", path, c.payload).want(t, "PUT", 200, "")
		r := do(t, g, token, "GET", path, "")
		etag := r.Header.Get("ETag")
		if r.StatusCode != 200 || r.body != c.payload || r.Header.Get("Content-Type") != c.kind ||
			r.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(etag, `"`) || !strings.HasSuffix(etag, `"`) {
			t.Errorf("%.20q: %d %.20q %v", c.payload, r.StatusCode, r.body, r.Header)
		}
		head := do(t, g, token, "HEAD", path, "")
		if head.StatusCode != 200 || head.body != "" || head.Header.Get("ETag") != etag || head.Header.Get("Content-Type") != c.kind || head.ContentLength != int64(len(c.payload)) {
			t.Errorf("HEAD %.20q: %d %q %v", c.payload, head.StatusCode, head.body, head.Header)
		}
		for _, method := range []string{"GET", "HEAD"} {
			for _, match := range []string{etag, "W/" + etag, `"x", ` + etag, "*"} {
				if r := do(t, g, token, method, path, "", "If-None-Match: "+match); r.StatusCode != 304 || r.body != "" || r.Header.Get("ETag") != etag {
					t.Errorf("%s If-None-Match %s: %d %.20q", method, match, r.StatusCode, r.body)
				}
			}
			for _, match := range []string{`"x"`, strings.Trim(etag, `"`), `W/"x"`} {
				do(t, g, token, method, path, "", "If-None-Match: "+match).want(t, method+" If-None-Match "+match, 200, "")
			}
		}
		do(t, g, token, "PUT", path, "other").want(t, "PUT", 200, "")
		do(t, g, token, "GET", path, "", "If-None-Match: "+etag).want(t, "GET after a change", 200, "")
	}
	do(t, g, token, "GET", "/v1/topics/get/none", "").want(t, "GET of nothing", 404, "not-found")
	do(t, g, token, "HEAD", "/v1/topics/get/none", "").want(t, "HEAD of nothing", 404, "not-found")
	do(t, g, token, "GET", "/v1/topics/get/none", "", "If-None-Match: *").want(t, "GET of nothing, any", 404, "not-found")
	do(t, g, token, "GET", "/v1/topics/get/0?qos=1", "").want(t, "GET with a parameter of POST", 400, "bad-request")
	do(t, g, token, "GET", "/v1/topics/get/+", "").want(t, "GET of a filter", 400, "invalid-topic")
	do(t, g, gatewaytest.Token(t, auth.Claims{Pub: []string{"#"}}), "GET", "/v1/topics/get/0", "").want(t, "GET with a publish grant", 403, "not-authorized")
	do(t, g, gatewaytest.Token(t, auth.Claims{Sub: []string{"get/+"}}), "GET", "/v1/topics/get/1", "").want(t, "GET with a subscribe grant", 200, "")
	do(t, g, token, "GET", "/v1/topics/$SYS/broker/version", "").want(t, "GET of a $ topic without a grant that names it", 403, "not-authorized")
}

// A topic is what stands behind the prefix, decoded once, whatever the method.
func TestTopicSpelling(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.All(t)
	for path, topic := range map[string]string{
		"s/a/b": "s/a/b", "s%2Fc%2Fd": "s/c/d", "s%2fe": "s/e", "s/f%252Fg": "s/f%2Fg", "s/%c3%a9": "s/é", "s/%C3%A8": "s/è",
		"s/./a": "s/./a", "s/../a": "s/../a", "s/h//a": "s/h//a", "/s": "/s", "s/": "s/", "s/a%20b": "s/a b", "s/a;b=c": "s/a;b=c", "s/a%3Fb": "s/a?b",
	} {
		r := do(t, g, token, "PUT", "/v1/topics/"+path, path)
		if want := fmt.Sprintf(`{"topic":%q,"qos":1,"delivery":"acknowledged"}`, topic); r.body != want+"\n" {
			t.Errorf("PUT %s: %s, want %s", path, r.body, want)
		}
		wantHeld(t, g, token, path, path)
	}
	wantHeld(t, g, token, "s%2Fa%2Fb", "s/a/b")
	wantHeld(t, g, token, "s/c/d", "s%2Fc%2Fd")
	for what, path := range map[string]string{
		"+": "a/+/b", "+ escaped": "a/%2B", "#": "a/%23", "+ in a level": "a+", "NUL": "a%00", "SOH": "a%01", "LF": "a%0A", "DEL": "a%7F",
		"C1": "a%C2%80", "U+FFFE": "a%EF%BF%BE", "U+FDD0": "a%EF%B7%90", "not UTF-8": "a%FF", "half": "a%C3", "over-long": "%C0%80", "surrogate": "%ED%A0%80",
		"empty": "", "1,025 bytes": strings.Repeat("t", 1025), "33 levels": strings.Repeat("a/", 32) + "a", "65,536 bytes": strings.Repeat("t", 65536),
		"the broker's": "$SYS/x", "shared": "$share/g/t",
	} {
		for _, method := range []string{"POST", "PUT", "DELETE"} {
			do(t, g, token, method, "/v1/topics/"+path, map[string]string{"POST": "x", "PUT": "x"}[method]).want(t, method+" "+what, 400, "invalid-topic")
		}
	}
	longest := strings.Repeat("t", 1024)
	do(t, g, token, "POST", "/v1/topics/"+longest, "x").want(t, "1,024 bytes", 200, "")
	do(t, g, token, "POST", "/v1/topics/"+strings.Repeat("a/", 31)+"a", "x").want(t, "32 levels", 200, "")
}

// $ topics that the operator named can be published to, with a grant that names
// the level.
func TestDollarTopics(t *testing.T) {
	g := gatewaytest.Start(t, "upstream.dollar_topics=$aws/")
	named := gatewaytest.Token(t, auth.Claims{All: []string{"$aws/#", "#", "$other/#"}})
	do(t, g, named, "POST", "/v1/topics/$aws/x", "1").want(t, "named", 200, "")
	do(t, g, gatewaytest.All(t), "POST", "/v1/topics/$aws/x", "1").want(t, "granted by a wildcard only", 403, "not-authorized")
	do(t, g, named, "POST", "/v1/topics/$other/x", "1").want(t, "not in upstream.dollar_topics", 400, "invalid-topic")
}

// Nothing that was asked for is ignored.
func TestOptions(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.All(t)
	for query, ok := range map[string]bool{
		"": true, "qos=1": true, "retain=true": true, "qos=2&retain=false": true,
		"qos=3": false, "qos=-1": false, "qos=": false, "qos=one": false, "qos=1&qos=1": false, "retain=yes": false, "retain=true&retain=true": false,
		"Qos=1": false, "x": false, "qos=1&retian=true": false, "qos=%31": true, "qos=%zz": false,
	} {
		r := do(t, g, token, "POST", "/v1/topics/o?"+query, "x")
		if ok {
			r.want(t, query, 200, "")
		} else {
			r.want(t, query, 400, "bad-request")
		}
	}
	do(t, g, token, "PUT", "/v1/topics/o?retain=true", "x").want(t, "PUT knows no retain", 400, "bad-request")
	do(t, g, token, "DELETE", "/v1/topics/o?retain=true", "").want(t, "DELETE knows no retain", 400, "bad-request")

	notYet := func(what string, r reply) {
		t.Helper()
		r.want(t, what, 400, "bad-request")
		if !strings.Contains(r.body, "not supported yet") {
			t.Errorf("%s: %s does not say that it comes later", what, r.body)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		body := strings.TrimPrefix("x"+method, "xDELETE")
		notYet(method+" Prefer: wait", do(t, g, token, method, "/v1/topics/o", body, "Prefer: wait=5"))
		do(t, g, token, method, "/v1/topics/o", body, "Prefer: return=minimal, handling=strict").want(t, method+" other preferences", 200, "")
	}
	do(t, g, token, "PUT", "/v1/topics/o", "x").want(t, "PUT", 200, "")
	notYet("GET Prefer: wait", do(t, g, token, "GET", "/v1/topics/o", "", "Prefer: respond-async, WAIT = 5"))
	notYet("GET Prefer: wait", do(t, g, token, "GET", "/v1/topics/o", "", "Prefer: handling=lenient; wait=5"))
	do(t, g, token, "GET", "/v1/topics/o", "", "Idempotency-Key: k").want(t, "GET with a key that means nothing there", 200, "")
}

func TestGrants(t *testing.T) {
	g := gatewaytest.Start(t)
	token := gatewaytest.Token(t, auth.Claims{Pub: []string{"mine/#"}, Sub: []string{"yours/#"}})
	do(t, g, token, "POST", "/v1/topics/mine/a", "x").want(t, "granted", 200, "")
	do(t, g, token, "POST", "/v1/topics/mine", "x").want(t, "granted by # on the parent", 200, "")
	for _, path := range []string{"yours/a", "minee/a", "mine%2F..%2Fyours", "Mine/a"} {
		r := do(t, g, token, "POST", "/v1/topics/"+path, "x")
		if path == "mine%2F..%2Fyours" { // dots are a level like any other
			r.want(t, path, 200, "")
			continue
		}
		r.want(t, path, 403, "not-authorized")
		if h := r.Header.Get("WWW-Authenticate"); !strings.Contains(h, `error="insufficient_scope"`) {
			t.Errorf("%s: WWW-Authenticate %q", path, h)
		}
	}
}
