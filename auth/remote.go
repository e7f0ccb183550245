package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// refreshEvery is how old a key set may become: a withdrawn key stops working
	// within it. Refreshes begin a little earlier, for the fetch and one more try.
	refreshEvery = 5 * time.Minute
	refreshAhead = 30 * time.Second
	// refetchEvery bounds how often unknown keys make the set be fetched again.
	refetchEvery = 10 * time.Second
	// retryFirst and retryLongest are the pauses after failures, doubled each time.
	retryFirst   = 1 * time.Second
	retryLongest = 30 * time.Second
	// maxWaiting bounds the requests that wait for one fetch; further ones are
	// refused at once.
	maxWaiting = 256
)

// remoteKeys keeps an issuer's key set as its server has it. One goroutine (run)
// does all fetches, one at a time.
//
// A token of a known key never waits here. One of an unknown key asks for a fetch
// and waits for its end, or until its own context is done; but a fetch begins at
// most every refetchEvery. Requests in between are refused without a fetch, so
// that bogus names cost the key server six requests a minute, however many come.
// They cannot hold back a rotation: the allowance is not a budget that somebody
// could use up, it is a rhythm. While bogus names keep coming there is a fetch
// every ten seconds, and each of them brings the new keys for everybody.
type remoteKeys struct {
	name     string // of the issuer
	address  string
	discover bool // address is an OpenID provider's, not the set's
	fetcher  fetcher
	log      *slog.Logger
	metrics  metrics
	store    func(keySet) // makes the set that of the issuer
	wanted   chan struct{}

	mu      sync.Mutex    // guards what follows
	running bool          // run is there to serve what is wanted
	begun   time.Time     // when the last fetch began
	flight  chan struct{} // closed at the end of the fetch that is wanted or runs; nil without one
	waiting int           // how many wait for flight
	loaded  bool          // there has been a good answer
	failure error         // of the last fetch
}

// run keeps the set fresh until ctx is done.
func (r *remoteKeys) run(ctx context.Context) {
	r.setRunning(true)
	defer r.setRunning(false)
	next := time.NewTimer(0)
	defer next.Stop()
	pause := retryFirst
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wanted:
		case <-next.C:
		}
		r.begin()
		err := r.fetch(ctx)
		r.end(err)
		if err == nil {
			pause = retryFirst
			// Spread, so that the nodes of a cluster do not come all at once.
			next.Reset(refreshEvery - refreshAhead - rand.N(refreshAhead)) //nolint:gosec // not a secret: it only spreads load
			continue
		}
		next.Reset(pause)
		pause = min(2*pause, retryLongest)
	}
}

// fetch gets and stores the set. A failure, or a set without a usable key, leaves
// the old one.
func (r *remoteKeys) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	address := r.address
	if r.discover {
		var err error
		if address, err = r.fetcher.discover(ctx, address); err != nil {
			return explained(err)
		}
	}
	text, err := r.fetcher.get(ctx, address)
	if err != nil {
		return explained(err)
	}
	set, unfit, err := parseJWKS(text)
	if err == nil && len(set.keys) == 0 {
		err = errors.Join(append([]error{errNoKeys}, unfit...)...)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	for _, why := range unfit {
		r.log.Warn("a key of an issuer is left out", "issuer", r.name, "err", why)
	}
	r.store(set)
	return nil
}

func (r *remoteKeys) setRunning(running bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = running
	if !running && r.flight != nil { // wanted, but never begun
		close(r.flight)
		r.flight = nil
	}
}

// begin notes the time, and makes the flight that nobody has asked for.
func (r *remoteKeys) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun = time.Now()
	if r.flight == nil {
		r.flight = make(chan struct{})
	}
	select {
	case <-r.wanted: // this fetch serves it
	default:
	}
}

// end lets those go on that wait.
func (r *remoteKeys) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.flight)
	r.flight = nil
	was := r.failure
	r.failure = err
	r.loaded = r.loaded || err == nil
	r.metrics.fetched(err)
	switch {
	case err != nil && (was == nil || was.Error() != err.Error()): // once for each reason, not for each try
		r.log.Warn("the keys of an issuer cannot be fetched", "issuer", r.name, "err", err, "have_older", r.loaded)
	case err == nil && was != nil:
		r.log.Info("the keys of an issuer are fetched again", "issuer", r.name)
	}
}

// refetch waits for a fetch that may bring a key that is missing. It returns at
// once when there has been one just now, and at the latest when ctx is done.
func (r *remoteKeys) refetch(ctx context.Context) {
	flight := r.join()
	if flight == nil {
		return
	}
	select {
	case <-flight:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting--
}

// join returns the flight to wait for, which it may have asked for; nil if there
// is none to come.
func (r *remoteKeys) join() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.running || r.waiting >= maxWaiting {
		return nil
	}
	if r.flight == nil {
		if time.Since(r.begun) < refetchEvery {
			return nil
		}
		r.flight = make(chan struct{})
		select {
		case r.wanted <- struct{}{}:
		default: // left over from a run that ended; it serves this flight too
		}
	}
	r.waiting++
	return r.flight
}

// ready says why there are no keys; nil when there are.
func (r *remoteKeys) ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.loaded:
		return nil
	case r.failure != nil:
		return fmt.Errorf("the keys of the issuer %q are not there yet: %w", r.name, r.failure)
	}
	return fmt.Errorf("the keys of the issuer %q are not there yet", r.name)
}
