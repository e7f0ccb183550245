package auth

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"flyscreen/gateway/mqtt"
)

// grantsOf reads the acl claim. A token without one is valid and may do nothing.
// Grants in the other two places where a token could carry them are not
// understood yet; such a token is refused, because ignoring them would look like
// a broken grant.
func grantsOf(claims map[string]any, maxGrants int, limits mqtt.Limits) (Grants, error) {
	if err := refuseOtherGrants(claims); err != nil {
		return Grants{}, err
	}
	v, present := claims["acl"]
	if !present {
		return Grants{}, nil
	}
	acl, ok := v.(map[string]any)
	if !ok {
		return Grants{}, invalid(`the member "acl" is not an object`)
	}
	for name := range acl {
		switch name {
		case "pub", "sub", "all":
		default:
			return Grants{}, invalid(`the member "acl" may only hold "pub", "sub" and "all"`)
		}
	}
	var grants Grants
	left := maxGrants
	for _, kind := range []string{"pub", "sub", "all"} {
		v, present := acl[kind]
		if !present {
			continue
		}
		templates, ok := stringList(v)
		if !ok {
			return Grants{}, invalid(`the member "acl.%s" is not an array of strings`, kind)
		}
		if left -= len(templates); left < 0 {
			return Grants{}, invalid(`the member "acl" holds more than %d grants`, maxGrants)
		}
		filters, err := grantFilters(kind, templates, claims, limits)
		if err != nil {
			return Grants{}, err
		}
		if kind != "sub" {
			grants.Pub = append(grants.Pub, filters...)
		}
		if kind != "pub" {
			grants.Sub = append(grants.Sub, filters...)
		}
	}
	return grants, nil
}

func grantFilters(kind string, templates []string, claims map[string]any, limits mqtt.Limits) ([]mqtt.Filter, error) {
	var filters []mqtt.Filter
	for i, template := range templates {
		s, err := fill(template, claims)
		if err != nil {
			return nil, invalid(`the grant acl.%s[%d] %v`, kind, i, err)
		}
		f, err := parseGrant(s, limits)
		if err != nil {
			return nil, invalid(`the grant acl.%s[%d] %v`, kind, i, err)
		}
		filters = append(filters, f)
	}
	return filters, nil
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
	case strings.ContainsAny(value, "/+#") || strings.ContainsFunc(value, unicode.IsControl):
		return "", fmt.Errorf("asks for the claim %q, whose value holds one of / + # or a control character", member)
	}
	return value, nil
}

// refuseOtherGrants refuses grants in scope and authorization_details. Other
// words in scope and other types of details belong to somebody else and do not
// matter here.
func refuseOtherGrants(claims map[string]any) error {
	if v, present := claims["scope"]; present {
		words, ok := stringList(v) // some issuers write an array
		if one, isString := v.(string); isString {
			words, ok = strings.Fields(one), true
		}
		if !ok {
			return invalid(`the member "scope" is neither a string nor an array of strings`)
		}
		for _, word := range words {
			if strings.HasPrefix(strings.TrimSpace(word), "mqtt:") {
				return invalid(`grants in the member "scope" are not supported yet; put them into "acl"`)
			}
		}
	}
	v, present := claims["authorization_details"]
	if !present {
		return nil
	}
	details, ok := v.([]any)
	if !ok {
		return invalid(`the member "authorization_details" is not an array`)
	}
	for _, v := range details {
		detail, ok := v.(map[string]any)
		if !ok {
			return invalid(`the member "authorization_details" holds something that is not an object`)
		}
		if detail["type"] == "mqtt" {
			return invalid(`grants in the member "authorization_details" are not supported yet; put them into "acl"`)
		}
	}
	return nil
}
