package auth

import (
	"slices"
	"time"

	"flyscreen/gateway/mqtt"
)

// Principal is who a request is, after authentication. It is a value that may be
// shared; nobody may change the slices in it.
type Principal struct {
	// Issuer is the token's iss; empty where it has none.
	Issuer string
	// Subject is the token's sub; empty for an anonymous principal.
	Subject string
	// Anonymous is true for a request that brought no credential.
	Anonymous bool
	// Grants are what the principal may do.
	Grants Grants
	// Expires is the token's exp; zero means never (anonymous).
	Expires time.Time
	// Ends is Expires plus the leeway for clocks that differ: from then on nothing
	// is delivered to the principal or accepted from it. Zero means never.
	Ends time.Time
}

// Key tells principals apart, for limits: two issuers may use one subject. Empty
// for an anonymous principal.
func (p Principal) Key() string {
	if p.Anonymous {
		return ""
	}
	return p.Issuer + "\x00" + p.Subject
}

// Grants are what a principal may do: the filters it may publish to and
// subscribe to. The zero value allows nothing. A filter that begins with a
// wildcard does not reach topics that begin with "$" (3.1.1 section 4.7.2); those
// need a grant that names the "$" level.
type Grants struct {
	Pub, Sub []mqtt.Filter
}

// MayPublish reports whether a publish grant holds t, and which: the first.
func (g Grants) MayPublish(t mqtt.Topic) (by mqtt.Filter, ok bool) {
	for _, grant := range g.Pub {
		if grant.Matches(t) {
			return grant, true
		}
	}
	return "", false
}

// Covers reports whether one subscribe grant holds all of f, and which: the
// first. It is the strict question; several grants that hold f only together do
// not count.
func (g Grants) Covers(f mqtt.Filter) (by mqtt.Filter, ok bool) {
	for _, grant := range g.Sub {
		if grant.Contains(f) {
			return grant, true
		}
	}
	return "", false
}

// Narrow returns what is left of f for this principal: filters that together
// match exactly the topics that f and any subscribe grant match. None of them is
// contained in another, and their order is that of the grants. by[i] is the grant
// that left granted[i]. Both are empty when nothing is left.
func (g Grants) Narrow(f mqtt.Filter) (granted, by []mqtt.Filter) {
	for _, grant := range g.Sub {
		both, ok := f.Intersect(grant)
		if !ok || len(both) > mqtt.MaxBytes { // two long filters may meet in one that no SUBSCRIBE can carry
			continue
		}
		if slices.ContainsFunc(granted, func(kept mqtt.Filter) bool { return kept.Contains(both) }) {
			continue
		}
		granted, by = dropContained(granted, by, both)
		granted, by = append(granted, both), append(by, grant)
	}
	return granted, by
}

// dropContained removes in place what wide contains, from both lists alike.
func dropContained(granted, by []mqtt.Filter, wide mqtt.Filter) (g, b []mqtt.Filter) {
	n := 0
	for i, kept := range granted {
		if !wide.Contains(kept) {
			granted[n], by[n] = kept, by[i]
			n++
		}
	}
	return granted[:n], by[:n]
}
