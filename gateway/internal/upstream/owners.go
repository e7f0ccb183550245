package upstream

import (
	"strings"

	"flyscreen/gateway/mqtt"
)

// entry is a subscription of a live connection.
type entry struct {
	filter   mqtt.Filter
	leg      int    // which connection holds it
	age      uint64 // lower is older
	retiring bool   // it is being ended: after the handover it owns nothing
}

// owners knows all live subscriptions, by levels of their filters.
type owners struct {
	root    ownerNode
	entries map[mqtt.Filter]*entry
	ages    uint64
	perLeg  [maxLegs]int
	room    int // subscriptions of one leg; 0: no bound
}

type ownerNode struct {
	children map[string]*ownerNode // by level; "+" is a child like any other
	exact    *entry
	deep     *entry // "<path to here>/#"
}

// clear forgets all.
func (o *owners) clear() {
	o.root, o.entries, o.perLeg = ownerNode{}, map[mqtt.Filter]*entry{}, [maxLegs]int{}
}

// place chooses the connection for f, where nothing overlaps it, and notes it there.
// nil: on each of the legs f overlaps something, or there is no room.
func (o *owners) place(f mqtt.Filter, legs int) *entry {
	if e := o.entries[f]; e != nil {
		return e
	}
	var taken [maxLegs]bool
	left := legs
	o.root.meets(string(f), true, func(e *entry) bool {
		if !taken[e.leg] {
			taken[e.leg] = true
			left--
		}
		return left == 0
	})
	for leg := range legs {
		if !taken[leg] && (o.room == 0 || o.perLeg[leg] < o.room) {
			o.ages++
			o.perLeg[leg]++
			e := &entry{filter: f, leg: leg, age: o.ages}
			o.entries[f] = e
			*o.root.slot(string(f)) = e
			return e
		}
	}
	return nil
}

// remove forgets f.
func (o *owners) remove(f mqtt.Filter) {
	if e := o.entries[f]; e != nil {
		o.perLeg[e.leg]--
		delete(o.entries, f)
		o.root.remove(string(f))
	}
}

// shared reports whether another subscription, not retiring, overlaps f.
func (o *owners) shared(f mqtt.Filter) bool {
	return o.root.meets(string(f), true, func(e *entry) bool { return e.filter != f && !e.retiring })
}

// owner is the oldest subscription that matches topic; retiring says whether those
// that are being ended count still.
func (o *owners) owner(topic mqtt.Topic, retiring bool) (oldest *entry) {
	o.root.match(string(topic), topic.IsDollar(), func(e *entry) {
		if (retiring || !e.retiring) && (oldest == nil || e.age < oldest.age) {
			oldest = e
		}
	})
	return oldest
}

// slot finds the place of f, making the nodes on the way.
func (n *ownerNode) slot(f string) **entry {
	for rest, more := f, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if level == "#" {
			return &n.deep
		}
		child := n.children[level]
		if child == nil {
			child = &ownerNode{}
			if n.children == nil {
				n.children = map[string]*ownerNode{}
			}
			n.children[level] = child
		}
		n = child
	}
	return &n.exact
}

// remove takes f out, which must be there, and reports whether n is empty now.
func (n *ownerNode) remove(f string) (empty bool) {
	level, rest, more := strings.Cut(f, "/")
	switch {
	case level == "#":
		n.deep = nil
	case more:
		if n.children[level].remove(rest) {
			delete(n.children, level)
		}
	default:
		child := n.children[level]
		if child.exact = nil; child.empty() {
			delete(n.children, level)
		}
	}
	return n.empty()
}

func (n *ownerNode) empty() bool { return n.exact == nil && n.deep == nil && len(n.children) == 0 }

// match calls found with each subscription that matches the levels in rest.
func (n *ownerNode) match(rest string, noWild bool, found func(*entry)) {
	if n.deep != nil && !noWild {
		found(n.deep)
	}
	level, below, more := strings.Cut(rest, "/")
	if level != "+" {
		n.children[level].enter(below, more, found)
	}
	if !noWild {
		n.children["+"].enter(below, more, found)
	}
}

func (n *ownerNode) enter(rest string, more bool, found func(*entry)) {
	switch {
	case n == nil:
	case more:
		n.match(rest, false, found)
	default:
		if n.exact != nil {
			found(n.exact)
		}
		if n.deep != nil {
			found(n.deep)
		}
	}
}

// meets calls v with each subscription that shares a topic with the filter in rest,
// and reports whether v had enough. Where both leave the first level open, or one
// spells it with a "$", the rule of MQTT 3.1.1 section 4.7.2 applies.
func (n *ownerNode) meets(rest string, first bool, v func(*entry) bool) bool {
	at := func(e *entry) bool { return e != nil && v(e) }
	level, below, more := strings.Cut(rest, "/")
	dollar := first && strings.HasPrefix(level, "$")
	if !dollar && at(n.deep) {
		return true
	}
	wild := level == "+" || level == "#"
	if !wild {
		return n.children[level].meetsRest(below, more, v) || !dollar && n.children["+"].meetsRest(below, more, v)
	}
	if level == "#" && at(n.exact) {
		return true
	}
	for name, child := range n.children {
		if first && strings.HasPrefix(name, "$") {
			continue
		}
		if level == "#" && child.meets("#", false, v) || level == "+" && child.meetsRest(below, more, v) {
			return true
		}
	}
	return false
}

func (n *ownerNode) meetsRest(rest string, more bool, v func(*entry) bool) bool {
	switch {
	case n == nil:
		return false
	case more && rest == "#": // "a/#" has the topic "a" too
		return n.meets("#", false, v)
	case more:
		return n.meets(rest, false, v)
	}
	return n.exact != nil && v(n.exact) || n.deep != nil && v(n.deep)
}
