package auth

import (
	"crypto/sha256"
	"sync"
)

// cacheSize bounds how many verified tokens are remembered. When it is full the
// oldest gives way; that one is verified anew when it comes again.
const cacheSize = 4096

// cache remembers what was found out at some cost. For tokens that are their
// principals, so that a device that sends the same token with each request costs
// one hash instead of one signature check. Only good tokens get in, so nobody can
// flush it without holding thousands of them. It knows no time: who takes
// something out looks whether it still holds. It is safe for concurrent use.
type cache[V any] struct {
	mu sync.Mutex // guards what follows
	of map[digest]V
	// ring holds the keys of the map in the order of their coming; next is the
	// place of the oldest once the ring is full.
	ring []digest
	next int
}

// digest stands for a credential or a key, so that no table holds credentials.
type digest [sha256.Size]byte

func newCache[V any]() *cache[V] { return &cache[V]{of: map[digest]V{}} }

func (c *cache[V]) get(d digest) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.of[d]
	return v, ok
}

// put keeps v, also in place of an older value.
func (c *cache[V]) put(d digest, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, present := c.of[d]
	c.of[d] = v
	switch {
	case present:
	case len(c.ring) < cacheSize:
		c.ring = append(c.ring, d)
	default:
		delete(c.of, c.ring[c.next])
		c.ring[c.next] = d
		c.next = (c.next + 1) % cacheSize
	}
}
