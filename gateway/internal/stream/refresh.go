package stream

import (
	"context"
	"math"
	"slices"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// A stream's principal is replaced while it is open: by a new token in band, or
// because a file, a key or a revocation changed what the old one is worth.
//
//  1. adopt makes the new grants count at once: what they forbid is taken out of all
//     that waits, and each message is held against them (Stream.fence), since the
//     hub still delivers for the old filters.
//  2. renarrow narrows the requested filters anew. It attaches to the new ones before
//     it leaves the old ones, so a message that stays permitted is delivered all the
//     time; one that both bring is delivered once, by its number. Filters that may
//     bring topics which the client could not see before get a snapshot of those, with
//     the join that every snapshot has; other topics do not wait for it.
//  3. The fence stays for the messages that were matched before the old filters were
//     left, which may still be on their way.

// always is a fence that holds for all messages.
const always = math.MaxUint64

// Refresh gives s a new principal, which must have the same Key, and returns the
// effective filters when they count; answer, which may be nil, makes the client's
// answer from them, which comes before the snapshots of what is new. The error is
// fault.NotAuthorized when nothing of the filters is left or the broker does not let
// the gateway have what the new grants allow, and the stream has ended; else ctx's, or
// that the stream is closed, with nothing changed.
func (s *Stream) Refresh(ctx context.Context, p auth.Principal, answer func(granted []mqtt.Filter) *wire.Event) ([]mqtt.Filter, error) {
	if granted, same := s.prolong(p, answer); same {
		return granted, nil
	}
	slot := s.widens(p)
	if slot { // a client that does not read cannot ask for one snapshot after the other
		if err := s.takeSlot(ctx); err != nil {
			return nil, err
		}
	}
	if !s.adopt(p) {
		return nil, errClosed
	}
	return s.renarrow(ctx, slot, answer)
}

// Over reports whether the stream has its end: nothing more is taken into it.
func (s *Stream) Over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// prolong is Refresh for a principal that may do what the present one may.
func (s *Stream) prolong(p auth.Principal, answer func([]mqtt.Filter) *wire.Event) (granted []mqtt.Filter, same bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.fence == always || !s.principal.Grants.Equal(p.Grants) {
		return nil, false
	}
	s.principal = p
	s.rights++
	s.setEnd()
	granted = s.granted()
	if answer != nil {
		s.pushEvent(answer(granted))
	}
	return granted, true
}

// granted are all effective filters. Needs s.mu.
func (s *Stream) granted() (all []mqtt.Filter) {
	for _, sub := range s.subs {
		all = union(all, sub.granted)
	}
	return all
}

// widens reports whether p may see something of the filters that the stream does
// not get now.
func (s *Stream) widens(p auth.Principal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.compare(p, s.principal.Grants.Deny)
	return len(c.snapshots) > 0
}

// adopt makes p the principal: from now on nothing reaches the client that p may
// not see, and the stream lives as long as p. It reports false when it has ended.
func (s *Stream) adopt(p auth.Principal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.replace(p)
	return true
}

// replace is adopt for who holds s.mu.
func (s *Stream) replace(p auth.Principal) {
	s.lifted = union(slices.Clip(s.lifted), s.principal.Grants.Deny)
	s.principal = p
	s.rights++
	s.setEnd()
	s.fence = always
	s.purge()
}

// change is what a principal makes of the stream's filters.
type change struct {
	subs      []*subscription      // those that remain, narrowed anew
	replaced  []*subscription      // what each was
	dropped   []*subscription      // of which nothing is left
	added     []mqtt.Filter        // to be attached to
	lost      map[mqtt.Filter]bool // of added: parts of what the stream gets now
	snapshots []mqtt.Filter
	named     []string
	effective int
	had       func(mqtt.Topic) bool // topics that the client gets now
}

// compare narrows the filters with p's grants; denied are the rules that took
// something away until now. Needs s.mu.
func (s *Stream) compare(p auth.Principal, denied []mqtt.Filter) change {
	old := s.effective.filters()
	c := change{lost: map[mqtt.Filter]bool{}, had: func(t mqtt.Topic) bool {
		return anyMatches(old, t) && !anyMatches(denied, t)
	}}
	lifted := slices.DeleteFunc(slices.Clone(denied), func(rule mqtt.Filter) bool { return slices.Contains(p.Grants.Deny, rule) })
	for _, sub := range s.subs {
		granted, err := Narrow(p, sub.filter, sub.strict)
		if err != nil {
			c.dropped = append(c.dropped, sub)
			continue
		}
		again := *sub
		again.granted, again.before = granted, nil
		c.subs, c.replaced = append(c.subs, &again), append(c.replaced, sub)
		fresh := false
		for _, f := range granted {
			part := s.effective.has(f) || slices.ContainsFunc(old, func(g mqtt.Filter) bool { return g.Contains(f) })
			if !s.effective.has(f) {
				c.added = union(c.added, []mqtt.Filter{f})
				c.lost[f] = part
			}
			if sub.snapshot && (!part || (auth.Grants{Deny: lifted}).DeniesIn(f) != nil) {
				c.snapshots, fresh = union(c.snapshots, []mqtt.Filter{f}), true
			}
		}
		if fresh && sub.named {
			c.named = append(c.named, string(sub.filter))
		}
		c.effective += len(granted)
	}
	return c
}

func anyMatches(filters []mqtt.Filter, t mqtt.Topic) bool {
	return slices.ContainsFunc(filters, func(f mqtt.Filter) bool { return f.Matches(t) })
}

// renarrow makes the stream's filters what its principal allows of the requested
// ones. slot says that the caller has taken one for the snapshots.
func (s *Stream) renarrow(ctx context.Context, slot bool, answer func([]mqtt.Filter) *wire.Event) ([]mqtt.Filter, error) {
	s.subscribing.Lock()
	defer s.subscribing.Unlock()
	s.mu.Lock()
	j := &join{slot: slot}
	if s.ended {
		s.freeSlot(j)
		s.mu.Unlock()
		return nil, errClosed
	}
	rights := s.rights
	c := s.compare(s.principal, union(slices.Clip(s.lifted), s.principal.Grants.Deny))
	if err := c.refused(); err != nil {
		s.freeSlot(j)
		s.outlawed(wire.CloseNotAuthorized, err.Detail)
		s.mu.Unlock()
		return nil, err
	}
	j.filters, j.requested, j.except = c.snapshots, c.named, c.had
	s.begin(j)
	s.mu.Unlock()
	refused, err := s.attach(ctx, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		s.hub.Leave(s)
		return nil, errClosed
	}
	if err != nil {
		s.removeJoin(j)
		s.freeSlot(j)
		s.outlawed(wire.CloseFrom(err), "what the new grants allow is not to be had: "+err.Detail)
		return nil, err
	}
	return s.settle(c, j, refused, rights, answer), nil
}

// refused is why the stream cannot go on, or nil.
func (c change) refused() *fault.Error {
	switch {
	case len(c.subs) == 0 && len(c.dropped) > 0:
		return fault.New(fault.NotAuthorized, "the new grants allow nothing of the stream's filters")
	case c.effective > maxEffective:
		return fault.New(fault.NotAuthorized, "narrowed by the new grants, the stream's filters become more than %d", maxEffective)
	}
	return nil
}

// attach joins the new filters. What the broker refuses of new topics is left out;
// an error says that something is refused that the client gets now, or that nobody
// can say.
func (s *Stream) attach(ctx context.Context, c change) (refused map[mqtt.Filter]bool, err *fault.Error) {
	if len(c.added) == 0 {
		return nil, nil
	}
	_, errs := s.hub.Join(ctx, s, c.added)
	for i, f := range c.added {
		switch {
		case errs[i] == nil:
		case fault.Is(errs[i], fault.NotAuthorized) && !c.lost[f]:
			if refused == nil {
				refused = map[mqtt.Filter]bool{}
			}
			refused[f] = true
		default:
			return nil, fault.From(errs[i])
		}
	}
	return refused, nil
}

// settle puts c in force and returns the effective filters. Needs s.mu.
func (s *Stream) settle(c change, j *join, refused map[mqtt.Filter]bool, rights uint64, answer func([]mqtt.Filter) *wire.Event) (granted []mqtt.Filter) {
	out := func(f mqtt.Filter) bool { return refused[f] }
	for _, running := range s.joins {
		running.narrowed = running.narrowed || running != j
	}
	for _, sub := range c.dropped {
		if s.sub(sub.filter) == sub { // else it was unsubscribed meanwhile
			s.forget(sub.filter)
		}
	}
	for i, sub := range c.subs {
		if s.sub(sub.filter) != c.replaced[i] {
			continue
		}
		if sub.granted = slices.DeleteFunc(sub.granted, out); len(sub.granted) == 0 {
			s.forget(sub.filter)
			continue
		}
		s.note(sub)
	}
	s.hub.Unsubscribe(s, slices.DeleteFunc(c.added, func(f mqtt.Filter) bool { return s.effective.has(f) }))
	granted = s.granted()
	if s.rights == rights && s.fence == always {
		s.fence, s.lifted = s.hub.Mark(), nil
	}
	s.remode()
	if answer != nil {
		s.pushEvent(answer(granted))
	}
	j.announced = true
	if j.filters = slices.DeleteFunc(slices.Clone(j.filters), out); len(j.filters) > 0 {
		s.run(j)
		return granted
	}
	s.removeJoin(j)
	s.freeSlot(j)
	s.release()
	return granted
}

// wanted leaves out of a snapshot what a refresh has made superfluous: topics that
// the client had all the time, and those of which nothing is subscribed to any
// more. Needs s.mu.
func (s *Stream) wanted(j *join, frames []*hub.Frame) []*hub.Frame {
	if j.except == nil && !j.narrowed {
		return frames
	}
	return slices.DeleteFunc(slices.Clone(frames), func(f *hub.Frame) bool {
		return j.except != nil && j.except(f.Topic) ||
			j.narrowed && !slices.ContainsFunc(s.subs, func(sub *subscription) bool { return sub.matches(f.Topic) })
	})
}

// outlawed ends the stream because of its rights: what waits is not delivered any
// more, nor is what the line to the client still holds. Needs s.mu.
func (s *Stream) outlawed(code wire.CloseCode, reason string) {
	s.expired.Store(true)
	s.queue.clear()
	s.ended = s.ended && s.gone // another reason, which the client has not been told yet, gives way
	s.endWith(code, reason)
}
