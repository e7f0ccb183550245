package hub

import "flyscreen/gateway/mqtt"

// Tree is the filter tree, for tests.
type Tree struct{ root node }

// Insert adds f with one subscriber.
func (t *Tree) Insert(f mqtt.Filter, s Subscriber) {
	i := newInterest(f)
	i.subscribers = []Subscriber{s}
	t.root.insert(i)
}

// Remove takes f out.
func (t *Tree) Remove(f mqtt.Filter) { t.root.remove(string(f)) }

// Empty reports whether no node is left.
func (t *Tree) Empty() bool { return t.root.empty() }

// Match returns the subscribers of the filters that match topic.
func (t *Tree) Match(topic mqtt.Topic) (all []Subscriber) {
	for _, some := range t.root.match(topic, nil) {
		all = append(all, some...)
	}
	return all
}
