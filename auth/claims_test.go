package auth_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

func TestClaims(t *testing.T) {
	exp := fmt.Sprintf(`"exp":%d`, clock.Unix()+60)
	sub := `"sub":"dash",`
	rows := []struct{ claims, refused string }{
		{`{` + sub + exp + `}`, ""},

		{`{` + exp + `}`, `the member "sub" is missing`},
		{`{"Sub":"dash",` + exp + `}`, `the member "sub" is missing`},
		{`{"sub":"",` + exp + `}`, `the member "sub" is empty`},
		{`{"sub":null,` + exp + `}`, `the member "sub" is not a string`},
		{`{"sub":"a\u0000",` + exp + `}`, `the member "sub" holds a control character`},
		{`{"sub":"a\u0085",` + exp + `}`, `the member "sub" holds a control character`},
		{`{"sub":"` + strings.Repeat("x", 256) + `",` + exp + `}`, `the member "sub" has more than 255 bytes`},

		{`{"sub":"dash"}`, `the member "exp" is missing`},
		{`{` + sub + `"Exp":4000000000}`, `the member "exp" is missing`},
		{`{` + sub + `"exp":null}`, `the member "exp" is not a number`},
		{`{` + sub + `"exp":"4000000000"}`, `the member "exp" is not a number`},
		{`{` + sub + `"exp":4000000000.5}`, ""},
		{`{` + sub + `"exp":4e9}`, ""},
		{`{` + sub + `"exp":-1}`, `the member "exp" is not a time between 1970 and 9999 in seconds`},
		{`{` + sub + `"exp":253402300799}`, ""},
		{`{` + sub + `"exp":253402300800}`, `the member "exp" is not a time between 1970 and 9999 in seconds`},
		{`{` + sub + `"exp":1e400}`, `the member "exp" is not a time between 1970 and 9999 in seconds`},

		{`{` + sub + exp + fmt.Sprintf(`,"nbf":%d}`, clock.Unix()+30), ""},
		{`{` + sub + exp + fmt.Sprintf(`,"nbf":%d}`, clock.Unix()+31), "the token is not valid yet; the clocks of its issuer and of this server may differ"},
		{`{` + sub + exp + `,"nbf":"0"}`, `the member "nbf" is not a number`},
		{`{` + sub + exp + `,"iat":0}`, ""},
		{`{` + sub + exp + `,"jti":"one"}`, ""},
		{`{` + sub + exp + `,"jti":1}`, `the member "jti" is not a string`},
		{`{` + sub + exp + `,"iat":true}`, `the member "iat" is not a number`},

		{`{` + sub + exp + `,"iss":"anybody"}`, ""},
		{`{` + sub + exp + `,"iss":5}`, `the member "iss" is not a string`},
		{`{` + sub + exp + `,"aud":"x"}`, ""},
		{`{` + sub + exp + `,"aud":[]}`, ""},
		{`{` + sub + exp + `,"aud":["x",1]}`, `the member "aud" is neither a string nor an array of strings`},
		{`{` + sub + exp + `,"aud":{}}`, `the member "aud" is neither a string nor an array of strings`},

		{`{` + sub + exp + `,"scope":"openid mqttx:pub"}`, ""},
		{`{` + sub + exp + `,"scope":["openid"]}`, ""},
		{`{` + sub + exp + `,"scope":7}`, `the member "scope" is neither a string nor an array of strings`},
		{`{` + sub + exp + `,"authorization_details":[{"type":"payment"}]}`, ""},
		{`{` + sub + exp + `,"authorization_details":{"type":"mqtt"}}`, `the member "authorization_details" is not an array`},
		{`{` + sub + exp + `,"authorization_details":["mqtt"]}`, `the member "authorization_details" holds something that is not an object`},
	}
	for _, row := range rows {
		t.Run(row.claims, func(t *testing.T) {
			checkToken(t, authenticator(t, auth.Issuer{Secret: secret}), hs(hs256, row.claims), row.refused)
		})
	}
}

func TestSubjectOf255Bytes(t *testing.T) {
	long := strings.Repeat("é", 127) + "x"
	p, err := authenticator(t, auth.Issuer{Secret: secret}).Token(hs(hs256, fmt.Sprintf(`{"sub":%q,"exp":4000000000}`, long)))
	if err != nil || p.Subject != long {
		t.Fatalf("subject %q, error %v, want %q", p.Subject, err, long)
	}
}

