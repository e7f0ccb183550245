package auth_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/mqtt"
)

// Every algorithm verifies with its own key, and nothing else does.
func TestAlgorithms(t *testing.T) {
	k := keys()
	signers := []struct {
		alg string
		key any
	}{
		{"HS256", secret}, {"HS384", secret}, {"HS512", secret},
		{"RS256", k.rsa}, {"RS384", k.rsa}, {"RS512", k.rsa},
		{"PS256", k.rsa}, {"PS384", k.rsa}, {"PS512", k.rsa},
		{"ES256", k.p256}, {"ES384", k.p384}, {"ES512", k.p521}, {"EdDSA", k.ed},
	}
	for _, want := range signers {
		issuer := auth.Issuer{Algorithms: []string{want.alg}}
		if s, ok := want.key.([]byte); ok {
			issuer.Secret = s
		} else {
			issuer.Keys = pemOf(want.key.(crypto.Signer))
		}
		a := authenticator(t, issuer)
		for _, got := range signers {
			t.Run(want.alg+" given "+got.alg, func(t *testing.T) {
				refused := "the token's algorithm is not allowed for its issuer"
				if got.alg == want.alg {
					refused = ""
				}
				checkToken(t, a, signed(got.alg, got.key, fmt.Sprintf(`{"alg":%q}`, got.alg), good), refused)
				if got.alg != want.alg { // now with a header that lies
					checkToken(t, a, signed(got.alg, got.key, fmt.Sprintf(`{"alg":%q}`, want.alg), good), "the token's signature does not fit")
				}
			})
		}
	}
}

func TestDefaultAlgorithms(t *testing.T) {
	k := keys()
	const refused = "the token's algorithm is not allowed for its issuer"
	bySecret := authenticator(t, auth.Issuer{Secret: secret})
	checkToken(t, bySecret, signed("HS256", secret, `{"alg":"HS256"}`, good), "")
	checkToken(t, bySecret, signed("HS512", secret, `{"alg":"HS512"}`, good), refused)
	byKeys := authenticator(t, auth.Issuer{Keys: append(pemOf(k.rsa), pemOf(k.p256)...)})
	for _, alg := range []string{"RS256", "PS512"} {
		checkToken(t, byKeys, signed(alg, k.rsa, fmt.Sprintf(`{"alg":%q}`, alg), good), "")
	}
	checkToken(t, byKeys, signed("ES256", k.p256, `{"alg":"ES256"}`, good), "")
	checkToken(t, byKeys, signed("ES384", k.p384, `{"alg":"ES384"}`, good), refused)
	// The classic: the public key, which everybody has, taken as a secret.
	checkToken(t, byKeys, signed("HS256", pemOf(k.rsa), `{"alg":"HS256"}`, good), refused)
	checkToken(t, byKeys, signed("RS256", k.rsaOther, `{"alg":"RS256"}`, good), "the token's signature does not fit")
}

func TestKeyFiles(t *testing.T) {
	k := keys()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: clock.Add(time.Hour)}
	certificate := must(x509.CreateCertificate(nil, template, template, k.ed.Public(), k.ed))
	for name, text := range map[string][]byte{
		"PKIX":            pemOf(k.ed),
		"certificate":     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		"text around PEM": append(append([]byte("the key of 2026:\n"), pemOf(k.ed)...), "\nthat was it\n"...),
		"second of two":   append(pemOf(k.p256), pemOf(k.ed)...),
		"JWKS":            jwks(jwk(k.ed.Public(), "")),
	} {
		t.Run(name, func(t *testing.T) {
			checkToken(t, authenticator(t, auth.Issuer{Keys: text}), signed("EdDSA", k.ed, `{"alg":"EdDSA"}`, good), "")
		})
	}
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&k.rsa.PublicKey)})
	checkToken(t, authenticator(t, auth.Issuer{Keys: pkcs1}), signed("RS256", k.rsa, `{"alg":"RS256"}`, good), "")
}

// jwk writes a public key as a JWK; more is further members, with a comma first.
func jwk(public crypto.PublicKey, more string) string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf(`{"kty":"RSA","n":%q,"e":%q%s}`, b64(k.N.Bytes()), b64(big.NewInt(int64(k.E)).Bytes()), more)
	case *ecdsa.PublicKey:
		point := must(k.Bytes())[1:]
		return fmt.Sprintf(`{"kty":"EC","crv":%q,"x":%q,"y":%q%s}`, k.Params().Name, b64(point[:len(point)/2]), b64(point[len(point)/2:]), more)
	case ed25519.PublicKey:
		return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","x":%q%s}`, b64(k), more)
	}
	panic("no such key")
}

func jwks(keys ...string) []byte { return []byte(`{"keys":[` + strings.Join(keys, ",") + `]}`) }

