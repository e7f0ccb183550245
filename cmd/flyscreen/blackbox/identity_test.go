package blackbox_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// Tokens that are not right are refused with the reason, whatever the operation,
// and never count as no token.
func TestBadCredentials(t *testing.T) {
	s := boot(t, "embedded", map[string]any{"auth.anonymous.sub": []string{"#"}, "auth.anonymous.pub": []string{"#"}})
	hour := time.Now().Add(time.Hour).Unix()
	claims := func(more map[string]any) map[string]any {
		all := map[string]any{"sub": "x", "exp": hour, "acl": grants{All: []string{"#"}}}
		for k, v := range more {
			if all[k] = v; v == nil {
				delete(all, k)
			}
		}
		return all
	}
	sign := func(more map[string]any) string { return suite.signer.sign(t, "HS256", secret, claims(more)) }
	good := sign(nil)
	head, rest, _ := strings.Cut(good, ".")
	body, signature, _ := strings.Cut(rest, ".")
	for _, bad := range []struct{ what, token, code string }{
		{"another secret", suite.signer.sign(t, "HS256", secret+"!", claims(nil)), "token-invalid"},
		{"another algorithm", suite.signer.sign(t, "HS512", strings.Repeat(secret, 2), claims(nil)), "token-invalid"},
		{"no algorithm", "eyJhbGciOiJub25lIn0." + body + ".", "token-invalid"},
		{"changed claims", head + "." + body[:len(body)-2] + "A" + "." + signature, "token-invalid"},
		{"expired", sign(map[string]any{"exp": time.Now().Add(-time.Minute).Unix()}), "token-expired"},
		{"without exp", sign(map[string]any{"exp": nil}), "token-invalid"},
		{"Exp for exp", sign(map[string]any{"exp": nil, "Exp": hour}), "token-invalid"},
		{"exp as text", sign(map[string]any{"exp": "tomorrow"}), "token-invalid"},
		{"not yet valid", sign(map[string]any{"nbf": hour}), "token-invalid"},
		{"without sub", sign(map[string]any{"sub": nil}), "token-invalid"},
		{"acl of another shape", sign(map[string]any{"acl": []string{"#"}}), "token-invalid"},
		{"acl with an unknown member", sign(map[string]any{"acl": map[string]any{"publish": []string{"#"}}}), "token-invalid"},
		{"malformed filter", sign(map[string]any{"acl": grants{Sub: []string{"a/#/b"}}}), "token-invalid"},
		{"placeholder that breaks out", sign(map[string]any{"sub": "a/#", "acl": grants{Sub: []string{"pets/${sub}"}}}), "token-invalid"},
		{"placeholder without a value", sign(map[string]any{"acl": grants{Sub: []string{"pets/${claims.pet}"}}}), "token-invalid"},
		{"too large", sign(map[string]any{"x": strings.Repeat("x", 9000)}), "token-invalid"},
		{"garbage", "garbage", "token-invalid"},
	} {
		a := s.do(t, http.MethodGet, "/v1/topics?filter=a", bad.token, nil)
		wantProblem(t, bad.what, a, http.StatusUnauthorized, bad.code)
		wantChallenge(t, bad.what, a, `error="invalid_token"`, "error_description=")
		if strings.Contains(string(a.body), signature) || strings.Contains(a.header.Get("WWW-Authenticate"), signature) {
			t.Errorf("%s: the token is repeated in the answer", bad.what)
		}
	}
	for _, header := range [][]string{{"Authorization", "Basic eDp5"}, {"Authorization", "Bearer"}, {"X-API-Key", "x"}} {
		a := s.do(t, http.MethodGet, "/v1/topics?filter=a", "", nil, header...)
		if a.status != http.StatusUnauthorized {
			t.Errorf("%q: %d %s", header, a.status, short(a.body))
		}
	}
	wantProblem(t, "a token in the query", s.do(t, http.MethodGet, "/v1/topics?filter=a&access_token="+good, "", nil), http.StatusBadRequest, "bad-request")
	for what, token := range map[string]string{"the good token": good, "no token": ""} {
		if a := s.do(t, http.MethodGet, "/v1/topics?filter=a", token, nil); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", what, a.status, short(a.body))
		}
	}
	log, _, _ := s.gateway.log.snapshot()
	for _, line := range log {
		if strings.Contains(line, signature) || strings.Contains(line, secret) {
			t.Errorf("the log holds a secret: %.300s", line)
		}
	}
}

