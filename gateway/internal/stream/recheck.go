package stream

import (
	"context"
	"sync"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/wire"
)

// recheckers is how many streams are narrowed anew at a time: each may have to wait
// for the broker.
const recheckers = 16

// Trust makes the registry ask current what a principal is worth: when a stream is
// authenticated, and in Recheck. It is called before the first Open.
func (r *Registry) Trust(current func(auth.Principal) (auth.Principal, error)) { r.current = current }

// Recheck looks at the rights of all open streams again, because credentials may
// have been withdrawn or may allow something else: it ends the streams whose
// principal counts no more, and narrows those that may do less or other things. From
// the moment at which it passes a stream nothing that is not allowed any more is
// delivered. told is called for each stream that was ended, with the reason, on
// several goroutines. It returns when all is done.
func (r *Registry) Recheck(ctx context.Context, told func(p auth.Principal, address string, err error)) {
	r.mu.Lock()
	all := make([]*Stream, 0, len(r.streams))
	for s := range r.streams {
		all = append(all, s)
	}
	r.mu.Unlock()
	var changed []*Stream
	for _, s := range all {
		p, again, err := s.recheck()
		if err != nil {
			told(p, s.address, err)
		} else if again {
			changed = append(changed, s)
		}
	}
	slots := make(chan struct{}, recheckers)
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, s := range changed {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if _, err := s.renarrow(ctx, false, nil); err != nil && err != errClosed { //nolint:errorlint // our own, never wrapped
				told(s.Principal(), s.address, err)
			}
		})
	}
}

// recheck ends s if its principal counts no more; again says that it may do other
// things now and must be narrowed anew. The question is asked under the lock, so that
// no refresh comes between it and the answer; it waits for nothing.
func (s *Stream) recheck() (p auth.Principal, again bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p = s.principal; !s.known || s.gone {
		return p, false, nil
	}
	now, err := s.registry.current(p)
	if err != nil {
		code := wire.CloseFrom(err)
		if auth.Revoked(err) {
			code = wire.CloseRevoked
		}
		s.outlawed(code, fault.From(err).Detail)
		return p, false, err
	}
	if s.ended || now.Grants.Equal(p.Grants) {
		return p, false, nil
	}
	s.replace(now)
	return p, true, nil
}
