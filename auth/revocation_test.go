package auth_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
)

func TestRevoke(t *testing.T) {
	at, changes := clock, 0
	key, line := newKey(t, auth.APIKey{Subject: "device"})
	o := auth.Options{
		Issuers: []auth.Issuer{{Keys: jwks(jwk(keys().ed.Public(), `,"kid":"k1"`))}}, APIKeys: []byte(line),
		Now: func() time.Time { return at }, Changed: func() { changes++ },
	}
	tokens := map[string]string{}
	for _, name := range []string{"a", "b"} {
		tokens[name] = signed("EdDSA", keys().ed, `{"alg":"EdDSA"}`, fmt.Sprintf(`{"sub":%q,"jti":"id of %s","exp":4000000000}`, name, name))
	}
	hour := clock.Add(time.Hour)
	for what, row := range map[string]struct {
		revoke  auth.Revocation
		refused string // "a", "b", "key"
	}{
		"one token":    {auth.Revocation{TokenID: "id of a", Until: hour}, "a"},
		"a subject":    {auth.Revocation{Subject: "b", Until: hour}, "b"},
		"a key":        {auth.Revocation{KeyID: "k1", Until: hour}, "a b"},
		"an API key":   {auth.Revocation{KeyID: key[4:14], Until: hour}, "key"},
		"a device":     {auth.Revocation{Subject: "device", Until: hour}, "key"},
		"nobody here":  {auth.Revocation{Subject: "id of a", Until: hour}, ""},
		"long ago":     {auth.Revocation{Subject: "a", Until: clock}, ""},
		"no such name": {auth.Revocation{TokenID: "a", Until: hour}, ""},
	} {
		a := withOptions(t, o)
		at, changes = clock, 0
		kept := map[string]auth.Principal{"a": must(a.Token(tokens["a"])), "b": must(a.Token(tokens["b"])), "key": must(a.APIKey(key))}
		if err := a.Revoke(row.revoke); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if told := changes > 0; told != row.revoke.Until.After(clock) {
			t.Errorf("%s: %d changes were told", what, changes)
		}
		check := func(when, refused string) {
			t.Helper()
			for name, p := range kept {
				_, err := a.Current(p)
				again := func() error { _, err := a.Token(tokens[name]); return err }
				if name == "key" {
					again = func() error { _, err := a.APIKey(key); return err }
				}
				for _, err := range []error{err, again()} {
					if want := strings.Contains(refused, name); want != auth.Revoked(err) || want != fault.Is(err, fault.TokenInvalid) || !want && err != nil {
						t.Errorf("%s, %s, %s: %v", what, when, name, err)
					}
				}
			}
		}
		check("then", row.refused)
		at = hour
		check("when it is over", "")
		if left := a.Revocations(); len(left) != 0 {
			t.Errorf("%s: %v is left", what, left)
		}
	}
}

