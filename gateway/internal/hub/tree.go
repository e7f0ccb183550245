package hub

import (
	"strings"

	"flyscreen/gateway/mqtt"
)

// node is a level of the filter tree. A filter's interest hangs at the node of
// its last level; a filter that ends in "#" at the node before it.
type node struct {
	children map[string]*node // by level; "+" is a child like any other
	exact    *interest
	deep     *interest // "<path to here>/#"
}

func (n *node) insert(i *interest) {
	*n.slot(i.filter) = i
}

// slot finds the place of f, making the nodes on the way.
func (n *node) slot(f mqtt.Filter) **interest {
	for rest, more := string(f), true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if level == "#" {
			return &n.deep
		}
		child := n.children[level]
		if child == nil {
			child = &node{}
			if n.children == nil {
				n.children = map[string]*node{}
			}
			n.children[level] = child
		}
		n = child
	}
	return &n.exact
}

// remove takes f out, with the nodes that nothing else needs, and reports
// whether n is empty now.
func (n *node) remove(f string) (empty bool) {
	level, rest, more := strings.Cut(f, "/")
	switch {
	case level == "#":
		n.deep = nil
	case n.children[level] == nil:
	case !more:
		child := n.children[level]
		child.exact = nil
		if child.empty() {
			delete(n.children, level)
		}
	default:
		if n.children[level].remove(rest) {
			delete(n.children, level)
		}
	}
	return n.empty()
}

func (n *node) empty() bool { return n.exact == nil && n.deep == nil && len(n.children) == 0 }

// match appends the subscribers of every filter that matches t. The slices are
// never changed in place beyond their length, so they may be read after the
// hub's lock is released.
func (n *node) match(t mqtt.Topic, into [][]Subscriber) [][]Subscriber {
	return n.matchRest(string(t), t.IsDollar(), into)
}

// matchRest matches the levels in rest below n. noWild is true at the first
// level of a topic that begins with "$" (MQTT 3.1.1 section 4.7.2).
func (n *node) matchRest(rest string, noWild bool, into [][]Subscriber) [][]Subscriber {
	if !noWild {
		into = n.deep.appendTo(into)
	}
	level, below, more := strings.Cut(rest, "/")
	if child := n.children[level]; child != nil && level != "+" {
		into = child.enter(below, more, into)
	}
	if child := n.children["+"]; child != nil && !noWild {
		into = child.enter(below, more, into)
	}
	return into
}

// enter goes on below n, or ends there when the topic has no more levels.
func (n *node) enter(rest string, more bool, into [][]Subscriber) [][]Subscriber {
	if more {
		return n.matchRest(rest, false, into)
	}
	// "a/#" matches its parent "a" too (MQTT 3.1.1 section 4.7.1.2).
	return n.deep.appendTo(n.exact.appendTo(into))
}
