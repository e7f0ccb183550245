package auth_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
)

// Each row breaks one thing in a token that is otherwise good; the rows without a
// reason are the controls and differ from their neighbours in that thing only.
func TestTokenForm(t *testing.T) {
	deep := strings.Repeat("[", 40) + strings.Repeat("]", 40)
	with := func(member string) string { return `{` + member + `,` + good[1:] }
	parts := strings.Split(hs(hs256, good), ".")
	rows := []struct{ name, token, refused string }{
		{"control", hs(hs256, good), ""},
		{"white space around JSON", hs(" "+hs256+"\n", "\t"+good+" "), ""},
		{"empty", "", "the token does not have three parts with dots between them"},
		{"two parts", parts[0] + "." + parts[1], "the token does not have three parts with dots between them"},
		{"four parts", strings.Join(parts, ".") + ".", "the token does not have three parts with dots between them"},
		{"no signature", parts[0] + "." + parts[1] + ".", "the token's signature is empty"},
		{"padding", parts[0] + "=." + parts[1] + "." + parts[2], "the token's header is not base64url without padding"},
		{"line end in base64", parts[0] + "\n." + parts[1] + "." + parts[2], "the token's header is not base64url without padding"},
		{"plain base64 alphabet", "+/+/." + parts[1] + "." + parts[2], "the token's header is not base64url without padding"},
		{"stray last bits", parts[0] + "." + parts[1] + "." + strayBit(parts[2]), "the token's signature is not base64url without padding"},
		{"other signature", parts[0] + "." + parts[1] + "." + b64([]byte("no")), "the token's signature does not fit"},
		{"other claims", parts[0] + "." + b64([]byte(with(`"a":1`))) + "." + parts[2], "the token's signature does not fit"},
		{"header not JSON", hs(`{"alg":"HS256"`, good), "the token's header is not valid JSON"},
		{"header a list", hs(`["HS256"]`, good), "the token's header is not a JSON object"},
		{"header with a tail", hs(hs256+"{}", good), "the token's header is not valid JSON"},
		{"header doubled member", hs(`{"alg":"HS256","alg":"HS256"}`, good), "the token's header has two members of the same name"},
		{"claims a string", hs(hs256, `"x"`), "the token's claims part is not a JSON object"},
		{"claims null", hs(hs256, `null`), "the token's claims part is not a JSON object"},
		{"claims with a tail", hs(hs256, good+"x"), "the token's claims part is not valid JSON"},
		{"claims trailing comma", hs(hs256, strings.TrimSuffix(good, "}")+",}"), "the token's claims part is not valid JSON"},
		{"claims doubled member", hs(hs256, with(`"sub":"root"`)), "the token's claims part has two members of the same name"},
		{"doubled by an escape", hs(hs256, with(`"\u0073ub":"root"`)), "the token's claims part has two members of the same name"},
		{"doubled inside", hs(hs256, with(`"x":[{"y":{"a":1,"a":2}}]`)), "the token's claims part has two members of the same name"},
		{"same name at two levels", hs(hs256, with(`"x":[{"sub":{"sub":1}}]`)), ""},
		{"invalid UTF-8", hs(hs256, with("\"x\":\"\xff\"")), "the token's claims part is not valid UTF-8"},
		{"other UTF-8", hs(hs256, with(`"x":"é𝄞"`)), ""},
		{"half a surrogate pair", hs(hs256, with(`"x":"\ud834"`)), "the token's claims part holds half a surrogate pair, which is no character"},
		{"low half first", hs(hs256, with(`"x":"\uDD1E"`)), "the token's claims part holds half a surrogate pair, which is no character"},
		{"two high halves", hs(hs256, with(`"x":"\ud834\ud834"`)), "the token's claims part holds half a surrogate pair, which is no character"},
		{"a surrogate pair", hs(hs256, with(`"x":"\ud834\uDD1e\u00e9"`)), ""},
		{"an escaped backslash", hs(hs256, with(`"x":"\\ud834"`)), ""},
		{"deep", hs(hs256, with(`"x":`+deep)), "the token's claims part nests too deep"},
		{"less deep", hs(hs256, with(`"x":`+deep[15:65])), ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			checkToken(t, authenticator(t, auth.Issuer{Secret: secret}), row.token, row.refused)
		})
	}
}

