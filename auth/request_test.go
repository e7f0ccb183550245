package auth_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
)

func TestRequest(t *testing.T) {
	token := hs(hs256, good)
	const (
		sendIt   = "no credential was sent; send a token in the header Authorization: Bearer <token>"
		noQuery  = "a token in the query (access_token) is not accepted, because URLs are logged; send it in the header Authorization: Bearer <token>"
		noKeys   = "API keys are not accepted here; send a token in the header Authorization: Bearer <token>"
		noBasic  = "user name and password (Basic) are not accepted here; send Authorization: Bearer <token>"
		badBasic = "the Authorization header is not of the form Basic base64(user:password)"
		twoKinds = "the request brings an API key and another credential; send one of them"
		notOne   = "the query parameter access_token must hold one token"
		noBearer = "the Authorization header is not of the form Bearer <token>"
	)
	type header = map[string][]string
	rows := []struct {
		name    string
		inQuery bool // allowed
		query   string
		header  header
		code    fault.Code // empty: it is dash
		detail  string
	}{
		{name: "bearer", header: header{"Authorization": {"Bearer " + token}}},
		{name: "scheme in other letters", header: header{"Authorization": {"bEARER   " + token}}},
		{name: "other query", query: "?filter=a&token=x", header: header{"Authorization": {"Bearer " + token}}},
		{"nothing", false, "", nil, fault.Unauthenticated, sendIt},
		{"cookie", false, "", header{"Cookie": {"token=" + token}}, fault.Unauthenticated, sendIt},
		{"two headers", false, "", header{"Authorization": {"Bearer " + token, "Bearer " + token}}, fault.Unauthenticated, "the request has 2 Authorization headers; one is allowed"},
		{"two in one header", false, "", header{"Authorization": {"Bearer " + token + ", Bearer " + token}}, fault.TokenInvalid, "the token does not have three parts with dots between them"},
		{"no token", false, "", header{"Authorization": {"Bearer "}}, fault.Unauthenticated, "the Authorization header holds no token"},
		{"no scheme", false, "", header{"Authorization": {token}}, fault.Unauthenticated, noBearer},
		{"empty header", false, "", header{"Authorization": {""}}, fault.Unauthenticated, noBearer},
		{"other scheme", false, "", header{"Authorization": {"Digest x"}}, fault.Unauthenticated, noBearer},
		{"basic", false, "", header{"Authorization": {"Basic ZGFzaDp4"}}, fault.Unauthenticated, noBasic},
		{"API key", false, "", header{"X-Api-Key": {"x"}}, fault.Unauthenticated, noKeys},
		{"API key and bearer", false, "", header{"X-Api-Key": {"x"}, "Authorization": {"Bearer " + token}}, fault.BadRequest, twoKinds},
		{"API key and query", true, "?access_token=" + token, header{"X-Api-Key": {"x"}}, fault.BadRequest, twoKinds},
		{"two API keys", false, "", header{"X-Api-Key": {"x", "x"}}, fault.Unauthenticated, "the request has 2 X-API-Key headers; one is allowed"},
		{"empty API key", false, "", header{"X-Api-Key": {""}}, fault.Unauthenticated, "the X-API-Key header is empty"},
		{"basic, not base64", false, "", header{"Authorization": {"Basic dash:x"}}, fault.Unauthenticated, badBasic},
		{"basic, no colon", false, "", header{"Authorization": {"Basic ZGFzaA=="}}, fault.Unauthenticated, badBasic},
		{"basic, nobody", false, "", header{"Authorization": {"Basic Ong="}}, fault.Unauthenticated, badBasic},
		{"bad token", false, "", header{"Authorization": {"Bearer x"}}, fault.TokenInvalid, "the token does not have three parts with dots between them"},
		{"query", true, "?access_token=" + token, nil, "", ""},
		{"query not allowed", false, "?access_token=" + token, nil, fault.BadRequest, noQuery},
		{"query not allowed, spelled differently", false, "?a&access%5Ftoken=" + token, nil, fault.BadRequest, noQuery},
		{"query not allowed, header good", false, "?access_token=", header{"Authorization": {"Bearer " + token}}, fault.BadRequest, noQuery},
		{"query and header", true, "?access_token=" + token, header{"Authorization": {"Bearer " + token}}, fault.BadRequest, "the token is both in the Authorization header and in the query; send it once"},
		{"query twice", true, "?access_token=" + token + "&access_token=" + token, nil, fault.BadRequest, notOne},
		{"query empty", true, "?access_token", nil, fault.BadRequest, notOne},
		{"query bad", true, "?access_token=x", nil, fault.TokenInvalid, "the token does not have three parts with dots between them"},
	}
	for _, row := range rows {
		for _, anonymous := range []auth.Grants{{}, {Sub: filters("news/#")}} {
			t.Run(fmt.Sprint(row.name, anonymous.Sub), func(t *testing.T) {
				a := withOptions(t, auth.Options{Issuers: []auth.Issuer{{Secret: secret}}, Now: now, AllowTokenInQuery: row.inQuery, Anonymous: anonymous})
				r := httptest.NewRequest(http.MethodGet, "/v1/stream"+row.query, nil)
				for name, values := range row.header {
					r.Header[name] = values
				}
				p, err := a.Request(r)
				switch {
				case row.code == "":
					if err != nil || p.Subject != "dash" {
						t.Fatalf("principal %+v, error %v, want dash", p, err)
					}
				case row.detail == sendIt && anonymous.Sub != nil: // only who brings nothing is anonymous
					if err != nil || !p.Anonymous || p.Subject != "" || !p.Ends.IsZero() || !p.Expires.IsZero() {
						t.Fatalf("principal %+v, error %v, want the anonymous one", p, err)
					}
					wantFilters(t, "sub", p.Grants.Sub, "news/#")
				default:
					wantFault(t, err, row.code, row.detail)
				}
			})
		}
	}
}

