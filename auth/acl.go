package auth

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"flyscreen/gateway/mqtt"
)

// grantsOf reads the grants of a token, from the three places where they may
// stand: acl, scope and authorization_details. A token without any is valid and
// may do nothing. What is malformed or unknown there refuses the whole token:
// half of what its issuer meant would look like a grant that is broken.
func grantsOf(claims map[string]any, maxGrants int, limits mqtt.Limits) (Grants, error) {
	r := grantReader{claims: claims, limits: limits, most: maxGrants}
	if err := r.acl(); err != nil {
		return Grants{}, err
	}
	if err := r.scope(); err != nil {
		return Grants{}, err
	}
	if err := r.details(); err != nil {
		return Grants{}, err
	}
	return r.grants, nil
}

// grantReader gathers the grants of one token.
type grantReader struct {
	claims map[string]any
	limits mqtt.Limits
	most   int
	count  int
	grants Grants
}

// add fills a template in and grants it; where says where it stands.
func (r *grantReader) add(where, template string, pub, sub bool) error {
	if r.count++; r.count > r.most {
		return invalid("the token holds more than %d grants", r.most)
	}
	s, err := fill(template, r.claims)
	if err != nil {
		return invalid("the grant %s %v", where, err)
	}
	f, err := parseGrant(s, r.limits)
	if err != nil {
		return invalid("the grant %s %v", where, err)
	}
	if pub {
		r.grants.Pub = append(r.grants.Pub, f)
	}
	if sub {
		r.grants.Sub = append(r.grants.Sub, f)
	}
	return nil
}

// acl reads the claim in the shape that EMQX reads too.
func (r *grantReader) acl() error {
	v, present := r.claims["acl"]
	if !present {
		return nil
	}
	acl, ok := v.(map[string]any)
	if !ok {
		return invalid(`the member "acl" is not an object`)
	}
	for name := range acl {
		switch name {
		case "pub", "sub", "all":
		default:
			return invalid(`the member "acl" may only hold "pub", "sub" and "all"`)
		}
	}
	for _, kind := range []string{"pub", "sub", "all"} {
		v, present := acl[kind]
		if !present {
			continue
		}
		templates, ok := stringList(v)
		if !ok {
			return invalid(`the member "acl.%s" is not an array of strings`, kind)
		}
		for i, template := range templates {
			if err := r.add(fmt.Sprintf("acl.%s[%d]", kind, i), template, kind != "sub", kind != "pub"); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseGrant is mqtt.ParseFilter without shared subscriptions: "$share/g/x" is a
// way of subscribing to x, not a filter that could be granted.
func parseGrant(s string, limits mqtt.Limits) (mqtt.Filter, error) {
	f, err := mqtt.ParseFilter(s, limits)
	if err != nil {
		return "", err
	}
	if first, _, _ := strings.Cut(s, "/"); first == "$share" {
		return "", errors.New(`names a shared subscription ("$share"), which cannot be granted`)
	}
	return f, nil
}

// fill puts the token's own values into a grant: ${sub}, and ${claims.NAME} for
// a string member NAME of the claims. Values are filled in once and never read
// as templates themselves. A value must not be able to change the filter's
// shape: no wildcard, no level of its own, and no "$" in the first place, which
// would lead into the part of the tree that wildcards do not reach.
func fill(template string, claims map[string]any) (string, error) {
	var b strings.Builder
	for rest := template; ; {
		literal, after, found := strings.Cut(rest, "${")
		b.WriteString(literal)
		if !found {
			return b.String(), nil
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed {
			return "", errors.New(`holds "${" without "}"`)
		}
		value, err := placeholder(name, claims)
		if err != nil {
			return "", err
		}
		if b.Len() == 0 && value[0] == '$' {
			return "", errors.New(`begins with a placeholder whose value begins with "$"`)
		}
		b.WriteString(value)
		rest = tail
	}
}

// placeholder returns the value for ${name}, never empty.
func placeholder(name string, claims map[string]any) (string, error) {
	member, ok := strings.CutPrefix(name, "claims.")
	if !ok && name != "sub" {
		return "", errors.New("holds an unknown placeholder; ${sub} and ${claims.NAME} are known")
	}
	if !ok {
		member = name
	}
	v, present := claims[member]
	if !present {
		return "", fmt.Errorf("asks for the claim %q, which the token does not have", member)
	}
	value, isString := v.(string)
	switch {
	case !isString:
		return "", fmt.Errorf("asks for the claim %q, which is not a string", member)
	case value == "":
		return "", fmt.Errorf("asks for the claim %q, which is empty", member)
	}
	if err := checkValue(value); err != nil {
		return "", fmt.Errorf("asks for the claim %q, whose value %w", member, err)
	}
	return value, nil
}

// checkValue refuses what would change the shape of the filter it is put into.
func checkValue(value string) error {
	if strings.ContainsAny(value, "/+#") || strings.ContainsFunc(value, unicode.IsControl) {
		return errors.New("holds one of / + # or a control character")
	}
	return nil
}
