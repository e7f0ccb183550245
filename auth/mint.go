package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"flyscreen/gateway/mqtt"
)

// Claims are what a token says that this program signs itself.
type Claims struct {
	// Subject becomes sub; required.
	Subject string
	// Issuer and Audience become iss and aud if they are not empty.
	Issuer   string
	Audience []string
	// Pub, Sub and All become the acl claim: filters, with placeholders if wanted.
	Pub, Sub, All []string
	// TTL is how long the token lives, more than zero. The end is rounded up to a
	// full second.
	TTL time.Duration
	// Now is when the token is issued; zero means time.Now.
	Now time.Time
}

// Mint signs a token with HS256. What no Authenticator would accept is refused
// here already: a short secret, a bad subject, a malformed grant.
func Mint(secret []byte, c Claims) (string, error) {
	if least := secretBytes["HS256"]; len(secret) < least {
		return "", fmt.Errorf("the secret has %d bytes; HS256 needs at least %d", len(secret), least)
	}
	if c.TTL <= 0 {
		return "", errors.New("the time to live must be more than zero")
	}
	for _, s := range slices.Concat([]string{c.Subject, c.Issuer}, c.Audience, c.Pub, c.Sub, c.All) {
		if !utf8.ValidString(s) { // encoding would replace what is wrong, and sign another name
			return "", fmt.Errorf("%q is not valid UTF-8", s)
		}
	}
	if c.Now.IsZero() {
		c.Now = time.Now()
	}
	claims := c.encode()
	text, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	readBack, err := parseObject(text)
	if err != nil {
		return "", fmt.Errorf("the claims: %w", err)
	}
	if _, err := subjectOf(readBack); err != nil {
		return "", err
	}
	if _, err := grantsOf(readBack, math.MaxInt, mqtt.Limits{}); err != nil {
		return "", err
	}
	return jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
}

func (c Claims) encode() jwt.MapClaims {
	end := c.Now.Add(c.TTL)
	if whole := end.Truncate(time.Second); whole.Before(end) {
		end = whole.Add(time.Second)
	}
	claims := jwt.MapClaims{"sub": c.Subject, "iat": c.Now.Unix(), "exp": end.Unix()}
	if c.Issuer != "" {
		claims["iss"] = c.Issuer
	}
	if len(c.Audience) > 0 {
		claims["aud"] = c.Audience
	}
	acl := map[string][]string{}
	for kind, filters := range map[string][]string{"pub": c.Pub, "sub": c.Sub, "all": c.All} {
		if len(filters) > 0 {
			acl[kind] = filters
		}
	}
	if len(acl) > 0 {
		claims["acl"] = acl
	}
	return claims
}