// checkToken wants the token of "dash" to pass, or to be refused as invalid.
func checkToken(t *testing.T, a *auth.Authenticator, token, refused string) {
	t.Helper()
	p, err := a.Token(token)
	if refused != "" {
		wantFault(t, err, fault.TokenInvalid, refused)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if p.Subject != "dash" || p.Anonymous {
		t.Fatalf("principal is %+v, want the subject dash", p)
	}
}

// strayBit spells the same bytes with another last character.
func strayBit(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, s[len(s)-1])
	return s[:len(s)-1] + string(alphabet[last|1])
}

func TestTokenHeader(t *testing.T) {
	rows := []struct{ header, refused string }{
		{`{"alg":"HS256"}`, ""},
		{`{}`, `the header member "alg" is missing or not a string`},
		{`{"Alg":"HS256"}`, `the header member "alg" is missing or not a string`},
		{`{"alg":["HS256"]}`, `the header member "alg" is missing or not a string`},
		{`{"alg":"none"}`, "the token's algorithm is not allowed for its issuer"},
		{`{"alg":"hs256"}`, "the token's algorithm is not allowed for its issuer"},
		{`{"alg":"HS512"}`, "the token's algorithm is not allowed for its issuer"},
		{`{"alg":"RS256"}`, "the token's algorithm is not allowed for its issuer"},
		{`{"alg":"HS256","crit":["exp"]}`, `the header member "crit" asks for extensions that are not supported`},
		{`{"alg":"HS256","crit":[]}`, `the header member "crit" asks for extensions that are not supported`},
		{`{"alg":"HS256","Crit":["exp"]}`, ""},
		{`{"alg":"HS256","zip":"DEF"}`, `the header member "zip" is not supported`},
		{`{"alg":"HS256","typ":"JWT"}`, ""},
		{`{"alg":"HS256","typ":"jwt"}`, ""},
		{`{"alg":"HS256","typ":"at+JWT"}`, ""},
		{`{"alg":"HS256","typ":"application/at+jwt"}`, ""},
		{`{"alg":"HS256","typ":"dpop+jwt"}`, `the header member "typ" is neither "JWT" nor "at+jwt"`},
		{`{"alg":"HS256","typ":""}`, `the header member "typ" is neither "JWT" nor "at+jwt"`},
		{`{"alg":"HS256","typ":1}`, `the header member "typ" is neither "JWT" nor "at+jwt"`},
		{`{"alg":"HS256","cty":"json"}`, ""},
		{`{"alg":"HS256","cty":"JWT"}`, `the header member "cty" says that another token is inside, which is not supported`},
		{`{"alg":"HS256","cty":7}`, `the header member "cty" says that another token is inside, which is not supported`},
		{`{"alg":"HS256","kid":"any"}`, ""}, // a secret has no name
		{`{"alg":"HS256","kid":5}`, `the header member "kid" is not a string`},
		{`{"alg":"HS256","jwk":{"kty":"oct","k":"AA"}}`, ""}, // and is not used, or the signature would not fit
	}
	for _, row := range rows {
		t.Run(row.header, func(t *testing.T) {
			checkToken(t, authenticator(t, auth.Issuer{Secret: secret}), hs(row.header, good), row.refused)
		})
	}
}

func TestTokenLength(t *testing.T) {
	token := hs(hs256, good)
	issuers := []auth.Issuer{{Secret: secret}}
	fits := withOptions(t, auth.Options{Issuers: issuers, Now: now, MaxTokenBytes: len(token)})
	checkToken(t, fits, token, "")
	small := withOptions(t, auth.Options{Issuers: issuers, Now: now, MaxTokenBytes: len(token) - 1})
	checkToken(t, small, token, fmt.Sprintf("the token is longer than %d bytes", len(token)-1))
	checkToken(t, fits, strings.Repeat("x", 1<<20), fmt.Sprintf("the token is longer than %d bytes", len(token)))
}

