package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// errNotForSignatures marks a key that is right to be in the set but of no use
// here; RFC 7517 section 5 wants such keys ignored.
var errNotForSignatures = errors.New("is not for verifying signatures")

// readJWKS reads a JWK Set (RFC 7517 section 5) that the operator wrote. Keys for
// encryption and of unknown types are left out, since providers publish them in
// the same set; a broken key, a secret one, or one kid for two keys is an accident
// and refused.
func readJWKS(text []byte) (keySet, error) {
	set, unfit, err := parseJWKS(text)
	switch {
	case err != nil:
		return keySet{}, err
	case len(unfit) > 0:
		return keySet{}, unfit[0]
	case len(set.keys) == 0:
		return keySet{}, errNoKeys
	}
	return set, nil
}

var errNoKeys = errors.New("the JWKS document holds no key for verifying signatures")

// parseJWKS reads a JWK Set and leaves out what must not be used: each unfit key
// has its error. Of keys with one kid none is used, because nobody could say which
// of them is meant. The set may come out empty.
func parseJWKS(text []byte) (set keySet, unfit []error, err error) {
	document, err := parseObject(text)
	if err != nil {
		return keySet{}, nil, fmt.Errorf("the JWKS document %w", err)
	}
	list, ok := document["keys"].([]any)
	switch {
	case document["kty"] != nil:
		return keySet{}, nil, errors.New(`the keys are a single JWK; write {"keys":[…]} around it`)
	case !ok:
		return keySet{}, nil, errors.New(`the JWKS document has no array "keys"`)
	case len(list) > maxKeys:
		return keySet{}, nil, fmt.Errorf("the keys are more than %d", maxKeys)
	}
	set.byID = true
	doubled, ids := map[string]bool{}, map[string]bool{}
	for n, v := range list {
		jwk, ok := v.(map[string]any)
		if !ok {
			unfit = append(unfit, fmt.Errorf("key %d of the JWKS document is not an object", n+1))
			continue
		}
		key, err := readJWK(jwk)
		switch {
		case key.hasID && ids[key.id]:
			doubled[key.id] = true
			unfit = append(unfit, fmt.Errorf(`key %d of the JWKS document has the "kid" of an earlier one`, n+1))
		case err == nil:
			set.keys = append(set.keys, key)
		case !errors.Is(err, errNotForSignatures):
			unfit = append(unfit, fmt.Errorf("key %d of the JWKS document %w", n+1, err))
		}
		ids[key.id] = ids[key.id] || key.hasID
	}
	set.keys = slices.DeleteFunc(set.keys, func(k verifyKey) bool { return k.hasID && doubled[k.id] })
	return set, unfit, nil
}

// readJWK reads one key. Its kid is set also when the key is not for signatures.
func readJWK(jwk map[string]any) (k verifyKey, err error) {
	for _, name := range []string{"kty", "kid", "use", "alg", "crv", "n", "e", "x", "y"} {
		if v, present := jwk[name]; present {
			if _, ok := v.(string); !ok {
				return k, fmt.Errorf("has a member %q that is not a string", name)
			}
		}
	}
	k.id, k.hasID = jwk["kid"].(string)
	if len(k.id) > maxKeyIDBytes {
		return k, fmt.Errorf(`has a "kid" of more than %d bytes`, maxKeyIDBytes)
	}
	if jwk["kty"] == "oct" || jwk["k"] != nil {
		return k, errors.New("is symmetric; a secret does not belong into a set of public keys")
	}
	if jwk["d"] != nil {
		return k, errors.New(`is a private key (it has "d"); only the public one belongs here`)
	}
	if use, present := jwk["use"]; present && use != "sig" {
		return k, errNotForSignatures
	}
	if operations, present := jwk["key_ops"]; present {
		list, ok := stringList(operations)
		if !ok {
			return k, errors.New(`has "key_ops" that is not an array of strings`)
		}
		if !slices.Contains(list, "verify") {
			return k, errNotForSignatures
		}
	}
	if k.public, err = jwkPublic(jwk); err != nil {
		return k, err
	}
	if k.algorithms, err = algorithmsFor(k.public); err != nil {
		return k, err
	}
	if k.print, err = fingerprint(k.public); err != nil {
		return k, err
	}
	if alg, present := jwk["alg"].(string); present {
		if !slices.Contains(k.algorithms, alg) {
			return k, fmt.Errorf(`does not fit its "alg" %q`, alg)
		}
		k.algorithms = []string{alg}
	}
	return k, nil
}

// jwkPublic reads the parameters of RFC 7518 section 6 and RFC 8037 section 2.
func jwkPublic(jwk map[string]any) (any, error) {
	switch jwk["kty"] {
	case nil:
		return nil, errors.New(`has no "kty"`)
	case "RSA":
		return jwkRSA(jwk)
	case "EC":
		return jwkEC(jwk)
	case "OKP":
		if jwk["crv"] != "Ed25519" {
			return nil, errNotForSignatures
		}
		x, err := parameter(jwk, "x")
		if err != nil {
			return nil, err
		}
		if len(x) != ed25519.PublicKeySize {
			return nil, fmt.Errorf(`has %d bytes in "x" instead of %d`, len(x), ed25519.PublicKeySize)
		}
		return ed25519.PublicKey(x), nil
	}
	return nil, errNotForSignatures
}

func jwkRSA(jwk map[string]any) (*rsa.PublicKey, error) {
	n, err := parameter(jwk, "n")
	if err != nil {
		return nil, err
	}
	e, err := parameter(jwk, "e")
	if err != nil {
		return nil, err
	}
	exponent := new(big.Int).SetBytes(e)
	if exponent.BitLen() > 31 || exponent.Int64() < 3 || exponent.Bit(0) == 0 {
		return nil, errors.New(`has an "e" that is no RSA exponent`)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}, nil
}

func jwkEC(jwk map[string]any) (*ecdsa.PublicKey, error) {
	var curve elliptic.Curve
	switch jwk["crv"] {
	case "P-256":
		curve = elliptic.P256()
	case "P-384":
		curve = elliptic.P384()
	case "P-521":
		curve = elliptic.P521()
	default:
		return nil, errNotForSignatures
	}
	size := (curve.Params().BitSize + 7) / 8
	point := []byte{4} // SEC 1 section 2.3.3: an uncompressed point
	for _, name := range []string{"x", "y"} {
		coordinate, err := parameter(jwk, name)
		if err != nil {
			return nil, err
		}
		if len(coordinate) != size {
			return nil, fmt.Errorf("has %d bytes in %q instead of %d", len(coordinate), name, size)
		}
		point = append(point, coordinate...)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, errors.New("is not a point on its curve")
	}
	return public, nil
}

func parameter(jwk map[string]any, name string) ([]byte, error) {
	s, ok := jwk[name].(string)
	if !ok {
		return nil, fmt.Errorf("has no %q", name)
	}
	b, err := decodePart(s)
	if err != nil {
		return nil, fmt.Errorf("has a member %q that %w", name, err)
	}
	return b, nil
}