// Every operation that asks for a credential refuses a bad one, and none at all
// where nobody may come anonymously; and every operation refuses pages of
// foreign origins. The operations are those of the API description.
func TestEveryOperationIsGuarded(t *testing.T) {
	s := boot(t, "embedded", nil)
	for path, item := range suite.document.model.Paths.PathItems.FromOldest() {
		target := strings.NewReplacer("{topic}", "guarded", "{file}", "console.js", "{id}", "17").Replace(path)
		for method, operation := range item.GetOperations().FromOldest() {
			method = strings.ToUpper(method)
			a := s.do(t, method, target, "", nil, "Origin", "https://elsewhere.example")
			if a.status != http.StatusForbidden || method != http.MethodHead && !strings.Contains(string(a.body), "origin-not-allowed") {
				t.Errorf("%s %s from a foreign page: %d %s", method, path, a.status, short(a.body))
			}
			if operation.Security != nil {
				continue // open to everybody
			}
			for what, token := range map[string]string{"a bad token": "garbage", "no token": ""} {
				if path == "/v1/ws" && token == "" {
					continue // there it may come in the first frame
				}
				a := s.do(t, method, target, token, nil)
				if a.status != http.StatusUnauthorized {
					t.Errorf("%s %s with %s: %d %s", method, path, what, a.status, short(a.body))
				}
				wantChallenge(t, method+" "+path+" with "+what, a)
			}
		}
	}
}

