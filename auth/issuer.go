package auth

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"flyscreen/gateway/fault"
)

// secretBytes are the algorithms for a shared secret and how long it must be at
// least: RFC 7518 section 3.2, "A key of the same size as the hash output [...]
// or larger MUST be used".
var secretBytes = map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}

// keyAlgorithms are the algorithms for public keys.
var keyAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// issuer is an Issuer that was checked: it has a secret, keys, or the address of
// keys.
type issuer struct {
	name     string
	audience []string
	// configured are the algorithms that the operator listed; none: what fits.
	configured []string
	remote     *remoteKeys // nil for what comes from files

	// material is what signatures are checked with; nil until a remote set has come.
	material atomic.Pointer[material]
}

// material is what an issuer's signatures are checked with at one moment. It is
// not changed afterwards.
type material struct {
	secret     []byte
	keys       keySet
	algorithms []string
}

// newIssuer returns all complaints about o; the issuer is usable if there are none.
func newIssuer(o Issuer, f fetcher) (i *issuer, complaints []error) {
	i = &issuer{name: o.Name, audience: slices.Clone(o.Audience), configured: slices.Clone(o.Algorithms)}
	var sources []string
	for _, source := range []struct {
		name string
		has  bool
	}{{"a secret", len(o.Secret) > 0}, {"keys", len(o.Keys) > 0}, {"a key set's URL", o.JWKSURL != ""}, {"an OpenID provider's URL", o.OIDC != ""}} {
		if source.has {
			sources = append(sources, source.name)
		}
	}
	switch {
	case len(sources) == 0:
		return i, []error{errors.New("has neither a secret nor keys")}
	case len(sources) > 1:
		return i, []error{fmt.Errorf("has both %s; it must have one of them", strings.Join(sources, " and "))}
	case o.JWKSURL != "" || o.OIDC != "":
		return i, i.newRemote(o, f)
	}
	m, complaints := newMaterial(o.Secret, o.Keys, i.configured)
	i.material.Store(m)
	return i, complaints
}

// newRemote prepares the key set behind a URL; run fetches it.
func (i *issuer) newRemote(o Issuer, f fetcher) (complaints []error) {
	r := &remoteKeys{address: o.JWKSURL, fetcher: f, wanted: make(chan struct{}, 1)}
	if o.OIDC != "" {
		r.address, r.discover = o.OIDC, true
		if i.name == "" {
			i.name = o.OIDC
		}
		if i.name != o.OIDC {
			complaints = append(complaints, errors.New("is not the OpenID provider's URL; they must be the same, to the letter"))
		}
	}
	r.name = i.name
	if err := checkKeyURL(r.address); err != nil {
		complaints = append(complaints, fmt.Errorf("the URL of its keys %w", err))
	}
	for _, alg := range i.configured {
		if !slices.Contains(keyAlgorithms, alg) {
			complaints = append(complaints, errNotForKeys(alg))
		}
	}
	i.remote = r
	return complaints
}

// setRemote makes what was fetched the issuer's keys.
func (i *issuer) setRemote(set keySet) (lost bool) {
	m := &material{keys: set, algorithms: i.configured}
	if len(m.algorithms) == 0 {
		m.algorithms = keyAlgorithms
	}
	return i.replace(m)
}

// replace swaps the material and reports whether a key or secret that counted is
// gone.
func (i *issuer) replace(m *material) (lost bool) {
	old := i.material.Swap(m)
	if old == nil {
		return false
	}
	if !bytes.Equal(old.secret, m.secret) {
		return true
	}
	return slices.ContainsFunc(old.keys.keys, func(k verifyKey) bool { return !m.keys.holds(k.print, k.id) })
}

// newMaterial checks a secret or the content of a keys file; algorithms are those
// that the operator listed.
func newMaterial(secret, keys []byte, algorithms []string) (m *material, complaints []error) {
	m = &material{secret: slices.Clone(secret), algorithms: slices.Clone(algorithms)}
	if len(secret) > 0 {
		return m, m.checkSecret()
	}
	var err error
	if m.keys, err = readKeys(keys); err != nil {
		return m, []error{err}
	}
	return m, m.checkAlgorithms()
}

func errNotForKeys(alg string) error {
	return fmt.Errorf("the algorithm %q is not one for keys (%v)", alg, keyAlgorithms)
}

func (m *material) checkSecret() (complaints []error) {
	if len(m.algorithms) == 0 {
		m.algorithms = []string{"HS256"}
	}
	if bytes.HasPrefix(bytes.TrimSpace(m.secret), []byte("-----BEGIN ")) {
		// Whoever knows a public key could sign with it if it were a secret.
		complaints = append(complaints, errors.New("the secret is a PEM key; give public keys as keys"))
	}
	for _, alg := range m.algorithms {
		least, known := secretBytes[alg]
		switch {
		case !known:
			complaints = append(complaints, fmt.Errorf("the algorithm %q is not one for a secret (HS256, HS384, HS512)", alg))
		case len(m.secret) < least:
			complaints = append(complaints, fmt.Errorf("the secret has %d bytes; %s needs at least %d", len(m.secret), alg, least))
		}
	}
	return complaints
}

