package auth

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"flyscreen/gateway/fault"
)

// compact is a JWS in compact serialization (RFC 7515 section 7.1), taken apart
// but not yet believed.
type compact struct {
	signed    string // what the signature is over: the first two parts as they came
	signature []byte
	alg       string
	kid       string
	hasKid    bool
	claims    map[string]any
}

// parseCompact checks the form and the header of a token, whose length the caller
// has bounded.
func parseCompact(token string) (compact, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return compact{}, invalid("the token does not have three parts with dots between them")
	}
	var decoded [3][]byte
	for i, name := range []string{"header", "claims part", "signature"} {
		var err error
		if decoded[i], err = decodePart(parts[i]); err != nil {
			return compact{}, invalid("the token's %s %v", name, err)
		}
	}
	header, err := parseObject(decoded[0])
	if err != nil {
		return compact{}, invalid("the token's header %v", err)
	}
	claims, err := parseObject(decoded[1])
	if err != nil {
		return compact{}, invalid("the token's claims part %v", err)
	}
	c := compact{signed: parts[0] + "." + parts[1], signature: decoded[2], claims: claims}
	if err := c.readHeader(header); err != nil {
		return compact{}, err
	}
	return c, nil
}

// readHeader takes what verification needs and refuses what it does not
// understand. Keys that the token itself brings (jwk, jku, x5c, x5u) are never
// looked at.
func (c *compact) readHeader(header map[string]any) error {
	if _, present := header["crit"]; present {
		// RFC 7515 section 4.1.11: "If any of the listed extension Header Parameters
		// are not understood [...] then the JWS is invalid". None are understood here.
		return invalid(`the header member "crit" asks for extensions that are not supported`)
	}
	if _, present := header["zip"]; present {
		return invalid(`the header member "zip" is not supported`)
	}
	var ok bool
	if c.alg, ok = header["alg"].(string); !ok {
		return invalid(`the header member "alg" is missing or not a string`)
	}
	if kid, present := header["kid"]; present {
		if c.kid, ok = kid.(string); !ok {
			return invalid(`the header member "kid" is not a string`)
		}
		c.hasKid = true
	}
	if typ, present := header["typ"]; present {
		s, _ := typ.(string)
		// RFC 7515 section 4.1.9 lets "application/" be left out.
		s = strings.TrimPrefix(strings.ToLower(s), "application/")
		if !slices.Contains([]string{"jwt", "at+jwt"}, s) {
			return invalid(`the header member "typ" is neither "JWT" nor "at+jwt"`)
		}
	}
	if cty, present := header["cty"]; present {
		s, ok := cty.(string)
		if s = strings.TrimPrefix(strings.ToLower(s), "application/"); !ok || s == "jwt" {
			return invalid(`the header member "cty" says that another token is inside, which is not supported`)
		}
	}
	return nil
}

// decodePart decodes base64url without padding, in its only spelling: the
// decoder by itself skips line ends and, unless strict, ignores stray last bits.
func decodePart(s string) ([]byte, error) {
	if s == "" {
		return nil, errors.New("is empty")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("is not base64url without padding")
	}
	return b, nil
}

// invalid is the failure of a token that can never become good. The text is for
// the one who presented it and never repeats the token's unverified content.
func invalid(format string, args ...any) *fault.Error {
	return fault.New(fault.TokenInvalid, format, args...)
}