func TestExpiry(t *testing.T) {
	a := withOptions(t, auth.Options{Issuers: []auth.Issuer{{Secret: secret}}, Now: now, Leeway: 10 * time.Second})
	token := func(exp string) string { return hs(hs256, `{"sub":"dash","exp":`+exp+`}`) }
	p, err := a.Token(token(fmt.Sprint(clock.Unix() - 9)))
	if err != nil {
		t.Fatal(err)
	}
	if want := clock.Add(-9 * time.Second); !p.Expires.Equal(want) || !p.Ends.Equal(want.Add(10*time.Second)) {
		t.Errorf("expires %v and ends %v, want %v and 10 s more", p.Expires, p.Ends, want)
	}
	_, err = a.Token(token(fmt.Sprint(clock.Unix() - 10)))
	wantFault(t, err, fault.TokenExpired, "the token expired at 2026-11-22T09:59:50Z")
	p, err = a.Token(token(fmt.Sprintf("%d.5", clock.Unix()+1)))
	if want := clock.Add(1500 * time.Millisecond); err != nil || !p.Expires.Equal(want) {
		t.Errorf("expires %v, error %v, want %v", p.Expires, err, want)
	}
	// The signature is looked at first: nobody learns when a forged token expires.
	_, err = a.Token(signed("HS256", []byte("another secret"), hs256, `{"sub":"dash","exp":1}`))
	wantFault(t, err, fault.TokenInvalid, "the token's signature does not fit")
}

func TestACL(t *testing.T) {
	rows := []struct {
		acl, more string // more claims
		pub, sub  []string
	}{
		{acl: `{}`},
		{acl: `{"pub":[],"sub":[],"all":[]}`},
		{acl: `{"pub":["pets/123/commands/#"],"sub":["pets/123/#"],"all":["chat/${sub}"]}`, pub: []string{"pets/123/commands/#", "chat/dash"}, sub: []string{"pets/123/#", "chat/dash"}},
		{acl: `{"sub":["#","$SYS/broker/+","/","a//b"]}`, sub: []string{"#", "$SYS/broker/+", "/", "a//b"}},
		{acl: `{"pub":["${claims.fleet}/${sub}${sub}/x"]}`, more: `,"fleet":"north"`, pub: []string{"north/dashdash/x"}},
		{acl: `{"pub":["a/${claims.my claim}"]}`, more: `,"my claim":"${sub}"`, pub: []string{"a/${sub}"}}, // filled in once only
		{acl: `{"pub":["a/${claims.x}"]}`, more: `,"x":"$é x"`, pub: []string{"a/$é x"}},
		{acl: `{"pub":["$${sub}/a","a/$","$/}{"]}`, pub: []string{"$dash/a", "a/$", "$/}{"}},
	}
	for _, row := range rows {
		t.Run(row.acl, func(t *testing.T) {
			p, err := authenticator(t, auth.Issuer{Secret: secret}).Token(aclToken(row.acl, row.more))
			if err != nil {
				t.Fatal(err)
			}
			wantFilters(t, "pub", p.Grants.Pub, row.pub...)
			wantFilters(t, "sub", p.Grants.Sub, row.sub...)
		})
	}
	p, err := authenticator(t, auth.Issuer{Secret: secret}).Token(hs(hs256, `{"sub":"dash","exp":4000000000,"ACL":{"all":["#"]}}`))
	if err != nil || len(p.Grants.Pub)+len(p.Grants.Sub) != 0 {
		t.Errorf("grants without acl are %+v, error %v, want none", p.Grants, err)
	}
}

func aclToken(acl, more string) string {
	return hs(hs256, `{"sub":"dash","exp":4000000000,"acl":`+acl+more+`}`)
}