// A verified token is remembered; that must neither outlive its end nor let a
// token in that only looks like it.
func TestRememberedToken(t *testing.T) {
	at := clock
	a := withOptions(t, auth.Options{Issuers: []auth.Issuer{{Secret: secret}}, Now: func() time.Time { return at }})
	token := hs(hs256, good)
	for range 3 {
		checkToken(t, a, token, "")
	}
	parts := strings.Split(token, ".")
	checkToken(t, a, parts[0]+"."+parts[1]+"."+b64([]byte("no")), "the token's signature does not fit")
	at = clock.Add(time.Hour + auth.DefaultLeeway - time.Nanosecond)
	checkToken(t, a, token, "")
	at = clock.Add(time.Hour + auth.DefaultLeeway)
	for range 2 {
		_, err := a.Token(token)
		wantFault(t, err, fault.TokenExpired, "the token expired at 2026-11-22T11:00:00Z")
	}
}

// The oldest is forgotten when there are too many, and verified anew.
func TestRememberedTokensAreBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	a := withOptions(t, auth.Options{Issuers: []auth.Issuer{{Secret: secret}}, Now: now, Metrics: registry})
	check := func(n int) {
		t.Helper()
		p, err := a.Token(hs(hs256, fmt.Sprintf(`{"sub":"s%d","exp":%d}`, n, clock.Unix()+60)))
		if want := fmt.Sprintf("s%d", n); err != nil || p.Subject != want {
			t.Fatalf("subject %q, error %v, want %q", p.Subject, err, want)
		}
	}
	const remembered = 4096
	for n := range remembered + 1 { // the last one takes the place of the first
		check(n)
	}
	check(1)
	check(remembered)
	counted := counters(t, registry)
	if verified, cached := counted["flyscreen_auth_tokens_total verified"], counted["flyscreen_auth_tokens_total cached"]; verified != remembered+1 || cached != 2 {
		t.Errorf("%v verified and %v cached, want %d and 2", verified, cached, remembered+1)
	}
	check(0) // takes the place of 1
	check(1)
	if verified := counters(t, registry)["flyscreen_auth_tokens_total verified"]; verified != remembered+3 {
		t.Errorf("%v verified, want %d", verified, remembered+3)
	}
}

// The same tokens from several sides at once.
func TestConcurrentTokens(t *testing.T) {
	a := authenticator(t, auth.Issuer{Secret: secret})
	errs := make(chan error)
	const sides, each = 4, 1000
	for side := range sides {
		go func() {
			var err error
			for n := range each {
				subject := fmt.Sprintf("s%d", n*(side%2+1)/2)
				token := hs(hs256, fmt.Sprintf(`{"sub":%q,"exp":%d}`, subject, clock.Unix()+60))
				p, tokenErr := a.Token(token)
				if tokenErr != nil || p.Subject != subject {
					err = fmt.Errorf("subject %q, error %w, want subject %q", p.Subject, tokenErr, subject)
				}
			}
			errs <- err
		}()
	}
	for range sides {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add(hs(hs256, good))
	f.Add("..")
	f.Add("e30.e30.AA")
	f.Add(hs(`{"alg":"none"}`, good))
	f.Add(hs(`{"alg":"HS256","x":"\ud834"}`, good))
	a := authenticator(f, auth.Issuer{Secret: secret})
	f.Fuzz(func(t *testing.T, token string) {
		p, err := a.Token(token)
		if err == nil && (p.Subject == "" || p.Ends.IsZero()) {
			t.Fatalf("token %q is good for %+v", token, p)
		}
		if err != nil && !fault.Is(err, fault.TokenInvalid) && !fault.Is(err, fault.TokenExpired) {
			t.Fatalf("token %q: %v has the wrong code", token, err)
		}
	})
}
