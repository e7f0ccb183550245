package auth_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
)

const provider = "https://id.example/realms/pets"

// An OpenID provider says itself where its keys are; they may be on another host,
// but nowhere that anybody could change them.
func TestDiscovery(t *testing.T) {
	a := edKey("a")
	const says200 = `{"issuer":"` + provider + `","jwks_uri":"https://keys.example/set","extra":[1]}`
	for what, row := range map[string]struct{ description, refused string }{
		"as it should be":         {says200, ""},
		"keys on this machine":    {`{"issuer":"` + provider + `","jwks_uri":"http://127.0.0.1:9/set"}`, ""},
		"another issuer":          {strings.Replace(says200, "/realms/pets", "/realms/cats", 1), "is of another issuer"},
		"the issuer with a slash": {strings.Replace(says200, `pets"`, `pets/"`, 1), "is of another issuer"},
		"no issuer":               {`{"jwks_uri":"https://keys.example/set"}`, "is of another issuer"},
		"no keys":                 {`{"issuer":"` + provider + `"}`, `has no \"jwks_uri\"`},
		"keys in the open":        {strings.Replace(says200, "https://keys", "http://keys", 1), "without TLS"},
		"keys in a file":          {strings.Replace(says200, "https://keys.example", "file://", 1), "is not an https URL"},
		"keys with a password":    {strings.Replace(says200, "https://keys", "https://u:p@keys", 1), "holds a user name"},
		"a member twice":          {strings.Replace(says200, "{", `{"issuer":"x",`, 1), "two members of the same name"},
		"no object":               {`[]`, "is not a JSON object"},
	} {
		t.Run(what, func(t *testing.T) {
			server := func(r *http.Request) (*http.Response, error) {
				switch r.URL.String() {
				case provider + "/.well-known/openid-configuration":
					return says(row.description)(r)
				case "https://keys.example/set", "http://127.0.0.1:9/set":
					return says(oneKey("one", a))(r)
				}
				return reply(404, "application/json", `{}`)(r)
			}
			withIssuer(t, auth.Issuer{OIDC: provider}, server, func(t *testing.T, r *remote) {
				token := signed("EdDSA", a, `{"alg":"EdDSA","kid":"one"}`, `{"iss":"`+provider+`","sub":"x","exp":4000000000}`)
				if row.refused == "" {
					r.want(t, "a token of the provider", token, "")
					r.want(t, "a token of nobody", byKid("one", a), "the token's issuer is not known here")
					return
				}
				r.want(t, "a token of the provider", token, noKeys)
				if !strings.Contains(r.log.String(), row.refused) {
					t.Errorf("the log is %s, want %q", r.log, row.refused)
				}
			})
		})
	}
}

// A provider whose name ends with a slash is asked without doubling it.
func TestDiscoveryWithSlash(t *testing.T) {
	a := edKey("a")
	server := func(r *http.Request) (*http.Response, error) {
		if r.URL.String() == "https://id.example/.well-known/openid-configuration" {
			return says(`{"issuer":"https://id.example/","jwks_uri":"https://id.example/set"}`)(r)
		}
		return says(oneKey("one", a))(r)
	}
	withIssuer(t, auth.Issuer{OIDC: "https://id.example/"}, server, func(t *testing.T, r *remote) {
		r.want(t, "a token", signed("EdDSA", a, `{"alg":"EdDSA"}`, `{"iss":"https://id.example/","sub":"x","exp":4000000000}`), "")
	})
}

// running starts an authenticator with the room's own transport.
func running(t *testing.T, url string) *auth.Authenticator {
	t.Helper()
	a := withOptions(t, auth.Options{Issuers: []auth.Issuer{{JWKSURL: url}}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return a
}

// settled waits for the first fetch to end.
func settled(t *testing.T, a *auth.Authenticator) error {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		complaints := a.Ready()
		if len(complaints) == 0 {
			return nil
		}
		if strings.Contains(complaints[0].Error(), "yet: ") {
			return complaints[0]
		}
	}
	t.Fatal("no fetch has ended")
	return nil
}

// Over a real connection: redirects stay at their origin, and a server that never
// stops talking is not listened to for long.
func TestRedirects(t *testing.T) {
	set := oneKey("one", edKey("a"))
	var elsewhereAsked atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		elsewhereAsked.Store(true)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(set))
	}))
	defer elsewhere.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_, _ = w.Write([]byte(set))
	})
	mux.Handle("/moved", http.RedirectHandler("/keys", http.StatusFound))
	mux.Handle("/elsewhere", http.RedirectHandler(elsewhere.URL, http.StatusMovedPermanently))
	mux.Handle("/localhost", http.RedirectHandler(strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1), http.StatusTemporaryRedirect))
	mux.Handle("/loop", http.RedirectHandler("/loop", http.StatusFound))
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte(strings.Repeat(" ", 1<<16))); err != nil {
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	for path, refused := range map[string]string{
		"/keys":      "",
		"/moved":     "",
		"/elsewhere": "another origin",
		"/localhost": "another origin",
		"/loop":      "too many redirects",
		"/endless":   "more than 1048576 bytes",
		"/nowhere":   "404",
	} {
		err := settled(t, running(t, server.URL+path))
		if refused == "" && err != nil || refused != "" && (err == nil || !strings.Contains(err.Error(), refused)) {
			t.Errorf("%s: %v, want %q", path, err, refused)
		}
	}
	if elsewhereAsked.Load() {
		t.Error("the other origin was asked")
	}
}