// The controls of this table are the rows of TestACL.
func TestACLRefused(t *testing.T) {
	const control = `whose value holds one of / + # or a control character`
	rows := []struct{ acl, more, refused string }{
		{`null`, ``, `the member "acl" is not an object`},
		{`["#"]`, ``, `the member "acl" is not an object`},
		{`{"Sub":["#"]}`, ``, `the member "acl" may only hold "pub", "sub" and "all"`},
		{`{"sub":["a"],"deny":["b"]}`, ``, `the member "acl" may only hold "pub", "sub" and "all"`},
		{`{"sub":"#"}`, ``, `the member "acl.sub" is not an array of strings`},
		{`{"sub":null}`, ``, `the member "acl.sub" is not an array of strings`},
		{`{"all":["a",{"topic":"b"}]}`, ``, `the member "acl.all" is not an array of strings`},
		{`{"pub":["a","b/#/c"]}`, ``, `the grant acl.pub[1] "#" must be the last level`},
		{`{"pub":["a+"]}`, ``, `the grant acl.pub[0] the level "a+" mixes a wildcard with other characters`},
		{`{"pub":[""]}`, ``, `the grant acl.pub[0] is empty`},
		{`{"pub":["a\u0000"]}`, ``, `the grant acl.pub[0] holds the character U+0000, which brokers refuse`},
		{`{"sub":["$share/g/a"]}`, ``, `the grant acl.sub[0] names a shared subscription ("$share"), which cannot be granted`},
		{`{"sub":["$share"]}`, ``, `the grant acl.sub[0] names a shared subscription ("$share"), which cannot be granted`},
		{`{"sub":["$${claims.x}/g/a"]}`, `,"x":"share"`, `the grant acl.sub[0] names a shared subscription ("$share"), which cannot be granted`},
		{`{"sub":["a/${sub"]}`, ``, `the grant acl.sub[0] holds "${" without "}"`},
		{`{"sub":["a/${}"]}`, ``, "the grant acl.sub[0] holds an unknown placeholder; ${sub} and ${claims.NAME} are known"},
		{`{"sub":["a/${clientid}"]}`, ``, "the grant acl.sub[0] holds an unknown placeholder; ${sub} and ${claims.NAME} are known"},
		{`{"sub":["a/${claims.x}"]}`, ``, `the grant acl.sub[0] asks for the claim "x", which the token does not have`},
		{`{"sub":["a/${claims.x.y}"]}`, `,"x":{"y":"z"}`, `the grant acl.sub[0] asks for the claim "x.y", which the token does not have`},
		{`{"sub":["a/${claims.x}"]}`, `,"x":5`, `the grant acl.sub[0] asks for the claim "x", which is not a string`},
		{`{"sub":["a/${claims.x}"]}`, `,"x":""`, `the grant acl.sub[0] asks for the claim "x", which is empty`},
		{`{"sub":["a/${claims.x}"]}`, `,"x":"b/c"`, `the grant acl.sub[0] asks for the claim "x", ` + control},
		{`{"sub":["a/${claims.x}"]}`, `,"x":"+"`, `the grant acl.sub[0] asks for the claim "x", ` + control},
		{`{"sub":["a/${claims.x}"]}`, `,"x":"#"`, `the grant acl.sub[0] asks for the claim "x", ` + control},
		{`{"sub":["a/${claims.x}"]}`, `,"x":"b\u0000"`, `the grant acl.sub[0] asks for the claim "x", ` + control},
		{`{"sub":["a/${claims.x}"]}`, `,"x":"b\n"`, `the grant acl.sub[0] asks for the claim "x", ` + control},
		{`{"sub":["${claims.x}/#"]}`, `,"x":"$SYS"`, `the grant acl.sub[0] begins with a placeholder whose value begins with "$"`},
	}
	for _, row := range rows {
		t.Run(row.acl+row.more, func(t *testing.T) {
			_, err := authenticator(t, auth.Issuer{Secret: secret}).Token(aclToken(row.acl, row.more))
			wantFault(t, err, fault.TokenInvalid, row.refused)
		})
	}
}

func TestACLBounds(t *testing.T) {
	a := withOptions(t, auth.Options{Issuers: []auth.Issuer{{Secret: secret}}, Now: now, MaxGrants: 3, Limits: mqtt.Limits{Bytes: 9, Levels: 3}})
	for acl, refused := range map[string]string{
		`{"pub":["a"],"sub":["b"],"all":["c"]}`:     "",
		`{"pub":["a"],"sub":["b"],"all":["c","d"]}`: `the token holds more than 3 grants`,
		`{"sub":["a/b/c","a/b/${sub}"]}`:            "",
		`{"sub":["a/b/c/d"]}`:                       `the grant acl.sub[0] has 4 levels, more than 3`,
		`{"sub":["aaa/b/${sub}"]}`:                  `the grant acl.sub[0] has 10 bytes, more than 9`,
	} {
		checkToken(t, a, aclToken(acl, ""), refused)
	}
}

func FuzzClaims(f *testing.F) {
	f.Add(good)
	f.Add(`{"sub":"$x","exp":4000000000,"acl":{"all":["a/${sub}/#","${claims.sub}"]}}`)
	f.Add(`{"sub":"a","exp":4000000000,"jti":"x","scope":"mqtt:pub:a/%23 mqtt:sub:${sub}","authorization_details":[{"type":"mqtt","actions":["publish"],"topics":["b/+"]}]}`)
	f.Add(`{"sub":"a","exp":1e9,"nbf":0.1,"iat":-0,"aud":["a"],"scope":"a","authorization_details":[{}]}`)
	f.Add(`{"sub":"a","exp":4000000000,"acl":{"pub":["$share/a/b"],"sub":[1]}}`)
	a := authenticator(f, auth.Issuer{Secret: secret})
	f.Fuzz(func(t *testing.T, claims string) {
		p, err := a.Token(hs(hs256, claims))
		if err != nil {
			if !fault.Is(err, fault.TokenInvalid) && !fault.Is(err, fault.TokenExpired) {
				t.Fatalf("claims %q: %v has the wrong code", claims, err)
			}
			return
		}
		if p.Subject == "" || !clock.Before(p.Ends) {
			t.Fatalf("claims %q are good for %+v", claims, p)
		}
		for _, filter := range append(p.Grants.Pub, p.Grants.Sub...) {
			if _, err := mqtt.ParseFilter(string(filter), mqtt.Limits{}); err != nil || strings.HasPrefix(string(filter), "$share") && (len(filter) == 6 || filter[6] == '/') {
				t.Fatalf("claims %q grant %q: %v", claims, filter, err)
			}
		}
	})
}