func TestKeyByID(t *testing.T) {
	k := keys()
	a := authenticator(t, auth.Issuer{Keys: jwks(
		jwk(&k.rsa.PublicKey, `,"kid":"one","use":"sig","key_ops":["verify"]`),
		jwk(&k.rsaOther.PublicKey, `,"kid":"two"`),
		jwk(&k.p256.PublicKey, `,"kid":"ec","alg":"ES256"`),
		jwk(&k.p384.PublicKey, ``),
		jwk(&k.p521.PublicKey, `,"kid":"enc","use":"enc"`), // as providers publish them, of no use here
		jwk(&k.p521.PublicKey, `,"kid":"ops","key_ops":["encrypt"]`),
		`{"kty":"OKP","crv":"X25519","x":"AA"}`, `{"kty":"new"}`,
	)})
	const (
		unknown = "the token names a key that its issuer does not have"
		unfit   = "the token names a key that does not fit its algorithm"
		forged  = "the token's signature does not fit"
	)
	for _, row := range []struct {
		alg, kid string
		key      any
		refused  string
	}{
		{"RS256", `"one"`, k.rsa, ""},
		{"RS256", `"two"`, k.rsaOther, ""},
		{"RS256", `"two"`, k.rsa, forged},
		{"RS256", `"three"`, k.rsa, unknown},
		{"RS256", `""`, k.rsa, unknown},
		{"RS256", `"One"`, k.rsa, unknown},
		{"RS256", `"ec"`, k.rsa, unfit},
		{"RS256", ``, k.rsa, ""}, // no name: all that fit are tried
		{"RS256", ``, k.rsaOther, ""},
		{"ES256", `"ec"`, k.p256, ""},
		{"ES384", ``, k.p384, ""},
		{"ES384", `"x"`, k.p384, unknown},
		{"ES512", ``, k.p521, "the token's algorithm is not allowed for its issuer"},
	} {
		t.Run(row.alg+row.kid, func(t *testing.T) {
			header := fmt.Sprintf(`{"alg":%q}`, row.alg)
			if row.kid != "" {
				header = fmt.Sprintf(`{"alg":%q,"kid":%s}`, row.alg, row.kid)
			}
			checkToken(t, a, signed(row.alg, row.key, header, good), row.refused)
		})
	}
}

// A JWK's alg binds the key to it.
func TestKeyBoundToAlgorithm(t *testing.T) {
	k := keys()
	a := authenticator(t, auth.Issuer{Keys: jwks(jwk(&k.rsa.PublicKey, `,"alg":"PS256"`))})
	checkToken(t, a, signed("PS256", k.rsa, `{"alg":"PS256"}`, good), "")
	checkToken(t, a, signed("RS256", k.rsa, `{"alg":"RS256"}`, good), "the token's algorithm is not allowed for its issuer")
}

func TestChoiceOfIssuer(t *testing.T) {
	other := []byte(strings.Repeat("another secret, ", 2))
	a := authenticator(t,
		auth.Issuer{Name: "https://a.example", Secret: secret, Audience: []string{"gw", "gateway"}},
		auth.Issuer{Secret: other},
		auth.Issuer{Name: "https://b.example", Keys: pemOf(keys().ed)},
	)
	claims := func(more string) string { return `{` + more + `,` + good[1:] }
	const forged = "the token's signature does not fit"
	for _, row := range []struct {
		key     []byte
		more    string
		refused string
	}{
		{secret, `"iss":"https://a.example","aud":"gw"`, ""},
		{secret, `"iss":"https://a.example","aud":["x","gateway"]`, ""},
		{secret, `"iss":"https://a.example","aud":["x","Gateway"]`, "the token is meant for another audience"},
		{secret, `"iss":"https://a.example","aud":[]`, `the member "aud" is missing`},
		{secret, `"iss":"https://a.example"`, `the member "aud" is missing`},
		{other, `"iss":"https://a.example","aud":"gw"`, forged}, // no second try with the rest
		{secret, `"iss":"https://a.example/","aud":"gw"`, forged},
		{other, `"iss":"https://a.example/"`, ""},
		{other, `"iss":""`, ""},
		{other, `"Iss":"https://a.example"`, ""},
		{other, `"aud":"anybody"`, ""},
		{secret, `"aud":"gw"`, forged},
		{other, `"iss":"https://b.example"`, "the token's algorithm is not allowed for its issuer"},
	} {
		t.Run(row.more, func(t *testing.T) {
			checkToken(t, a, signed("HS256", row.key, hs256, claims(row.more)), row.refused)
		})
	}
	named := authenticator(t, auth.Issuer{Name: "https://a.example", Secret: secret})
	checkToken(t, named, hs(hs256, claims(`"iss":"https://a.example"`)), "")
	checkToken(t, named, hs(hs256, good), "the token's issuer is not known here")
	checkToken(t, authenticator(t), hs(hs256, good), "the token's issuer is not known here")
}