func TestRevocationList(t *testing.T) {
	a := withOptions(t, auth.Options{Now: now})
	for _, r := range []auth.Revocation{
		{Subject: "s", Until: clock.Add(2 * time.Hour)}, {Subject: "s", Until: clock.Add(time.Hour)}, {TokenID: "t", Until: clock.Add(time.Hour)}, {KeyID: "k", Until: clock.Add(time.Hour)},
	} {
		if err := a.Revoke(r); err != nil {
			t.Fatal(err)
		}
	}
	got := string(must(json.Marshal(a.Revocations())))
	const want = `[{"jti":"t","until":"2026-11-22T11:00:00Z"},{"kid":"k","until":"2026-11-22T11:00:00Z"},{"sub":"s","until":"2026-11-22T12:00:00Z"}]`
	if got != want {
		t.Errorf("the list is\n     %s\nwant %s", got, want)
	}
	names := map[string]bool{}
	for _, r := range a.Revocations() {
		text := must(json.Marshal(r))
		back, err := auth.ParseRevocation(text)
		if err != nil || back != r || back.Key() != r.Key() || len(r.Key()) != 32 || names[r.Key()] {
			t.Errorf("%s comes back as %v, %v", text, back, err)
		}
		names[r.Key()] = true
	}
	for _, bad := range []auth.Revocation{{}, {Subject: "a"}, {Until: clock}, {Subject: "a", KeyID: "b", Until: clock.Add(1)}} {
		if err := a.Revoke(bad); !fault.Is(err, fault.BadRequest) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestParseRevocation(t *testing.T) {
	for _, row := range []struct{ text, refused string }{
		{`{"jti":"a","until":"2027-01-31T00:00:00Z"}`, ""}, {`{"sub":"a","until":1800000000}`, ""}, {`{"kid":"a","until":"2027-01-31T01:00:00+01:00"}`, ""},
		{`{"sub":"a"}`, `has no "until"`}, {`{"until":1800000000}`, `must name exactly one of "jti", "sub" and "kid"`},
		{`{"sub":"a","jti":"b","until":1800000000}`, `must name exactly one of "jti", "sub" and "kid"`},
		{`{"sub":"","until":1800000000}`, `has a member "sub" that is not a string with something in it`},
		{`{"sub":5,"until":1800000000}`, `has a member "sub" that is not a string with something in it`},
		{`{"sub":"a","iss":"b","until":1800000000}`, `has a member that is none of "jti", "sub", "kid" and "until"`},
		{`{"sub":"a","sub":"b","until":1800000000}`, `has two members of the same name`},
		{`{"sub":"a","until":"tomorrow"}`, `has an "until" that is not a time such as 2027-01-31T00:00:00Z`},
		{`{"sub":"a","until":-1}`, `has an "until" that is not a time`}, {`{"sub":"a","until":true}`, `has an "until" that is not a time`},
		{`[]`, `is not a JSON object`}, {``, `is not valid JSON`},
	} {
		_, err := auth.ParseRevocation([]byte(row.text))
		if row.refused == "" && err != nil || row.refused != "" && (!fault.Is(err, fault.BadRequest) || fault.From(err).Detail != "the revocation "+row.refused) {
			t.Errorf("%s gives %v, want %s", row.text, err, row.refused)
		}
	}
}

func TestRevocationsAreBounded(t *testing.T) {
	at := clock
	a := withOptions(t, auth.Options{Now: func() time.Time { return at }})
	for n := range 100_000 {
		if err := a.Revoke(auth.Revocation{TokenID: fmt.Sprint(n), Until: clock.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Revoke(auth.Revocation{TokenID: "x", Until: clock.Add(time.Hour)}); !fault.Is(err, fault.Overloaded) {
		t.Errorf("one more: %v", err)
	}
	if err := a.Revoke(auth.Revocation{TokenID: "7", Until: clock.Add(2 * time.Hour)}); err != nil {
		t.Errorf("one that is there, longer: %v", err)
	}
	at = clock.Add(90 * time.Minute)
	if err := a.Revoke(auth.Revocation{TokenID: "x", Until: clock.Add(2 * time.Hour)}); err != nil {
		t.Errorf("when the others are over: %v", err)
	}
	if left := a.Revocations(); len(left) != 2 {
		t.Errorf("%d are left", len(left))
	}
}

// A token that comes for the first time is held against the list too.
func TestRevokedBeforeSeen(t *testing.T) {
	a := authenticator(t, auth.Issuer{Secret: secret})
	if err := a.Revoke(auth.Revocation{Subject: "dash", Until: clock.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"first", "again"} {
		if _, err := a.Token(hs(hs256, good)); !auth.Revoked(err) {
			t.Errorf("%s: %v", when, err)
		}
	}
	if _, err := a.Token(hs(hs256, strings.Replace(good, "dash", "dot", 1))); err != nil {
		t.Errorf("somebody else: %v", err)
	}
}
