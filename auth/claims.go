package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"flyscreen/gateway/fault"
)

const (
	maxSubjectBytes = 255
	// maxNumericDate is the end of the year 9999, the last that RFC 3339 can write.
	maxNumericDate = 253402300799
)

// issuerOf returns the token's iss; empty when there is none.
func issuerOf(claims map[string]any) (string, error) {
	v, present := claims["iss"]
	if !present {
		return "", nil
	}
	iss, ok := v.(string)
	if !ok {
		return "", invalid(`the member "iss" is not a string`)
	}
	return iss, nil
}

// readClaims turns the claims of a token whose signature fits into a Principal.
func (a *Authenticator) readClaims(claims map[string]any, audience []string) (Principal, error) {
	subject, err := subjectOf(claims)
	if err != nil {
		return Principal{}, err
	}
	if err := checkAudience(claims, audience); err != nil {
		return Principal{}, err
	}
	expires, err := a.checkTimes(claims)
	if err != nil {
		return Principal{}, err
	}
	grants, err := grantsOf(claims, a.maxGrants, a.limits)
	if err != nil {
		return Principal{}, err
	}
	id, err := tokenIDOf(claims)
	if err != nil {
		return Principal{}, err
	}
	return Principal{Subject: subject, TokenID: id, Grants: grants, Expires: expires, Ends: expires.Add(a.leeway)}, nil
}

// tokenIDOf returns the token's jti; empty when there is none.
func tokenIDOf(claims map[string]any) (string, error) {
	v, present := claims["jti"]
	if !present {
		return "", nil
	}
	id, ok := v.(string)
	if !ok {
		return "", invalid(`the member "jti" is not a string`)
	}
	return id, nil
}

func subjectOf(claims map[string]any) (string, error) {
	v, present := claims["sub"]
	if !present {
		return "", invalid(`the member "sub" is missing`)
	}
	sub, ok := v.(string)
	if !ok {
		return "", invalid(`the member "sub" is not a string`)
	}
	if err := checkSubject(sub); err != nil {
		return "", invalid(`the member "sub" %v`, err)
	}
	return sub, nil
}

// checkSubject holds names of all kinds to one rule.
func checkSubject(name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case len(name) > maxSubjectBytes:
		return fmt.Errorf("has more than %d bytes", maxSubjectBytes)
	case !utf8.ValidString(name):
		return errors.New("is not valid UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("holds a control character")
	}
	return nil
}

// checkAudience wants one of the issuer's audiences in the token's, if the issuer
// has any. The claim's form (RFC 7519 section 4.1.3: one string or an array of
// them) is checked in any case.
func checkAudience(claims map[string]any, wanted []string) error {
	var audience []string
	if v, present := claims["aud"]; present {
		if one, ok := v.(string); ok {
			audience = []string{one}
		} else if audience, ok = stringList(v); !ok {
			return invalid(`the member "aud" is neither a string nor an array of strings`)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	if len(audience) == 0 {
		return invalid(`the member "aud" is missing`)
	}
	for _, aud := range audience {
		if slices.Contains(wanted, aud) {
			return nil
		}
	}
	return invalid("the token is meant for another audience")
}

// checkTimes reads exp, nbf and iat, and returns exp.
func (a *Authenticator) checkTimes(claims map[string]any) (expires time.Time, err error) {
	now := a.now()
	if _, present := claims["exp"]; !present {
		return time.Time{}, invalid(`the member "exp" is missing`)
	}
	if expires, _, err = numericDate(claims, "exp"); err != nil {
		return time.Time{}, err
	}
	notBefore, hasNotBefore, err := numericDate(claims, "nbf")
	if err != nil {
		return time.Time{}, err
	}
	if _, _, err := numericDate(claims, "iat"); err != nil {
		return time.Time{}, err
	}
	if hasNotBefore && notBefore.After(now.Add(a.leeway)) {
		return time.Time{}, invalid("the token is not valid yet; the clocks of its issuer and of this server may differ")
	}
	if !now.Before(expires.Add(a.leeway)) {
		return time.Time{}, expired(expires)
	}
	return expires, nil
}

func expired(at time.Time) *fault.Error {
	return fault.New(fault.TokenExpired, "the token expired at %s", at.Format(time.RFC3339))
}

// numericDate reads a NumericDate (RFC 7519 section 2): seconds since 1970,
// fractions allowed.
func numericDate(claims map[string]any, name string) (at time.Time, present bool, err error) {
	v, present := claims[name]
	if !present {
		return time.Time{}, false, nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, true, invalid("the member %q is not a number", name)
	}
	seconds, err := strconv.ParseFloat(n.String(), 64)
	if err != nil || seconds < 0 || seconds > maxNumericDate {
		return time.Time{}, true, invalid("the member %q is not a time between 1970 and 9999 in seconds", name)
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)).UTC(), true, nil
}
