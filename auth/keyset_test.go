package auth_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
)

// What must not be used is left out, the rest is.
func TestUnfitRemoteKeys(t *testing.T) {
	a, k := edKey("a"), keys()
	fit := jwk(a.Public(), `,"kid":"fit"`)
	for what, row := range map[string]struct{ unfit, token string }{
		"for encryption":         {jwk(&k.rsa.PublicKey, `,"kid":"x","use":"enc"`), signed("RS256", k.rsa, `{"alg":"RS256","kid":"x"}`, good)},
		"for other operations":   {jwk(&k.rsa.PublicKey, `,"kid":"x","key_ops":["encrypt","wrapKey"]`), signed("RS256", k.rsa, `{"alg":"RS256","kid":"x"}`, good)},
		"RSA of 1024 bits":       {jwk(&k.rsaShort.PublicKey, `,"kid":"x"`), signed("RS256", k.rsaShort, `{"alg":"RS256","kid":"x"}`, good)},
		"symmetric":              {fmt.Sprintf(`{"kty":"oct","kid":"x","k":%q}`, b64(secret)), signed("HS256", secret, `{"alg":"HS256","kid":"x"}`, good)},
		"a private key":          {jwk(edKey("b").Public(), fmt.Sprintf(`,"kid":"x","d":%q`, b64(edKey("b").Seed()))), byKidAt("x", edKey("b"))},
		"one of two of a name":   {jwk(edKey("b").Public(), `,"kid":"x"`) + "," + jwk(edKey("c").Public(), `,"kid":"x"`), byKidAt("x", edKey("b"))},
		"other of two of a name": {jwk(edKey("b").Public(), `,"kid":"x"`) + "," + jwk(edKey("c").Public(), `,"kid":"x"`), byKidAt("x", edKey("c"))},
		"alg of another kind":    {jwk(edKey("b").Public(), `,"kid":"x","alg":"ES256"`), byKidAt("x", edKey("b"))},
		"a kid without end":      {jwk(edKey("b").Public(), `,"kid":"`+strings.Repeat("x", 256)+`"`), byKidAt(strings.Repeat("x", 256), edKey("b"))},
	} {
		t.Run(what, func(t *testing.T) {
			withRemote(t, says(string(jwks(row.unfit, fit))), func(t *testing.T, r *remote) {
				if _, err := r.Bearer(t.Context(), row.token); !fault.Is(err, fault.TokenInvalid) {
					t.Errorf("a token of that key: %v", err)
				}
				r.want(t, "the control", byKid("fit", a), "")
				time.Sleep(20 * time.Minute)
				if n := strings.Count(r.log.String(), "is left out"); n > 1 {
					t.Errorf("it was told %d times: %s", n, r.log)
				}
			})
		})
	}
}

// byKidAt is byKid outside a bubble: good in the year 2000, at which bubbles begin.
func byKidAt(kid string, key ed25519.PrivateKey) string {
	return signed("EdDSA", key, fmt.Sprintf(`{"alg":"EdDSA","kid":%q}`, kid), good)
}

func FuzzKeySet(f *testing.F) {
	f.Add(oneKey("one", edKey("a")), "one")
	f.Add(string(jwks(jwk(&keys().rsa.PublicKey, `,"kid":"one","alg":"RS256"`), `{"kty":"oct","k":"AAAA"}`, jwk(&keys().p256.PublicKey, `,"use":"enc"`))), "one")
	f.Add(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA","kid":"one"},1]}`, "")
	f.Fuzz(func(t *testing.T, text, kid string) {
		a, err := auth.New(auth.Options{Issuers: []auth.Issuer{{Keys: []byte(text)}}, Now: now})
		if err != nil {
			return
		}
		// A key that is not in the set never counts, whatever name it takes.
		token := signed("EdDSA", edKey("z"), fmt.Sprintf(`{"alg":"EdDSA","kid":%s}`, must(json.Marshal(kid))), good)
		if p, err := a.Token(token); err == nil || !fault.Is(err, fault.TokenInvalid) {
			t.Fatalf("%q lets %+v in: %v", text, p, err)
		}
	})
}
