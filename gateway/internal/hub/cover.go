package hub

import (
	"strings"

	"flyscreen/gateway/mqtt"
)

// The broker is asked only for the widest of the wanted filters: who holds
// "pets/#" gets "pets/1/location" with it, and some brokers bound the number of
// subscriptions or deliver once for each. Which filters contain a filter, and
// which it contains, is asked on each change, so they stand in a tree by levels:
// a question costs the nodes that may answer it, not all filters.

// coverNode is a level of the tree of all interests, wanted or held. One that ends
// in "#" hangs at the node before it.
type coverNode struct {
	children map[string]*coverNode // by level; "+" is a child like any other
	exact    *interest
	deep     *interest // "<path to here>/#"
}

func (n *coverNode) insert(i *interest) {
	for rest, more := string(i.filter), true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if level == "#" {
			n.deep = i
			return
		}
		child := n.children[level]
		if child == nil {
			child = &coverNode{}
			if n.children == nil {
				n.children = map[string]*coverNode{}
			}
			n.children[level] = child
		}
		n = child
	}
	n.exact = i
}

// remove takes f out, which must be there, with the nodes that nothing else needs,
// and reports whether n is empty now.
func (n *coverNode) remove(f string) (empty bool) {
	level, rest, more := strings.Cut(f, "/")
	if level == "#" {
		n.deep = nil
		return n.empty()
	}
	child := n.children[level]
	if more {
		child.remove(rest)
	} else {
		child.exact = nil
	}
	if child.empty() {
		delete(n.children, level)
	}
	return n.empty()
}

func (n *coverNode) empty() bool { return n.exact == nil && n.deep == nil && len(n.children) == 0 }

// visit looks at an interest and reports whether it has seen enough.
type visit func(*interest) (enough bool)

func (v visit) at(i *interest) (enough bool) { return i != nil && v(i) }

// above visits the interests whose filter contains f, other than f's own, and
// reports whether v had enough. Of two filters that mean the same ("#" and "+/#",
// "/#" and "/+/#": no topic is empty) the shorter is above the longer, so that
// "above" has no circles.
func (n *coverNode) above(f mqtt.Filter, v visit) bool {
	own := visit(func(i *interest) bool { return i.filter != f && v(i) })
	switch f {
	case "#": // only "+/#" contains it
		return false
	case "/#":
		return n.widerRest("/+/#", false, func(i *interest) bool { return i.filter != "/+/#" && own(i) })
	}
	return n.widerRest(string(f), strings.HasPrefix(string(f), "$"), own)
}

// widerRest visits what contains the levels in rest, below n. noWild is true at
// the first level of a filter that begins with "$" (MQTT 3.1.1 section 4.7.2).
func (n *coverNode) widerRest(rest string, noWild bool, v visit) bool {
	if !noWild && v.at(n.deep) {
		return true
	}
	level, below, more := strings.Cut(rest, "/")
	if level == "#" { // nothing but another "#" contains it
		return false
	}
	if level != "+" && n.children[level].wider(below, more, v) {
		return true
	}
	return !noWild && n.children["+"].wider(below, more, v)
}

func (n *coverNode) wider(rest string, more bool, v visit) bool {
	switch {
	case n == nil:
		return false
	case more:
		return n.widerRest(rest, false, v)
	}
	return v.at(n.exact) || v.at(n.deep) // "a/#" contains "a" (section 4.7.1.2)
}

// below visits the interests that f is above, and reports whether v had enough.
func (n *coverNode) below(f mqtt.Filter, v visit) bool {
	own := visit(func(i *interest) bool { return i.filter != f && v(i) })
	// "/#" means "/+/#", which has a level that only "+" contains.
	if parent := n.children[""]; f == "+/+/#" && parent != nil && own.at(parent.deep) {
		return true
	}
	return n.narrowerRest(string(f), true, own)
}

func (n *coverNode) narrowerRest(rest string, first bool, v visit) bool {
	level, below, more := strings.Cut(rest, "/")
	if level == "#" {
		return n.all(first, v)
	}
	if level != "+" {
		return n.children[level].narrower(below, more, v)
	}
	for name, child := range n.children {
		if (!first || !strings.HasPrefix(name, "$")) && child.narrower(below, more, v) {
			return true
		}
	}
	return false
}

func (n *coverNode) narrower(rest string, more bool, v visit) bool {
	switch {
	case n == nil:
		return false
	case !more:
		return v.at(n.exact)
	}
	return n.narrowerRest(rest, false, v)
}

// all visits n and everything below; at the first level not what begins with "$".
func (n *coverNode) all(first bool, v visit) bool {
	if v.at(n.exact) || v.at(n.deep) {
		return true
	}
	for name, child := range n.children {
		if (!first || !strings.HasPrefix(name, "$")) && child.all(false, v) {
			return true
		}
	}
	return false
}
