package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// The tokens of these tests are put together by hand with the standard library's
// primitives, so that they can be wrong in every way and do not depend on the
// library that verifies them.

// clock is the time in all tests here.
var clock = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func now() time.Time { return clock }

var secret = []byte("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef") // 64 bytes

// good are claims that every check passes.
var good = fmt.Sprintf(`{"sub":"dash","exp":%d,"acl":{"sub":["pets/#"]}}`, clock.Unix()+3600)

const hs256 = `{"alg":"HS256"}`

// keys are made once: RSA keys are slow to make.
var keys = sync.OnceValue(func() (k struct {
	rsa, rsaOther, rsaShort *rsa.PrivateKey
	p224, p256, p384, p521  *ecdsa.PrivateKey
	ed                      ed25519.PrivateKey
}) {
	k.rsa, k.rsaOther, k.rsaShort = must(rsa.GenerateKey(rand.Reader, 2048)), must(rsa.GenerateKey(rand.Reader, 2048)), must(rsa.GenerateKey(rand.Reader, 1024))
	k.p224 = must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	k.p256 = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	k.p384 = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	k.p521 = must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	_, k.ed, _ = ed25519.GenerateKey(rand.Reader)
	return k
})

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// hs signs header and claims with HS256.
func hs(header, claims string) string { return signed("HS256", secret, header, claims) }

// signed puts a token together; alg is how it is signed, whatever the header says.
func signed(alg string, key any, header, claims string) string {
	text := b64([]byte(header)) + "." + b64([]byte(claims))
	return text + "." + b64(signature(alg, key, []byte(text)))
}

func signature(alg string, key any, text []byte) []byte {
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[alg[2:]]
	var sum []byte
	if hash != 0 {
		h := hash.New()
		h.Write(text)
		sum = h.Sum(nil)
	}
	switch k := key.(type) {
	case []byte:
		mac := hmac.New(hash.New, k)
		mac.Write(text)
		return mac.Sum(nil)
	case *rsa.PrivateKey:
		if alg[:2] == "PS" {
			return must(rsa.SignPSS(rand.Reader, k, hash, sum, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
		}
		return must(rsa.SignPKCS1v15(nil, k, hash, sum))
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, k, sum)
		if err != nil {
			panic(err)
		}
		size := (k.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	case ed25519.PrivateKey:
		return ed25519.Sign(k, text)
	}
	panic("no such key")
}

// pemOf is the public key of a private one as PEM.
func pemOf(private crypto.Signer) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(private.Public()))})
}

// authenticator makes one from issuers, with the tests' clock.
func authenticator(t testing.TB, issuers ...auth.Issuer) *auth.Authenticator {
	t.Helper()
	return withOptions(t, auth.Options{Issuers: issuers, Now: now})
}

func withOptions(t testing.TB, o auth.Options) *auth.Authenticator {
	t.Helper()
	a, err := auth.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// wantFault checks the code and the whole text of a failure.
func wantFault(t *testing.T, err error, code fault.Code, detail string) {
	t.Helper()
	if !fault.Is(err, code) {
		t.Fatalf("error is %v, want code %s", err, code)
	}
	if got := fault.From(err).Detail; got != detail {
		t.Fatalf("detail is\n     %q\nwant %q", got, detail)
	}
}

func filters(s ...string) (f []mqtt.Filter) {
	for _, s := range s {
		f = append(f, must(mqtt.ParseFilter(s, mqtt.Limits{})))
	}
	return f
}

func wantFilters(t *testing.T, what string, got []mqtt.Filter, want ...string) {
	t.Helper()
	if !slices.Equal(got, filters(want...)) {
		t.Errorf("%s is %q, want %q", what, got, want)
	}
}
