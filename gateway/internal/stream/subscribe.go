package stream

import (
	"context"
	"slices"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// Request asks for one filter.
type Request struct {
	Filter   mqtt.Filter
	QoS      mqtt.QoS // ceiling
	Snapshot bool     // the retained messages first
	Strict   bool     // all of the filter or nothing
}

// Result answers a Request: the effective filters, or why there are none.
type Result struct {
	Filter  mqtt.Filter
	Granted []mqtt.Filter
	QoS     mqtt.QoS
	Err     error
}

type subscription struct {
	filter    mqtt.Filter
	granted   []mqtt.Filter
	snapshot  bool
	named     bool // the client names its filters in "live"
	announced bool
	before    *subscription // what it replaces, until it is announced
}

// maxEffective is how many narrowed filters one stream may have.
const maxEffective = 1000

// maxQoS is the highest QoS that a stream is given: one delivery path to a
// browser cannot keep "exactly once".
const maxQoS mqtt.QoS = 1

// Narrow returns what principal may subscribe to of f, or a fault that names f.
func Narrow(principal auth.Principal, f mqtt.Filter, strict bool) ([]mqtt.Filter, error) {
	if strict {
		if _, ok := principal.Grants.Covers(f); !ok {
			return nil, fault.New(fault.NotAuthorized, "no single grant covers the filter %q, as strict demands", f)
		}
		return []mqtt.Filter{f}, nil
	}
	granted, _ := principal.Grants.Narrow(f)
	if len(granted) == 0 {
		return nil, fault.New(fault.NotAuthorized, "no grant allows anything of the filter %q", f)
	}
	return granted, nil
}

// Subscribe narrows each request with the principal's grants, subscribes to what
// remains and returns when the broker has answered and the client's answer, made
// by answer from the results, is queued. No message of the new filters
// comes before that answer; the snapshot and its live event follow by themselves.
// named says whether live lists the filters. answer must not call the stream.
//
// Subscribing again to a filter takes a new snapshot. One goroutine at a time may
// call Subscribe.
func (s *Stream) Subscribe(ctx context.Context, requests []Request, named bool, answer func([]Result) []*wire.Event) []Result {
	if err := s.takeSlot(ctx); err != nil { // the connection is over: nobody waits for an answer
		return nil
	}
	results, j := s.prepare(requests, named)
	s.askBroker(ctx, results)

	s.mu.Lock()
	defer s.mu.Unlock()
	var wanted []mqtt.Filter
	for i, r := range results {
		sub := s.subs[r.Filter]
		if r.Err != nil {
			s.restore(sub)
			continue
		}
		sub.announced, sub.before = true, nil
		if requests[i].Snapshot {
			wanted = union(wanted, r.Granted)
		}
		if named {
			j.requested = append(j.requested, string(r.Filter))
		}
	}
	for _, e := range answer(results) {
		s.pushEvent(e)
	}
	j.filters, j.announced = wanted, true
	if len(wanted) == 0 {
		s.removeJoin(j)
		if slices.ContainsFunc(results, func(r Result) bool { return r.Err == nil }) {
			s.pushEvent(wire.NewEvent("live", wire.Live{Filters: j.requested, Complete: true}))
		}
	}
	s.release()
	if len(wanted) > 0 {
		s.run(j)
	} else {
		s.freeSlot(j)
	}
	return results
}

// prepare narrows, notes the subscriptions and starts to keep their messages
// aside.
func (s *Stream) prepare(requests []Request, named bool) ([]Result, *join) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := &join{slot: true}
	results := make([]Result, len(requests))
	for i, q := range requests {
		r := Result{Filter: q.Filter, QoS: min(q.QoS, maxQoS)}
		if _, again := s.subs[q.Filter]; !again && len(s.subs) >= s.limits.Filters {
			r.Err = fault.New(fault.BadRequest, "a connection may hold %d filters", s.limits.Filters)
		} else if r.Granted, r.Err = s.narrow(q); r.Err == nil {
			s.note(&subscription{filter: q.Filter, granted: r.Granted, snapshot: q.Snapshot, named: named, before: s.subs[q.Filter]})
			j.filters = union(j.filters, r.Granted)
		}
		results[i] = r
	}
	s.begin(j)
	return results, j
}

// narrow is Narrow with a bound on what many grants can make of few filters.
// Needs s.mu.
func (s *Stream) narrow(q Request) ([]mqtt.Filter, error) {
	granted, err := Narrow(s.principal, q.Filter, q.Strict)
	if err == nil && len(s.effective)+len(granted) > maxEffective {
		return nil, fault.New(fault.BadRequest, "narrowed by the grants, the connection's filters become more than %d", maxEffective)
	}
	return granted, err
}

