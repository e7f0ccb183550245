package auth

import "strings"

// CheckSignature is the seam at which test vectors of others can be tried: it
// takes a key set or a secret and a JWS whose payload need not be claims, and says
// whether the signature counts. Header, choice of key and verification are those
// of every token.
func CheckSignature(secret, keys []byte, jws string) error {
	i, complaints := newIssuer(Issuer{Secret: secret, Keys: keys, Algorithms: algorithmsOf(secret)}, fetcher{})
	if len(complaints) > 0 {
		return complaints[0]
	}
	parts := strings.Split(jws, ".")
	if len(parts) != 3 {
		return invalid("not three parts")
	}
	header, err := decodePart(parts[0])
	if err != nil {
		return err
	}
	members, err := parseObject(header)
	if err != nil {
		return err
	}
	c := compact{signed: parts[0] + "." + parts[1]}
	if c.signature, err = decodePart(parts[2]); err != nil {
		return err
	}
	if parts[1] != "" {
		if _, err := decodePart(parts[1]); err != nil {
			return err
		}
	}
	if err := c.readHeader(members); err != nil {
		return err
	}
	_, err = i.material.Load().verify(c)
	return err
}

func algorithmsOf(secret []byte) []string {
	var fitting []string
	for alg, least := range secretBytes {
		if len(secret) >= least {
			fitting = append(fitting, alg)
		}
	}
	return fitting
}
