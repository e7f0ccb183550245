package auth_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
)

// A principal that is kept follows what its credential is worth: new rules are
// taken over, what is gone ends it, and a bad file changes nothing.
func TestCurrent(t *testing.T) {
	at := clock
	changes := 0
	key, keyLine := newKey(t, auth.APIKey{Subject: "device", Sub: []string{"own"}})
	_, otherLine := newKey(t, auth.APIKey{Subject: "device", Sub: []string{"other"}})
	a := withOptions(t, auth.Options{
		Issuers:   []auth.Issuer{{Name: "s", Secret: secret}, {Keys: pemOf(keys().ed)}},
		APIKeys:   []byte(keyLine),
		Passwords: []byte(must(auth.NewPassword("alice", "x", 1))),
		ACL:       []byte("user alice\ntopic read pets/#\nuser device\ntopic read d"),
		Anonymous: auth.Grants{Sub: filters("news")},
		Changed:   func() { changes++ },
		Now:       func() time.Time { return at },
	})
	nobody, _ := a.Anonymous()
	principals := map[string]auth.Principal{
		"token by secret": must(a.Token(hs(hs256, `{"iss":"s",`+good[1:]))),
		"token by key":    must(a.Token(signed("EdDSA", keys().ed, `{"alg":"EdDSA"}`, good))),
		"API key":         must(a.APIKey(key)),
		"password":        must(a.Password(t.Context(), "alice", "x", "")),
		"certificate":     must(a.Request(shown(t, x509.Certificate{Subject: pkix.Name{CommonName: "alice"}}))),
		"nobody":          nobody,
	}
	want := func(when string, subs map[string]string) {
		t.Helper()
		for what, p := range principals {
			now, err := a.Current(p)
			sub, alive := subs[what]
			switch {
			case alive && err != nil:
				t.Errorf("%s, %s: %v", when, what, err)
			case alive:
				wantFilters(t, when+", "+what, now.Grants.Sub, strings.Fields(sub)...)
			case !fault.Is(err, fault.TokenInvalid) || !auth.Revoked(err):
				t.Errorf("%s, %s: %+v, %v", when, what, now, err)
			}
		}
	}
	as := map[string]string{"token by secret": "pets/#", "token by key": "pets/#", "API key": "own d", "password": "pets/#", "certificate": "pets/#", "nobody": "news"}
	want("at first", as)

	for what, err := range map[string]error{
		"an ACL":      a.SetACL([]byte("topic a b")),
		"passwords":   a.SetPasswords([]byte("x")),
		"API keys":    a.SetAPIKeys([]byte("x")),
		"a secret":    a.SetIssuer(0, []byte("short"), nil),
		"keys":        a.SetIssuer(1, nil, []byte("x")),
		"empty keys":  a.SetIssuer(1, nil, nil),
		"foreign key": a.SetIssuer(1, nil, pemOf(keys().rsaShort)),
	} {
		if err == nil {
			t.Errorf("bad %s: no error", what)
		}
	}
	want("after bad files", as)
	if changes != 0 {
		t.Errorf("%d changes were told", changes)
	}

	set := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	set("ACL", a.SetACL([]byte("topic read free\nuser alice\ntopic read cats/#")))
	as["API key"], as["password"], as["certificate"], as["nobody"] = "own", "cats/#", "cats/#", "news free"
	want("with another ACL", as)
	set("keys", a.SetIssuer(1, nil, append(pemOf(keys().p256), pemOf(keys().ed)...)))
	want("with one key more", as)
	set("keys", a.SetIssuer(1, nil, pemOf(keys().p256)))
	delete(as, "token by key")
	want("without the key", as)
	set("secret", a.SetIssuer(0, []byte(strings.Repeat("y", 32)), nil))
	delete(as, "token by secret")
	want("with another secret", as)
	set("API keys", a.SetAPIKeys([]byte(otherLine)))
	delete(as, "API key")
	want("without the API key", as)
	set("passwords", a.SetPasswords([]byte(must(auth.NewPassword("alice", "x", 1)))))
	delete(as, "password")
	want("with a new line for the password", as)
	if changes != 6 {
		t.Errorf("%d changes were told, want 6", changes)
	}
	// Tokens that were remembered do not outlive what signed them.
	checkToken(t, a, hs(hs256, `{"iss":"s",`+good[1:]), "the token's signature does not fit")

	at = clock.Add(time.Hour + 30*time.Second)
	if _, err := a.Current(principals["certificate"]); !fault.Is(err, fault.TokenExpired) {
		t.Errorf("at its end: %v", err)
	}
}
