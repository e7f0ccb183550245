package auth_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
)

// jose4 signs claims with another library than the one that verifies here. headers
// are further members of the header.
func jose4(t testing.TB, alg jose.SignatureAlgorithm, key any, claims string, headers ...any) string {
	t.Helper()
	options := &jose.SignerOptions{}
	for i := 0; i < len(headers); i += 2 {
		options = options.WithHeader(jose.HeaderKey(headers[i].(string)), headers[i+1])
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	return must(must(signer.Sign([]byte(claims))).CompactSerialize())
}

// RFC 8725 (JWT Best Current Practices), section by section: tokens made by
// another library, each kind of attack beside the token that is right.
func TestRFC8725(t *testing.T) {
	k := keys()
	a := authenticator(t,
		auth.Issuer{Name: "https://keys.example", Audience: []string{"flyscreen"}, Keys: jwks(
			jwk(&k.rsa.PublicKey, `,"kid":"rsa"`), jwk(&k.p256.PublicKey, `,"kid":"ec"`), jwk(k.ed.Public(), `,"kid":"ed"`), jwk(&k.rsaOther.PublicKey, `,"kid":"enc","use":"enc"`))},
		auth.Issuer{Name: "https://secret.example", Secret: secret[:32]},
	)
	claims := func(iss, more string) string {
		return fmt.Sprintf(`{"iss":%q,"sub":"dash","aud":"flyscreen","exp":%d,"acl":{"sub":["pets/#"]}%s}`, iss, clock.Unix()+3600, more)
	}
	keyed := claims("https://keys.example", "")
	shared := claims("https://secret.example", "")
	rsaKey := jose.JSONWebKey{Key: k.rsa, KeyID: "rsa"}
	parts := strings.Split(jose4(t, jose.RS256, rsaKey, keyed), ".")
	attacker := ed25519.NewKeyFromSeed(make([]byte, 32))
	encrypter := must(jose.NewEncrypter(jose.A128GCM, jose.Recipient{Algorithm: jose.RSA_OAEP_256, Key: &k.rsa.PublicKey}, nil))
	for _, row := range []struct{ section, what, token, refused string }{
		{"2.1", "control, RS256", jose4(t, jose.RS256, rsaKey, keyed), ""},
		{"2.1", "control, PS256", jose4(t, jose.PS256, rsaKey, keyed), ""},
		{"2.1", "control, ES256", jose4(t, jose.ES256, jose.JSONWebKey{Key: k.p256, KeyID: "ec"}, keyed), ""},
		{"2.1", "control, EdDSA without kid", jose4(t, jose.EdDSA, k.ed, keyed), ""},
		{"2.1", "control, HS256", jose4(t, jose.HS256, secret[:32], shared), ""},
		{"2.1", "none", b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".", "the token's signature is empty"},
		{"2.1", "none with a signature", b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + "." + parts[2], "the token's algorithm is not allowed for its issuer"},
		{"2.1", "nOnE", b64([]byte(`{"alg":"nOnE"}`)) + "." + parts[1] + "." + parts[2], "the token's algorithm is not allowed for its issuer"},
		{"2.1, 3.1", "the public key as a secret (PEM)", jose4(t, jose.HS256, pemOf(k.rsa), keyed), "the token's algorithm is not allowed for its issuer"},
		{"2.1, 3.1", "the public key as a secret (modulus)", jose4(t, jose.HS256, jose.JSONWebKey{Key: k.rsa.N.Bytes(), KeyID: "rsa"}, keyed), "the token's algorithm is not allowed for its issuer"},
		{"3.1", "an algorithm of another kind of key", jose4(t, jose.ES256, jose.JSONWebKey{Key: k.p256, KeyID: "rsa"}, keyed), "the token names a key that does not fit its algorithm"},
		{"3.1", "an algorithm that the issuer does not use", jose4(t, jose.HS512, secret, shared), "the token's algorithm is not allowed for its issuer"},
		{"3.2", "a key for encryption", jose4(t, jose.RS256, jose.JSONWebKey{Key: k.rsaOther, KeyID: "enc"}, keyed), "the token names a key that its issuer does not have"},
		{"2.5, 3.3", "a token in a token", jose4(t, jose.RS256, rsaKey, keyed, "cty", "JWT"), `the header member "cty" says that another token is inside, which is not supported`},
		{"2.4, 3.3", "encrypted", must(must(encrypter.Encrypt([]byte(keyed))).CompactSerialize()), "the token does not have three parts with dots between them"},
		{"2.4", "JSON serialization", must(must(jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: k.rsa}, nil)).Sign([]byte(keyed))).FullSerialize(), "the token does not have three parts with dots between them"},
		{"3.6", "compressed", jose4(t, jose.RS256, rsaKey, keyed, "zip", "DEF"), `the header member "zip" is not supported`},
		{"2.6, 3.7", "claims that are not UTF-8", jose4(t, jose.RS256, rsaKey, strings.Replace(keyed, "dash", "da\xffsh", 1)), "the token's claims part is not valid UTF-8"},
		{"2.6", "a member twice", jose4(t, jose.RS256, rsaKey, strings.Replace(keyed, "{", `{"sub":"root",`, 1)), "the token's claims part has two members of the same name"},
		{"2.7, 3.8", "another issuer's name", jose4(t, jose.HS256, secret[:32], keyed), "the token's algorithm is not allowed for its issuer"},
		{"2.7, 3.8", "an unknown issuer", jose4(t, jose.RS256, rsaKey, claims("https://evil.example", "")), "the token's issuer is not known here"},
		{"2.7, 3.8", "no issuer", jose4(t, jose.RS256, rsaKey, `{"sub":"dash","exp":4000000000}`), "the token's issuer is not known here"},
		{"2.8, 3.9", "another audience", jose4(t, jose.RS256, rsaKey, strings.Replace(keyed, `"flyscreen"`, `"shop"`, 1)), "the token is meant for another audience"},
		{"2.8, 3.9", "no audience", jose4(t, jose.RS256, rsaKey, strings.Replace(keyed, `"aud"`, `"and"`, 1)), `the member "aud" is missing`},
		{"3.8", "no subject", jose4(t, jose.RS256, rsaKey, strings.Replace(keyed, `"sub":"dash"`, `"name":"dash"`, 1)), `the member "sub" is missing`},
		{"2.9, 3.10", "a key of the token's own (jwk)", jose4(t, jose.EdDSA, attacker, keyed, "jwk", jose.JSONWebKey{Key: attacker.Public()}), "the token's signature does not fit"},
		{"2.9, 3.10", "a place of the token's own (jku)", jose4(t, jose.EdDSA, attacker, keyed, "jku", "http://127.0.0.1:1/keys"), "the token's signature does not fit"},
		{"2.9, 3.10", "a certificate of the token's own (x5u)", jose4(t, jose.EdDSA, attacker, keyed, "x5u", "http://127.0.0.1:1/cert"), "the token's signature does not fit"},
		{"2.9, 3.10", "a kid that is a path", jose4(t, jose.HS256, jose.JSONWebKey{Key: secret[:32], KeyID: "../../dev/null"}, keyed), "the token's algorithm is not allowed for its issuer"},
		{"2.9, 3.10", "a kid that is a query", jose4(t, jose.EdDSA, jose.JSONWebKey{Key: attacker, KeyID: "ed' OR '1'='1"}, keyed), "the token names a key that its issuer does not have"},
		{"2.10, 3.11", "control, at+jwt", jose4(t, jose.RS256, rsaKey, keyed, "typ", "at+jwt"), ""},
		{"2.10, 3.11", "a logout token", jose4(t, jose.RS256, rsaKey, keyed, "typ", "logout+jwt"), `the header member "typ" is neither "JWT" nor "at+jwt"`},
		{"2.10, 3.11", "a proof of possession", jose4(t, jose.RS256, rsaKey, keyed, "typ", "dpop+jwt"), `the header member "typ" is neither "JWT" nor "at+jwt"`},
		{"RFC 7515 4.1.11", "an extension that is critical", jose4(t, jose.RS256, rsaKey, keyed, "crit", []string{"x"}, "x", true), `the header member "crit" asks for extensions that are not supported`},
	} {
		t.Run(row.section+" "+row.what, func(t *testing.T) { checkToken(t, a, row.token, row.refused) })
	}
	// 3.5: a secret that could be guessed is not taken at all.
	for _, weak := range []string{"secret", strings.Repeat("x", 31)} {
		if _, err := auth.New(auth.Options{Issuers: []auth.Issuer{{Secret: []byte(weak)}}}); err == nil {
			t.Errorf("3.5: the secret %q is taken", weak)
		}
	}
}

// What this room signs, another library verifies and reads.
func TestMintedForOthers(t *testing.T) {
	token := must(auth.Mint(secret, auth.Claims{Subject: "dash", Sub: []string{"pets/#"}, TTL: time.Hour, Now: clock}))
	parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.HS256})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := parsed.Verify(secret)
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Sub string
		Exp int64
		ACL struct{ Sub []string }
	}
	if err := json.Unmarshal(payload, &claims); err != nil || claims.Sub != "dash" || claims.Exp != clock.Unix()+3600 || len(claims.ACL.Sub) != 1 {
		t.Errorf("%s, %v", payload, err)
	}
	if _, err := parsed.Verify(secret[1:]); err == nil {
		t.Error("another secret verifies it too")
	}
	if _, err := authenticator(t, auth.Issuer{Secret: secret}).Token(token); fault.Is(err, fault.TokenInvalid) {
		t.Errorf("the room itself: %v", err)
	}
}
