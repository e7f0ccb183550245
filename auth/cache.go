package auth

import (
	"crypto/sha256"
	"sync"
)

// cacheSize bounds how many verified tokens are remembered. When it is full the
// oldest gives way; that one is verified anew when it comes again.
const cacheSize = 4096

// cache remembers the principals of tokens that were verified, so that a device
// that sends the same token with each request costs one hash instead of one
// signature check. Only good tokens get in, so nobody can flush it without
// holding thousands of them. It knows no time: who takes a principal out looks at
// its end. It is safe for concurrent use.
type cache struct {
	mu sync.Mutex // guards what follows
	of map[digest]Principal
	// ring holds the keys of the map in the order of their coming; next is the
	// place of the oldest once the ring is full.
	ring []digest
	next int
}

// digest stands for a token, so that the cache holds no credentials.
type digest [sha256.Size]byte

func newCache() *cache { return &cache{of: map[digest]Principal{}} }

func (c *cache) get(d digest) (Principal, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.of[d]
	return p, ok
}

func (c *cache) put(d digest, p Principal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, present := c.of[d]; present {
		return // two requests verified it at the same time
	}
	if len(c.ring) < cacheSize {
		c.ring = append(c.ring, d)
	} else {
		delete(c.of, c.ring[c.next])
		c.ring[c.next] = d
		c.next = (c.next + 1) % cacheSize
	}
	c.of[d] = p
}