// Each row is a configuration that New refuses; the controls are all the other
// tests of this file, which use its neighbours.
func TestNewRefuses(t *testing.T) {
	k := keys()
	rsaKey := jwk(&k.rsa.PublicKey, "")
	block := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }
	x25519 := must(x509.MarshalPKIXPublicKey(must(ecdh.X25519().GenerateKey(rand.Reader)).PublicKey()))
	var parsed map[string]string
	if err := json.Unmarshal([]byte(jwk(&k.p256.PublicKey, "")), &parsed); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		issuer auth.Issuer
		want   string
	}{
		{auth.Issuer{}, `has neither a secret nor keys`},
		{auth.Issuer{Secret: secret, Keys: pemOf(k.rsa)}, `has both a secret and keys; it must have one of them`},
		{auth.Issuer{Secret: secret[:31]}, `the secret has 31 bytes; HS256 needs at least 32`},
		{auth.Issuer{Secret: secret[:47], Algorithms: []string{"HS384"}}, `the secret has 47 bytes; HS384 needs at least 48`},
		{auth.Issuer{Secret: secret[:63], Algorithms: []string{"HS512"}}, `the secret has 63 bytes; HS512 needs at least 64`},
		{auth.Issuer{Secret: secret, Algorithms: []string{"none"}}, `the algorithm "none" is not one for a secret (HS256, HS384, HS512)`},
		{auth.Issuer{Secret: secret, Algorithms: []string{"RS256"}}, `the algorithm "RS256" is not one for a secret (HS256, HS384, HS512)`},
		{auth.Issuer{Secret: pemOf(k.rsa)}, `the secret is a PEM key; give public keys as keys`},
		{auth.Issuer{Keys: pemOf(k.rsa), Algorithms: []string{"HS256"}}, `the algorithm "HS256" is not one for keys (`},
		{auth.Issuer{Keys: pemOf(k.p256), Algorithms: []string{"ES256", "ES384"}}, `no key fits the algorithm ES384`},
		{auth.Issuer{Keys: pemOf(k.rsaShort)}, `PEM block 1: the key is an RSA key of 1024 bits; 2048 to 16384 are accepted`},
		{auth.Issuer{Keys: pemOf(k.p224)}, `PEM block 1: the key is on a curve that no algorithm here uses (P-256, P-384, P-521)`},
		{auth.Issuer{Keys: block("PUBLIC KEY", x25519)}, `PEM block 1: the key is neither an RSA, an ECDSA nor an Ed25519 key`},
		{auth.Issuer{Keys: block("CERTIFICATE", []byte("x"))}, `PEM block 1: x509`},
		{auth.Issuer{Keys: bytes.Repeat(pemOf(k.ed), 101)}, `the keys are more than 100`},
		{auth.Issuer{Keys: jwks(`{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}`)}, `the JWKS document holds no key for verifying signatures`},
		{auth.Issuer{Keys: []byte("hello")}, `the keys are neither PEM nor a JWKS document`},
		{auth.Issuer{Keys: append(pemOf(k.ed), "-----BEGIN PUBLIC KEY-----\nAA"...)}, `PEM block 2 of 2 is damaged`},
		{auth.Issuer{Keys: block("PUBLIC KEY", []byte("x"))}, `PEM block 1: asn1`},
		{auth.Issuer{Keys: block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(k.ed)))}, `PEM block 1: is a private key; only the public one belongs here`},
		{auth.Issuer{Keys: block("X25519 THING", nil)}, `PEM block 1: is of the type "X25519 THING"; a public key or a certificate is needed`},
		{auth.Issuer{Keys: []byte(`{"keys":[]}`)}, `the JWKS document holds no key for verifying signatures`},
		{auth.Issuer{Keys: []byte(`{"keys":[]`)}, `the JWKS document is not valid JSON`},
		{auth.Issuer{Keys: []byte(`{"keys":{}}`)}, `the JWKS document has no array "keys"`},
		{auth.Issuer{Keys: []byte(rsaKey)}, `the keys are a single JWK; write {"keys":[…]} around it`},
		{auth.Issuer{Keys: jwks(`1`)}, `key 1 of the JWKS document is not an object`},
		{auth.Issuer{Keys: jwks(jwk(&k.rsa.PublicKey, `,"kid":"a"`), jwk(k.ed.Public(), `,"kid":"a"`))}, `key 2 of the JWKS document has the "kid" of an earlier one`},
		{auth.Issuer{Keys: jwks(jwk(&k.rsa.PublicKey, `,"kid":"a","use":"enc"`), jwk(k.ed.Public(), `,"kid":"a"`))}, `key 2 of the JWKS document has the "kid" of an earlier one`},
		{auth.Issuer{Keys: jwks(jwk(&k.rsa.PublicKey, `,"kid":1`))}, `key 1 of the JWKS document has a member "kid" that is not a string`},
		{auth.Issuer{Keys: jwks(jwk(&k.rsa.PublicKey, `,"use":"enc"`))}, `the JWKS document holds no key for verifying signatures`},
		{auth.Issuer{Keys: jwks(jwk(&k.rsa.PublicKey, `,"key_ops":["sign"]`))}, `the JWKS document holds no key for verifying signatures`},
		{auth.Issuer{Keys: jwks(jwk(&k.rsa.PublicKey, `,"key_ops":"verify"`))}, `key 1 of the JWKS document has "key_ops" that is not an array of strings`},
		{auth.Issuer{Keys: jwks(jwk(&k.rsa.PublicKey, `,"alg":"ES256"`))}, `key 1 of the JWKS document does not fit its "alg" "ES256"`},
		{auth.Issuer{Keys: jwks(jwk(&k.rsa.PublicKey, `,"d":"AA"`))}, `key 1 of the JWKS document is a private key (it has "d"); only the public one belongs here`},
		{auth.Issuer{Keys: jwks(jwk(&k.rsaShort.PublicKey, ``))}, `key 1 of the JWKS document is an RSA key of 1024 bits; 2048 to 16384 are accepted`},
		{auth.Issuer{Keys: jwks(`{"kty":"oct","k":"AAAA"}`)}, `key 1 of the JWKS document is symmetric; a secret does not belong into a set of public keys`},
		{auth.Issuer{Keys: jwks(`{"kid":"x"}`)}, `key 1 of the JWKS document has no "kty"`},
		{auth.Issuer{Keys: jwks(`{"kty":"RSA","n":"AA"}`)}, `key 1 of the JWKS document has no "e"`},
		{auth.Issuer{Keys: jwks(strings.Replace(rsaKey, `"AQAB"`, `"AQAA"`, 1))}, `key 1 of the JWKS document has an "e" that is no RSA exponent`},
		{auth.Issuer{Keys: jwks(strings.Replace(rsaKey, `"AQAB"`, `"AQ=="`, 1))}, `key 1 of the JWKS document has a member "e" that is not base64url without padding`},
		{auth.Issuer{Keys: jwks(`{"kty":"OKP","crv":"Ed25519","x":"AAAA"}`)}, `key 1 of the JWKS document has 3 bytes in "x" instead of 32`},
		{auth.Issuer{Keys: jwks(fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":%q,"y":%q}`, parsed["x"], parsed["x"]))}, `key 1 of the JWKS document is not a point on its curve`},
		{auth.Issuer{Keys: jwks(fmt.Sprintf(`{"kty":"EC","crv":"P-384","x":%q,"y":%q}`, parsed["x"], parsed["y"]))}, `key 1 of the JWKS document has 32 bytes in "x" instead of 48`},
		{auth.Issuer{Keys: []byte(`{"x":"` + strings.Repeat("x", 1<<20) + `"}`)}, `the keys have more than 1048576 bytes`},
	} {
		row.issuer.Name = "https://a.example"
		t.Run(row.want, func(t *testing.T) {
			_, err := auth.New(auth.Options{Issuers: []auth.Issuer{{Secret: secret}, row.issuer}})
			want := `issuer 2 ("https://a.example"): ` + row.want
			if err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Fatalf("error is\n     %v\nwant %s", err, want)
			}
		})
	}
}

func TestNewTellsEverything(t *testing.T) {
	_, err := auth.New(auth.Options{
		Issuers:       []auth.Issuer{{Name: "a", Secret: secret[:5], Algorithms: []string{"none", "HS256"}}, {Name: "a", Keys: []byte("x")}},
		Anonymous:     auth.Grants{Pub: []mqtt.Filter{"a/#/b"}, Sub: []mqtt.Filter{"ok/#", "$share/g/a"}},
		MaxTokenBytes: -1, MaxGrants: -1, Leeway: -1,
	})
	want := `the bound of a token's bytes is negative
the bound of a token's grants is negative
the leeway is negative
anonymous grant "a/#/b": "#" must be the last level
anonymous grant "$share/g/a": names a shared subscription ("$share"), which cannot be granted
issuer 1 ("a"): the algorithm "none" is not one for a secret (HS256, HS384, HS512)
issuer 1 ("a"): the secret has 5 bytes; HS256 needs at least 32
issuer 2 ("a"): has the name of an earlier issuer, so it would never be reached
issuer 2 ("a"): the keys are neither PEM nor a JWKS document`
	if err == nil || err.Error() != want {
		t.Fatalf("error is\n%v\nwant\n%s", err, want)
	}
}
