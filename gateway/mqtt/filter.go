package mqtt

import "strings"

// Matches reports whether t is one of f's topics (3.1.1 section 4.7): "+" stands
// for one level, a trailing "#" for any number of levels, the parent included,
// and a leading wildcard never reaches a topic that begins with "$".
func (f Filter) Matches(t Topic) bool {
	if t.IsDollar() && f.startsWild() {
		return false
	}
	filter, topic := string(f), string(t)
	for {
		fl, frest, fmore := strings.Cut(filter, "/")
		if fl == "#" {
			return true
		}
		tl, trest, tmore := strings.Cut(topic, "/")
		if fl != "+" && fl != tl {
			return false
		}
		if !tmore {
			return !fmore || frest == "#"
		}
		if !fmore {
			return false
		}
		filter, topic = frest, trest
	}
}

// Contains reports whether every topic that g matches is matched by f too.
func (f Filter) Contains(g Filter) bool {
	if f.startsWild() && strings.HasPrefix(string(g), "$") {
		return false
	}
	switch g { // no topic is empty, so these mean the same as their longer spelling
	case "#":
		g = "+/#"
	case "/#":
		g = "/+/#"
	}
	wide, narrow := string(f), string(g)
	for {
		wl, wrest, wmore := strings.Cut(wide, "/")
		if wl == "#" {
			return true
		}
		nl, nrest, nmore := strings.Cut(narrow, "/")
		if nl == "#" || wl != "+" && wl != nl {
			return false
		}
		if !nmore {
			return !wmore || wrest == "#"
		}
		if !wmore {
			return false
		}
		wide, narrow = wrest, nrest
	}
}

// Intersect returns the filter whose topics are exactly those that both f and g
// match. There is always one such filter, or none (ok is false): level by level
// the narrower of the two decides, and a "#" takes over the other's remainder.
func (f Filter) Intersect(g Filter) (both Filter, ok bool) {
	if f.startsWild() && strings.HasPrefix(string(g), "$") || g.startsWild() && strings.HasPrefix(string(f), "$") {
		return "", false
	}
	a, b := string(f), string(g)
	var levels []string
	for {
		al, arest, amore := strings.Cut(a, "/")
		bl, brest, bmore := strings.Cut(b, "/")
		switch {
		case al == "#":
			return join(append(levels, b)), true
		case bl == "#":
			return join(append(levels, a)), true
		case al == bl || bl == "+":
			levels = append(levels, al)
		case al == "+":
			levels = append(levels, bl)
		default:
			return "", false
		}
		switch {
		case amore && bmore:
			a, b = arest, brest
		case amore == bmore, arest == "#", brest == "#": // "x/#" matches its parent "x" (4.7.1.2)
			both = join(levels)
			return both, both != "" // the parent of "/#" would be the empty topic, which is none
		default:
			return "", false
		}
	}
}

func join(levels []string) Filter { return Filter(strings.Join(levels, "/")) }

func (f Filter) startsWild() bool { return f != "" && (f[0] == '+' || f[0] == '#') }
