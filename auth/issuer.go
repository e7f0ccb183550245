package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// secretBytes are the algorithms for a shared secret and how long it must be at
// least: RFC 7518 section 3.2, "A key of the same size as the hash output [...]
// or larger MUST be used".
var secretBytes = map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}

// keyAlgorithms are the algorithms for public keys.
var keyAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// issuer is an Issuer that was checked: it has a secret or keys, not both.
type issuer struct {
	name       string
	audience   []string
	algorithms []string
	secret     []byte
	keys       keySet
}

// newIssuer returns all complaints about o; the issuer is usable if there are none.
func newIssuer(o Issuer) (i *issuer, complaints []error) {
	i = &issuer{
		name:       o.Name,
		audience:   slices.Clone(o.Audience),
		algorithms: slices.Clone(o.Algorithms),
		secret:     slices.Clone(o.Secret),
	}
	switch {
	case len(o.Secret) > 0 && len(o.Keys) > 0:
		return i, []error{errors.New("has both a secret and keys; it must have one of them")}
	case len(o.Secret) > 0:
		return i, i.checkSecret()
	case len(o.Keys) > 0:
		var err error
		if i.keys, err = readKeys(o.Keys); err != nil {
			return i, []error{err}
		}
		return i, i.checkAlgorithms()
	}
	return i, []error{errors.New("has neither a secret nor keys")}
}

func (i *issuer) checkSecret() (complaints []error) {
	if len(i.algorithms) == 0 {
		i.algorithms = []string{"HS256"}
	}
	if bytes.HasPrefix(bytes.TrimSpace(i.secret), []byte("-----BEGIN ")) {
		// Whoever knows a public key could sign with it if it were a secret.
		complaints = append(complaints, errors.New("the secret is a PEM key; give public keys as keys"))
	}
	for _, alg := range i.algorithms {
		least, known := secretBytes[alg]
		switch {
		case !known:
			complaints = append(complaints, fmt.Errorf("the algorithm %q is not one for a secret (HS256, HS384, HS512)", alg))
		case len(i.secret) < least:
			complaints = append(complaints, fmt.Errorf("the secret has %d bytes; %s needs at least %d", len(i.secret), alg, least))
		}
	}
	return complaints
}

func (i *issuer) checkAlgorithms() (complaints []error) {
	fitting := map[string]bool{}
	for _, k := range i.keys.keys {
		for _, alg := range k.algorithms {
			fitting[alg] = true
		}
	}
	if len(i.algorithms) == 0 {
		for _, alg := range keyAlgorithms {
			if fitting[alg] {
				i.algorithms = append(i.algorithms, alg)
			}
		}
	}
	for _, alg := range i.algorithms {
		switch {
		case !slices.Contains(keyAlgorithms, alg):
			complaints = append(complaints, fmt.Errorf("the algorithm %q is not one for keys (%v)", alg, keyAlgorithms))
		case !fitting[alg]:
			complaints = append(complaints, fmt.Errorf("no key fits the algorithm %s", alg))
		}
	}
	return complaints
}

// verify checks the token's signature. Which algorithm may be used is decided by
// the configuration and by the kind of the key, never by the token alone.
func (i *issuer) verify(c compact) error {
	if !slices.Contains(i.algorithms, c.alg) {
		return invalid("the token's algorithm is not allowed for its issuer")
	}
	method := jwt.GetSigningMethod(c.alg)
	if method == nil {
		return invalid("the token's algorithm is not known")
	}
	if len(i.secret) > 0 {
		if method.Verify(c.signed, c.signature, i.secret) != nil {
			return invalid("the token's signature does not fit")
		}
		return nil
	}
	candidates, err := i.keys.pick(c)
	if err != nil {
		return err
	}
	for _, k := range candidates {
		if method.Verify(c.signed, c.signature, k.public) == nil {
			return nil
		}
	}
	return invalid("the token's signature does not fit")
}

// algorithmsFor returns the algorithms that a public key fits, or why there are
// none.
func algorithmsFor(public any) ([]string, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 || bits > 16384 {
			return nil, fmt.Errorf("is an RSA key of %d bits; 2048 to 16384 are accepted", bits)
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
