package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"runtime"
	"sync"
	"time"

	"flyscreen/gateway/fault"
)

const (
	// verdictLife is how long the outcome of a check is remembered since its last
	// use. A change of the line ends it at once.
	verdictLife = 10 * time.Minute
	// maxChecks is how many checks may wait for their turn; further ones are told
	// to come later.
	maxChecks = 64
	// retryChecks is what they are told.
	retryChecks = 2 * time.Second
	// wrongBurst wrong passwords an address may send, and one more each wrongEvery.
	wrongBurst = 10
	wrongEvery = 6 * time.Second
	// maxAddresses bounds how many addresses are remembered for that.
	maxAddresses = 10_000
)

// passwordGuard checks passwords without letting the work become a weapon. A hash
// is slow on purpose, so: few are computed at a time; an outcome, good or bad, is
// remembered, and those who send the same again cost nothing; an address that
// sends many different wrong ones is refused before anything is computed.
type passwordGuard struct {
	key   [32]byte // of the HMAC under which outcomes are remembered: no password is kept
	now   func() time.Time
	known *cache[verdict]
	slots chan struct{} // one for each check that runs
	queue chan struct{} // one for each that runs or waits

	mu    sync.Mutex // guards what follows
	wrong map[string]allowance
}

type verdict struct {
	fits bool
	used time.Time
}

// allowance is how many wrong passwords an address had left at some time.
type allowance struct {
	left float64
	at   time.Time
}

func newPasswordGuard(now func() time.Time) *passwordGuard {
	running := max(1, runtime.GOMAXPROCS(0)/2)
	g := &passwordGuard{
		now: now, known: newCache[verdict](), wrong: map[string]allowance{},
		slots: make(chan struct{}, running), queue: make(chan struct{}, running+maxChecks),
	}
	_, _ = rand.Read(g.key[:]) // never fails
	return g
}

func (g *passwordGuard) check(ctx context.Context, line password, user, secret, address string) (bool, error) {
	name := g.name(line, user, secret)
	if v, known := g.known.get(name); known && g.now().Sub(v.used) < verdictLife {
		g.known.put(name, verdict{v.fits, g.now()})
		return v.fits, nil
	}
	if wait := g.blocked(address); wait > 0 {
		return false, fault.New(fault.RateLimited, "too many wrong passwords came from this address").Retry(wait)
	}
	select {
	case g.queue <- struct{}{}:
		defer func() { <-g.queue }()
	default:
		return false, fault.New(fault.Overloaded, "too many passwords wait to be checked").Retry(retryChecks)
	}
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	case <-ctx.Done():
		return false, fault.New(fault.Overloaded, "the password could not be checked in time").Retry(retryChecks).Because(ctx.Err())
	}
	fits := subtle.ConstantTimeCompare(line.derive(secret), line.hash) == 1
	g.known.put(name, verdict{fits, g.now()})
	if !fits {
		g.count(address)
	}
	return fits, nil
}

// name is what an outcome is remembered under.
func (g *passwordGuard) name(line password, user, secret string) (d digest) {
	mac := hmac.New(sha256.New, g.key[:])
	for _, part := range []string{string(line.print[:]), user, secret} {
		_, _ = fmt.Fprintf(mac, "%d:%s", len(part), part) // a hash takes everything
	}
	mac.Sum(d[:0])
	return d
}

// blocked returns how long the address must wait; zero when it need not.
func (g *passwordGuard) blocked(address string) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if left := g.left(address); left < 1 {
		return time.Duration((1 - left) * float64(wrongEvery))
	}
	return 0
}

// left needs g.mu.
func (g *passwordGuard) left(address string) float64 {
	a, known := g.wrong[address]
	if !known {
		return wrongBurst
	}
	return min(wrongBurst, a.left+float64(g.now().Sub(a.at))/float64(wrongEvery))
}

// count notes a wrong password.
func (g *passwordGuard) count(address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.wrong) >= maxAddresses {
		for other := range g.wrong {
			if g.left(other) >= wrongBurst {
				delete(g.wrong, other)
			}
		}
		if len(g.wrong) >= maxAddresses { // all of them are bad; the pace of checks still bounds them
			return
		}
	}
	g.wrong[address] = allowance{g.left(address) - 1, g.now()}
}