// Plain HTTP is for this machine; each refusal stands beside what is taken.
func TestAddressesOfKeys(t *testing.T) {
	const overTLS = "is without TLS, so that anybody on the way could put keys of his own in; only this machine may be asked without https"
	for address, refused := range map[string]string{
		"https://id.example/keys?x=1": "", "http://127.0.0.1:8080/keys": "", "http://[::1]/keys": "", "http://localhost/keys": "", "http://LOCALHOST:1/": "",
		"http://id.example/keys": overTLS, "http://10.0.0.1/keys": overTLS, "http://localhost.evil.example/": overTLS, "http://127.0.0.1.evil.example/": overTLS,
		"ftp://id.example/keys": "is not an https URL", "id.example/keys": "is not an https URL", "https:///keys": "is not an https URL", "://": "is not an https URL",
		"https://u:p@id.example/": "holds a user name or password, which would show up in logs", "https://id.example/#x": "has a fragment",
	} {
		for _, issuer := range []auth.Issuer{{JWKSURL: address}, {OIDC: address}} {
			_, err := auth.New(auth.Options{Issuers: []auth.Issuer{issuer}})
			if refused == "" && err != nil || refused != "" && (err == nil || !strings.HasSuffix(err.Error(), refused)) {
				t.Errorf("%+v: %v, want %q", issuer, err, refused)
			}
			if err != nil && strings.Contains(err.Error(), "u:p") {
				t.Errorf("the error repeats a password: %v", err)
			}
		}
	}
}

func TestRemoteIssuers(t *testing.T) {
	for _, row := range []struct {
		issuer  auth.Issuer
		refused string
	}{
		{auth.Issuer{Name: provider, OIDC: provider, Algorithms: []string{"RS256", "EdDSA"}}, ""},
		{auth.Issuer{Name: "pets", JWKSURL: keyURL}, ""},
		{auth.Issuer{Name: "pets", OIDC: provider}, "is not the OpenID provider's URL; they must be the same, to the letter"},
		{auth.Issuer{Name: provider, OIDC: provider, JWKSURL: keyURL}, "has both a key set's URL and an OpenID provider's URL; it must have one of them"},
		{auth.Issuer{Name: "pets", JWKSURL: keyURL, Secret: secret}, "has both a secret and a key set's URL; it must have one of them"},
		{auth.Issuer{Name: "pets", JWKSURL: keyURL, Algorithms: []string{"HS256"}}, `the algorithm "HS256" is not one for keys (`},
		{auth.Issuer{Name: "pets", JWKSURL: keyURL, Algorithms: []string{"none"}}, `the algorithm "none" is not one for keys (`},
	} {
		_, err := auth.New(auth.Options{Issuers: []auth.Issuer{row.issuer}})
		if row.refused == "" && err != nil || row.refused != "" && (err == nil || !strings.Contains(err.Error(), row.refused)) {
			t.Errorf("%+v: %v, want %q", row.issuer, err, row.refused)
		}
	}
	a := withOptions(t, auth.Options{Issuers: []auth.Issuer{{JWKSURL: keyURL}}})
	if err := a.SetIssuer(0, secret, nil); err == nil {
		t.Error("a secret took the place of a key set")
	}
	// The algorithms that the operator lists hold for fetched keys too.
	key := edKey("a")
	withIssuer(t, auth.Issuer{JWKSURL: keyURL, Algorithms: []string{"RS256"}}, says(oneKey("one", key)), func(t *testing.T, r *remote) {
		if _, err := r.Bearer(t.Context(), byKid("one", key)); !fault.Is(err, fault.TokenInvalid) {
			t.Errorf("got %v", err)
		}
	})
}