func (m *material) checkAlgorithms() (complaints []error) {
	fitting := map[string]bool{}
	for _, k := range m.keys.keys {
		for _, alg := range k.algorithms {
			fitting[alg] = true
		}
	}
	if len(m.algorithms) == 0 {
		for _, alg := range keyAlgorithms {
			if fitting[alg] {
				m.algorithms = append(m.algorithms, alg)
			}
		}
	}
	for _, alg := range m.algorithms {
		switch {
		case !slices.Contains(keyAlgorithms, alg):
			complaints = append(complaints, errNotForKeys(alg))
		case !fitting[alg]:
			complaints = append(complaints, fmt.Errorf("no key fits the algorithm %s", alg))
		}
	}
	return complaints
}

// signer is what made a signature: a key or a secret.
type signer struct {
	print digest
	id    string // the key's kid; the token's own where keys have no names
}

// verify checks the token's signature and returns what made it. Which algorithm may be used is decided by the configuration and by the kind
// of the key, never by the token alone. A key that is not known here may be known
// to the issuer's server meanwhile: then verify waits for that, or for ctx.
func (i *issuer) verify(ctx context.Context, c compact) (signer, error) {
	m := i.material.Load()
	by, err := m.verify(c)
	if err == nil || i.remote == nil || m != nil && !errors.Is(err, errUnknownKey) && !errors.Is(err, errNoFit) {
		return by, err
	}
	i.remote.refetch(ctx)
	return i.material.Load().verify(c)
}

// errNoFit is the failure of a token without a kid that no key has signed. A newer
// key set may heal it.
var errNoFit = invalid("the token's signature does not fit")

// verify is issuer.verify with what is there. A nil m has no keys yet.
func (m *material) verify(c compact) (signer, error) {
	if m == nil {
		return signer{}, fault.New(fault.UpstreamUnavailable, "the keys of the token's issuer could not be fetched yet").Retry(retryKeys)
	}
	if !slices.Contains(m.algorithms, c.alg) {
		return signer{}, invalid("the token's algorithm is not allowed for its issuer")
	}
	method := signingMethod(c.alg)
	if method == nil {
		return signer{}, invalid("the token's algorithm is not known")
	}
	if len(m.secret) > 0 {
		if method.Verify(c.signed, c.signature, m.secret) != nil {
			return signer{}, invalid("the token's signature does not fit")
		}
		return signer{sha256.Sum256(m.secret), c.kid}, nil
	}
	candidates, err := m.keys.pick(c)
	if err != nil {
		return signer{}, err
	}
	for _, k := range candidates {
		if method.Verify(c.signed, c.signature, k.public) == nil {
			if m.keys.byID {
				return signer{k.print, k.id}, nil
			}
			return signer{k.print, c.kid}, nil
		}
	}
	if !c.hasKid && m.keys.byID {
		return signer{}, errNoFit
	}
	return signer{}, invalid("the token's signature does not fit")
}

// signingMethod is the library's, but for RSASSA-PSS, where the library takes salts
// of any length. RFC 7518 section 3.5: "The size of the salt value is the same
// size as the hash function output."
func signingMethod(alg string) jwt.SigningMethod {
	method := jwt.GetSigningMethod(alg)
	if pss, is := method.(*jwt.SigningMethodRSAPSS); is {
		return &jwt.SigningMethodRSAPSS{SigningMethodRSA: pss.SigningMethodRSA, Options: pss.Options}
	}
	return method
}

// holds reports whether what signed a token still counts.
func (m *material) holds(by signer) bool {
	switch {
	case m == nil:
		return false
	case len(m.secret) > 0:
		return by.print == sha256.Sum256(m.secret)
	}
	return slices.ContainsFunc(m.keys.keys, func(k verifyKey) bool {
		return k.print == by.print && (!m.keys.byID || k.id == by.id)
	})
}

// retryKeys is what a client is told whose issuer's keys are not there yet.
const retryKeys = 5 * time.Second

// algorithmsFor returns the algorithms that a public key fits, or why there are
// none.
func algorithmsFor(public any) ([]string, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 || bits > 16384 {
			return nil, fmt.Errorf("is an RSA key of %d bits; 2048 to 16384 are accepted", bits)
		}
		if isROCA(k.N) {
			return nil, errors.New("is an RSA key whose private half can be computed (ROCA, CVE-2017-15361)")
		}
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, nil
	case *ecdsa.PublicKey:
		alg, known := map[string]string{"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}[k.Curve.Params().Name]
		if !known {
			return nil, errors.New("is on a curve that no algorithm here uses (P-256, P-384, P-521)")
		}
		return []string{alg}, nil
	case ed25519.PublicKey:
		return []string{"EdDSA"}, nil
	}
	return nil, errors.New("is neither an RSA, an ECDSA nor an Ed25519 key")
}
