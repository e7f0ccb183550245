package hub

import (
	"context"

	"flyscreen/gateway/mqtt"
)

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

// Cover is the tree of who contains whom, for tests.
type Cover struct{ root coverNode }

// Insert adds f.
func (c *Cover) Insert(f mqtt.Filter) { c.root.insert(newInterest(f)) }

// Remove takes f out.
func (c *Cover) Remove(f mqtt.Filter) { c.root.remove(string(f)) }

// Empty reports whether no node is left.
func (c *Cover) Empty() bool { return c.root.empty() }

// Above returns the filters in the tree that are above f.
func (c *Cover) Above(f mqtt.Filter) []mqtt.Filter { return visited(f, c.root.above) }

// Below returns the filters in the tree that f is above.
func (c *Cover) Below(f mqtt.Filter) []mqtt.Filter { return visited(f, c.root.below) }

func visited(f mqtt.Filter, walk func(mqtt.Filter, visit) bool) (all []mqtt.Filter) {
	walk(f, func(i *interest) bool {
		all = append(all, i.filter)
		return false
	})
	return all
}

// Covered is coveredSince for who holds no lock.
func (h *Hub) Covered(f mqtt.Filter) (seq uint64, ok bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.coveredSince(f)
}

// Interests returns how many interests there are, wanted, held or lingering, and
// how many filters and subscribers are left in all that holds them.
func (h *Hub) Interests() (interests, lingering int, nothingElse bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	empty := h.tree.empty() && h.cover.empty() && h.wanted == 0
	return len(h.interests), h.lingering.all.Len(), empty
}

// Subscribe is Join for who does not ask for the position.
func (h *Hub) Subscribe(ctx context.Context, s Subscriber, filters []mqtt.Filter) []error {
	_, errs := h.Join(ctx, s, filters)
	return errs
}
