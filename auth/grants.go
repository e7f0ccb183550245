package auth

import (
	"slices"

	"flyscreen/gateway/mqtt"
)

// Grants are what a principal may do: the filters it may publish to and
// subscribe to, without what Deny matches. The zero value allows nothing. A filter
// that begins with a wildcard does not reach topics that begin with "$" (3.1.1
// section 4.7.2); those need a grant that names the "$" level.
type Grants struct {
	Pub, Sub []mqtt.Filter
	// Deny wins over both, for each message: also inside a granted wildcard.
	Deny []mqtt.Filter
}

// Equal reports whether both say the same, in the same order.
func (g Grants) Equal(other Grants) bool {
	return slices.Equal(g.Pub, other.Pub) && slices.Equal(g.Sub, other.Sub) && slices.Equal(g.Deny, other.Deny)
}

// Denied reports whether a deny rule takes t away. A subscription may be granted
// all the same, so whoever delivers asks for each message; without deny rules,
// which is nearly always, the answer costs nothing.
func (g Grants) Denied(t mqtt.Topic) bool {
	if len(g.Deny) == 0 {
		return false
	}
	_, denied := g.DeniedBy(t)
	return denied
}

// DeniedBy is Denied, with the rule: the first.
func (g Grants) DeniedBy(t mqtt.Topic) (rule mqtt.Filter, denied bool) {
	for _, rule := range g.Deny {
		if rule.Matches(t) {
			return rule, true
		}
	}
	return "", false
}

// DeniesIn returns the deny rules that take something of f away.
func (g Grants) DeniesIn(f mqtt.Filter) (rules []mqtt.Filter) {
	for _, rule := range g.Deny {
		if _, both := rule.Intersect(f); both {
			rules = append(rules, rule)
		}
	}
	return rules
}

// MayPublish reports whether a publish grant holds t and no rule denies it, and
// which decided: the rule that denies, else the first grant; neither is "".
func (g Grants) MayPublish(t mqtt.Topic) (by mqtt.Filter, ok bool) {
	if rule, denied := g.DeniedBy(t); denied {
		return rule, false
	}
	for _, grant := range g.Pub {
		if grant.Matches(t) {
			return grant, true
		}
	}
	return "", false
}

// Covers reports whether one subscribe grant holds all of f and nothing of it is
// denied, and which: the first. It is the strict question; several grants that
// hold f only together do not count.
func (g Grants) Covers(f mqtt.Filter) (by mqtt.Filter, ok bool) {
	if len(g.DeniesIn(f)) > 0 {
		return "", false
	}
	for _, grant := range g.Sub {
		if grant.Contains(f) {
			return grant, true
		}
	}
	return "", false
}

// Narrow returns what is left of f for this principal: filters that together
// match exactly the topics that f and any subscribe grant match, but for what
// Denied says of single topics; a filter that is denied as a whole is left out.
// None of them is contained in another, and their order is that of the grants. by[i] is the grant
// that left granted[i]. Both are empty when nothing is left.
func (g Grants) Narrow(f mqtt.Filter) (granted, by []mqtt.Filter) {
	for _, grant := range g.Sub {
		both, ok := f.Intersect(grant)
		if !ok || len(both) > mqtt.MaxBytes { // two long filters may meet in one that no SUBSCRIBE can carry
			continue
		}
		if slices.ContainsFunc(g.Deny, func(rule mqtt.Filter) bool { return rule.Contains(both) }) {
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

// plus joins two lists of rules.
func (g Grants) plus(more Grants) Grants {
	return Grants{
		Pub:  slices.Concat(g.Pub, more.Pub),
		Sub:  slices.Concat(g.Sub, more.Sub),
		Deny: slices.Concat(g.Deny, more.Deny),
	}
}

func (g Grants) clone() Grants { return g.plus(Grants{}) }