// A page of a listed origin may use the API.
func TestListedOrigin(t *testing.T) {
	s := boot(t, "embedded", map[string]any{"http.allowed_origins": []string{"https://app.example", "https://*.pets.example"}})
	token := everything(t)
	for origin, allowed := range map[string]bool{
		"https://app.example": true, "https://a.pets.example": true, s.url: true,
		"http://app.example": false, "https://app.example:444": false, "https://pets.example": false, "https://app.example.evil": false, "null": false,
	} {
		a := s.do(t, http.MethodPost, "/v1/topics/origin", token, []byte("x"), "Origin", origin)
		if !allowed {
			wantProblem(t, origin, a, http.StatusForbidden, "origin-not-allowed")
			continue
		}
		if a.status != http.StatusOK {
			t.Errorf("%s: %d %s", origin, a.status, short(a.body))
		}
		if got := a.header.Get("Access-Control-Allow-Origin"); got != origin && origin != s.url {
			t.Errorf("%s: Access-Control-Allow-Origin %q", origin, got)
		}
	}
	// The preflight is no operation of the API description: the plain client sends it.
	r, err := http.NewRequest(http.MethodOptions, s.url+"/v1/topics/origin", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", "https://app.example")
	r.Header.Set("Access-Control-Request-Method", "PUT")
	r.Header.Set("Access-Control-Request-Headers", "authorization")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	a := read(t, res)
	if a.status != http.StatusNoContent || !strings.Contains(a.header.Get("Access-Control-Allow-Methods"), "PUT") ||
		!strings.Contains(strings.ToLower(a.header.Get("Access-Control-Allow-Headers")), "authorization") {
		t.Errorf("preflight: %d %v", a.status, a.header)
	}
}

// Nobody without a token gets in unless the operator said so, and then only
// where he said.
func TestAnonymous(t *testing.T) {
	onBoth(t, map[string]any{"auth.anonymous.sub": []string{"public/#"}, "auth.anonymous.pub": []string{"public/guestbook"}}, func(t *testing.T, s *site) {
		for _, door := range doors {
			st := s.followLive(t, door, "", "#")
			wantSame(t, door+": granted", st.granted(st.events(t)), []string{"public/#"})
			s.publish(t, everything(t), "private/x", []byte("x"))
			s.publish(t, "", "public/guestbook", []byte(door))
			if got := st.messages(t, 1); got[0].Topic != "public/guestbook" {
				t.Errorf("%s: %s", door, got[0].object)
			}
			for _, e := range st.events(t) {
				if (e.Type == "ready" || e.Type == "connack") && (e.Expires != nil || e.Subject != "") {
					t.Errorf("%s: %s", door, e.object)
				}
			}
		}
		refused := s.do(t, http.MethodPost, "/v1/topics/public/news", "", []byte("x"))
		wantProblem(t, "anonymous elsewhere", refused, http.StatusForbidden, "not-authorized")
	})
}

// explained is the answer of explain.
type explained struct {
	Allowed     bool
	Granted, By []string
	Reason      string
}

// Narrowing, strict and explain agree with each other.
func TestNarrowingStrictAndExplain(t *testing.T) {
	s := boot(t, "embedded", nil)
	token := tokenFor(t, "7", grants{Sub: []string{"pets/1/#", "+/${sub}/status", "team/${claims.team}"}, Pub: []string{"pets/+/commands/#"}},
		map[string]any{"team": "red"})
	for _, c := range []struct {
		request string // of explain, as JSON
		granted []string
		by      []string
	}{
		{`{"action":"subscribe","filter":"pets/#"}`, []string{"pets/1/#", "pets/7/status"}, []string{"pets/1/#", "+/7/status"}},
		{`{"action":"subscribe","filter":"pets/1/location","strict":true}`, []string{"pets/1/location"}, []string{"pets/1/#"}},
		{`{"action":"subscribe","filter":"pets/#","strict":true}`, nil, nil},
		{`{"action":"subscribe","filter":"team/+"}`, []string{"team/red"}, []string{"team/red"}},
		{`{"action":"subscribe","filter":"barn/1"}`, nil, nil},
		{`{"action":"subscribe","filter":"$SYS/#"}`, nil, nil},
		{`{"action":"publish","topic":"pets/1/commands/sound"}`, []string{"pets/1/commands/sound"}, []string{"pets/+/commands/#"}},
		{`{"action":"publish","topic":"pets/1/location"}`, nil, nil},
	} {
		a := s.do(t, http.MethodPost, "/v1/authz/explain", token, []byte(c.request), "Content-Type", "application/json")
		var got explained
		if err := json.Unmarshal(a.body, &got); a.status != http.StatusOK || err != nil {
			t.Errorf("%s: %d %s", c.request, a.status, short(a.body))
			continue
		}
		slices.Sort(got.Granted)
		slices.Sort(got.By)
		slices.Sort(c.granted)
		slices.Sort(c.by)
		if got.Allowed != (c.granted != nil) || !slices.Equal(got.Granted, c.granted) || !slices.Equal(got.By, c.by) || got.Reason == "" {
			t.Errorf("%s: %s", c.request, a.body)
		}
		var request struct {
			Action, Topic, Filter string
			Strict                bool
		}
		if err := json.Unmarshal([]byte(c.request), &request); err != nil {
			t.Fatal(err)
		}
		s.wantAsExplained(t, token, request.Action, request.Topic+request.Filter, request.Strict, got)
	}
}

// wantAsExplained does what was explained and compares.
func (s *site) wantAsExplained(t *testing.T, token, action, name string, strict bool, e explained) {
	t.Helper()
	if action == "publish" {
		a := s.do(t, http.MethodPost, "/v1/topics/"+name, token, []byte("x"))
		if (a.status == http.StatusOK) != e.Allowed {
			t.Errorf("publish to %s: %d %s, explained as %+v", name, a.status, short(a.body), e)
		}
		return
	}
	query := ""
	if strict {
		query = "strict=true"
	}
	if !e.Allowed {
		path := "/v1/stream?" + strings.ReplaceAll(query+"&filter="+name, "#", "%23")
		a := s.do(t, http.MethodGet, path, token, nil)
		wantProblem(t, path, a, http.StatusForbidden, "not-authorized")
		wantChallenge(t, path, a, `error="insufficient_scope"`)
		return
	}
	for _, door := range []string{"sse", "ndjson"} {
		st := s.open(t, door, token, query, name)
		granted := st.granted(st.await(t, "ready", func(all []event) bool { return count(all, "ready") > 0 }))
		slices.Sort(granted)
		wantSame(t, door+" "+name, granted, e.Granted)
	}
}

// A token's end is told before it comes, ends what it opened, and opens nothing
// afterwards.
func TestTokenExpiry(t *testing.T) {
	onBoth(t, map[string]any{"limits.leeway": "1s"}, func(t *testing.T, s *site) {
		// Long enough for every client to start on a busy machine.
		guest := tokenFor(t, "guest", grants{All: []string{"#"}}, map[string]any{"exp": time.Now().Add(8 * time.Second).Unix()})
		streams := map[string]*stream{}
		for _, door := range doors {
			streams[door] = s.followLive(t, door, guest, "#")
		}
		s.publish(t, guest, "early", []byte("x"))
		for door, st := range streams {
			all := st.await(t, "the end", func(all []event) bool { return count(all, "end") > 0 })
			if count(all, "token_expiring") != 1 || countTopic(all, "early") != 1 {
				t.Errorf("%s: got %d warnings and %d messages", door, count(all, "token_expiring"), countTopic(all, "early"))
			}
			if end := pick(all, "end")[0]; end.Code != 4401 || end.Reconnect || end.Reason == "" {
				t.Errorf("%s: %s", door, end.object)
			}
		}
		all := streams["ws"].await(t, "closed", func(all []event) bool { return count(all, "closed") > 0 })
		if c := pick(all, "closed")[0]; c.Code != 4401 {
			t.Errorf("ws: closed with %d %s", c.Code, c.Reason)
		}
		late := s.do(t, http.MethodPost, "/v1/topics/late", guest, []byte("x"))
		wantProblem(t, "a publish after the end", late, http.StatusUnauthorized, "token-expired")
		wantChallenge(t, "a publish after the end", late, `error="invalid_token"`)
	})
}
