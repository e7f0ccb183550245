package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	maxKeysBytes = 1 << 20
	maxKeys      = 100 // a token without kid may cost one signature check for each
	// maxKeyIDBytes bounds a kid, which logs and principals carry.
	maxKeyIDBytes = 255
)

// keySet is what a keys file holds.
type keySet struct {
	keys []verifyKey
	// byID is set for a JWKS: a token that names a key by kid gets that one or none.
	// PEM has no names, and a kid does not matter there.
	byID bool
}

type verifyKey struct {
	id         string
	hasID      bool
	public     any      // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	algorithms []string // that it may be used with
	print      digest   // of the public key: two keys of one kid are not one key
}

// fingerprint tells keys apart, whatever their names.
func fingerprint(public any) (digest, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return digest{}, errors.New("cannot be encoded")
	}
	return sha256.Sum256(der), nil
}

// holds reports whether the key of that fingerprint and kid is in the set.
func (s keySet) holds(print digest, id string) bool {
	return slices.ContainsFunc(s.keys, func(k verifyKey) bool { return k.print == print && k.id == id })
}

// readKeys reads the content of a keys file, which is a JWKS document if it
// begins like a JSON object and PEM otherwise.
func readKeys(text []byte) (keySet, error) {
	if len(text) > maxKeysBytes {
		return keySet{}, fmt.Errorf("the keys have more than %d bytes", maxKeysBytes)
	}
	var (
		set keySet
		err error
	)
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		set, err = readJWKS(text)
	} else {
		set, err = readPEM(text)
	}
	if err == nil && len(set.keys) > maxKeys {
		err = fmt.Errorf("the keys are more than %d", maxKeys)
	}
	return set, err
}

// readPEM reads all blocks; text around them is allowed, a block that cannot be
// read is not.
func readPEM(text []byte) (keySet, error) {
	var set keySet
	blocks := bytes.Count(text, []byte("-----BEGIN "))
	if blocks == 0 {
		return keySet{}, errors.New("the keys are neither PEM nor a JWKS document")
	}
	for n := 1; n <= blocks; n++ {
		block, rest := pem.Decode(text)
		if block == nil {
			return keySet{}, fmt.Errorf("PEM block %d of %d is damaged", n, blocks)
		}
		text = rest
		public, err := publicKey(block)
		if err != nil {
			return keySet{}, fmt.Errorf("PEM block %d: %w", n, err)
		}
		algorithms, err := algorithmsFor(public)
		if err != nil {
			return keySet{}, fmt.Errorf("PEM block %d: the key %w", n, err)
		}
		print, err := fingerprint(public)
		if err != nil {
			return keySet{}, fmt.Errorf("PEM block %d: the key %w", n, err)
		}
		set.keys = append(set.keys, verifyKey{public: public, algorithms: algorithms, print: print})
	}
	return set, nil
}

func publicKey(block *pem.Block) (any, error) {
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return certificate.PublicKey, nil
	}
	if strings.HasSuffix(block.Type, "PRIVATE KEY") {
		return nil, errors.New("is a private key; only the public one belongs here (openssl pkey -pubout)")
	}
	return nil, fmt.Errorf("is of the type %q; a public key or a certificate is needed", block.Type)
}

// errUnknownKey is what a newer key set may heal.
var errUnknownKey = invalid("the token names a key that its issuer does not have")

// pick returns the keys that the token's signature may be from.
func (s keySet) pick(c compact) ([]verifyKey, error) {
	var fitting []verifyKey
	named := false
	for _, k := range s.keys {
		if s.byID && c.hasKid && (!k.hasID || k.id != c.kid) {
			continue
		}
		named = true
		if slices.Contains(k.algorithms, c.alg) {
			fitting = append(fitting, k)
		}
	}
	switch {
	case !named:
		return nil, errUnknownKey
	case len(fitting) == 0:
		return nil, invalid("the token names a key that does not fit its algorithm")
	}
	return fitting, nil
}