func TestAnonymous(t *testing.T) {
	if p, ok := authenticator(t).Anonymous(); ok {
		t.Errorf("anonymous access without grants: %+v", p)
	}
	p, ok := withOptions(t, auth.Options{Anonymous: auth.Grants{Pub: filters("in/+")}}).Anonymous()
	if !ok || !p.Anonymous {
		t.Fatalf("no anonymous access with grants: %+v", p)
	}
	wantFilters(t, "pub", p.Grants.Pub, "in/+")
}

func TestChallenge(t *testing.T) {
	for _, row := range []struct {
		err  error
		want string
	}{
		{fault.New(fault.Unauthenticated, "no credential"), `Bearer realm="flyscreen"`},
		{fault.New(fault.OriginNotAllowed, "no"), `Bearer realm="flyscreen"`},
		{fault.New(fault.TokenInvalid, `the member "exp" is missing`), `Bearer realm="flyscreen", error="invalid_token", error_description="the member 'exp' is missing"`},
		{fmt.Errorf("wrapped: %w", fault.New(fault.TokenExpired, "gone")), `Bearer realm="flyscreen", error="invalid_token", error_description="gone"`},
		{fault.New(fault.NotAuthorized, "no grant for é\\\r\n\x7f"), `Bearer realm="flyscreen", error="insufficient_scope", error_description="no grant for ?'???"`},
		{fault.New(fault.NotAuthorized, "%s", strings.Repeat("a", 300)), `Bearer realm="flyscreen", error="insufficient_scope", error_description="` + strings.Repeat("a", 200) + `"`},
		{fault.New(fault.BadRequest, "x"), ""},
		{errors.New("x"), ""},
	} {
		if got := auth.Challenge(row.err); got != row.want {
			t.Errorf("challenge for %v is\n     %s\nwant %s", row.err, got, row.want)
		}
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	o := auth.Options{Issuers: []auth.Issuer{{Secret: secret}}, Now: now, Metrics: registry}
	a := withOptions(t, o)
	if _, err := auth.New(o); err == nil {
		t.Error("metrics registered twice without an error")
	}
	for _, authorization := range []string{"Bearer " + hs(hs256, good), "Bearer " + hs(hs256, good), "Bearer x", "Bearer " + hs(hs256, `{"sub":"a","exp":1}`), "Basic x"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", authorization)
		_, _ = a.Request(r)
	}
	got := counters(t, registry)
	want := map[string]float64{
		"flyscreen_auth_tokens_total verified": 1, "flyscreen_auth_tokens_total cached": 1,
		"flyscreen_auth_tokens_total invalid": 1, "flyscreen_auth_tokens_total expired": 1,
		"flyscreen_auth_requests_refused_total unauthenticated": 1,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// counters returns the value of each counter by its name and label value.
func counters(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			got[family.GetName()+" "+m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return got
}