// restore undoes a subscription that failed: an older one for the same filter goes
// on. Needs s.mu.
func (s *Stream) restore(sub *subscription) {
	switch {
	case sub == nil || sub.announced: // it was not this call's
	case sub.before != nil:
		s.note(sub.before)
	default:
		s.forget(sub.filter)
	}
}

// note adds sub, in place of an older one for the same filter. Needs s.mu.
func (s *Stream) note(sub *subscription) {
	for _, f := range sub.granted {
		s.effective[f]++
	}
	s.forget(sub.filter)
	s.subs[sub.filter] = sub
}

// forget removes the subscription to f, if there is one. Needs s.mu.
func (s *Stream) forget(f mqtt.Filter) {
	sub := s.subs[f]
	if sub == nil {
		return
	}
	delete(s.subs, f)
	var unused []mqtt.Filter
	for _, g := range sub.granted {
		if s.effective[g]--; s.effective[g] == 0 {
			delete(s.effective, g)
			unused = append(unused, g)
		}
	}
	if len(unused) > 0 {
		s.hub.Unsubscribe(s, unused)
	}
}

// askBroker subscribes upstream and strikes what the broker refuses from the
// results.
func (s *Stream) askBroker(ctx context.Context, results []Result) {
	var all []mqtt.Filter
	for _, r := range results {
		all = union(all, r.Granted)
	}
	verdicts := make(map[mqtt.Filter]error, len(all))
	for n, err := range s.hub.Subscribe(ctx, s, all) {
		verdicts[all[n]] = err
	}
	for i := range results {
		r := &results[i]
		asked := r.Granted
		r.Granted = nil
		for _, f := range asked {
			if err := verdicts[f]; err == nil {
				r.Granted = append(r.Granted, f)
			} else if r.Err == nil {
				r.Err = err
			}
		}
		if len(r.Granted) > 0 {
			r.Err = nil
		}
	}
	s.strike(results)
}

// strike makes the subscriptions hold only what the broker granted.
func (s *Stream) strike(results []Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range results {
		if sub := s.subs[r.Filter]; sub != nil && r.Err == nil && len(r.Granted) < len(sub.granted) {
			smaller := *sub
			smaller.granted = r.Granted
			s.note(&smaller)
		}
	}
}

// Unsubscribe removes filters, as they were requested. Messages that wait already
// are still delivered.
func (s *Stream) Unsubscribe(filters []mqtt.Filter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range filters {
		s.forget(f)
	}
}

// Authenticate sets the stream's principal, before the first Subscribe, and arms
// the end at its expiry. It fails when the subject has too many streams.
func (s *Stream) Authenticate(p auth.Principal) error {
	if err := s.registry.claim(s, p); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.principal = p
	if !p.Ends.IsZero() {
		s.expiry = time.AfterFunc(time.Until(p.Ends), s.expire)
		s.warning = time.AfterFunc(max(time.Until(p.Expires.Add(-expiryWarning)), greeting), s.warn)
	}
	return nil
}

// greeting is how long the warning of a token that expires soon waits for the
// stream's first event, so that it does not come before it.
const greeting = time.Second

// greeted is called behind each event; the warning need not wait any more. Needs
// s.mu.
func (s *Stream) greeted() {
	if s.warning != nil && !s.warned && time.Until(s.principal.Expires) < expiryWarning {
		s.warning.Reset(0)
	}
}

// warn tells that the token expires soon, once.
func (s *Stream) warn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.warned {
		return
	}
	s.warned = true
	left := max(0, time.Until(s.principal.Expires))
	s.pushEvent(wire.NewEvent("token_expiring", wire.TokenExpiring{Seconds: int(left.Round(time.Second).Seconds())}))
}

// expire ends the stream at once: what waits is not delivered any more.
func (s *Stream) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired.Store(true)
	if !s.ended {
		s.queue.clear()
		s.end(wire.CloseUnauthenticated, "the token has expired")
	}
}

// union appends to a what of b it lacks.
func union(a, b []mqtt.Filter) []mqtt.Filter {
	has := make(map[mqtt.Filter]struct{}, len(a)+len(b))
	for _, f := range a {
		has[f] = struct{}{}
	}
	for _, f := range b {
		if _, is := has[f]; !is {
			has[f] = struct{}{}
			a = append(a, f)
		}
	}
	return a
}
