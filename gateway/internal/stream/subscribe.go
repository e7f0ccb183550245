package stream

import (
	"context"
	"slices"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// Request asks for one filter.
type Request struct {
	Filter   mqtt.Filter
	QoS      mqtt.QoS // ceiling
	Snapshot bool     // the retained messages first
	Strict   bool     // all of the filter or nothing
	Mode     Mode
}

// Subscription is what one call of Subscribe asks for.
type Subscription struct {
	Requests []Request
	// Since, where it is given, is the position up to which the client has seen
	// everything of all the filters.
	Since hub.Position
	// Named says whether "live" lists the filters.
	Named bool
}

// Result answers a Request: the effective filters, or why there are none.
type Result struct {
	Filter  mqtt.Filter
	Granted []mqtt.Filter
	QoS     mqtt.QoS
	Err     error
}

// Outcome is what became of a Subscription.
type Outcome struct {
	Results []Result
	// Resumed says that what came after Since follows, and no snapshot. Where it is
	// false although Since was given, a gap event with its reason follows the answer.
	Resumed bool
	// Cursor is the position at which the new filters' messages begin: Since, where
	// the stream resumed.
	Cursor string
}

// granted is every effective filter, once.
func (o Outcome) granted() (all []mqtt.Filter) {
	if len(o.Results) == 1 {
		return o.Results[0].Granted
	}
	for _, r := range o.Results {
		all = union(all, r.Granted)
	}
	return all
}

type subscription struct {
	filter    mqtt.Filter
	granted   []mqtt.Filter
	mode      Mode
	snapshot  bool
	strict    bool
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
// by answer from the outcome, is queued. No message of the new filters
// comes before that answer; the snapshot, or what the client missed, and the live
// event follow by themselves. answer must not call the stream.
//
// Subscribing again to a filter takes a new snapshot, and its mode becomes the new
// one. The error is ctx's, or that the stream is closed: nobody waits for an answer.
func (s *Stream) Subscribe(ctx context.Context, q Subscription, answer func(Outcome) []*wire.Event) (Outcome, error) {
	if err := s.takeSlot(ctx); err != nil {
		return Outcome{}, err
	}
	s.subscribing.Lock()
	defer s.subscribing.Unlock()
	o, j, before := s.prepare(q)
	mark := s.askBroker(ctx, o.Results)
	var replay []*hub.Frame
	gap := ""
	if fresh := o.granted(); q.Since.Given() && len(fresh) > 0 {
		replay, gap = s.hub.Replay(q.Since, mark, fresh, before)
		o.Resumed = gap == ""
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed { // while the broker was asked
		s.hub.Leave(s)
		return o, errClosed
	}
	if o.Resumed && s.hub.Reconnected(mark) { // meanwhile: what is replayed has a hole behind it
		o.Resumed, replay, gap = false, nil, wire.GapUpstream
	}
	o.Cursor = s.hub.CursorAt(s.begins(q, o, mark))
	wanted := s.announce(q, o, j)
	for _, e := range answer(o) {
		s.pushEvent(e)
	}
	if gap != "" {
		s.gap(nil, gap)
	}
	j.announced = true
	if o.Resumed {
		wanted = nil
		s.queue.pushBatch(s.withoutReplaced(s.permitted(replay)))
	}
	if j.filters = wanted; len(wanted) > 0 {
		s.release()
		s.run(j)
		return o, nil
	}
	s.removeJoin(j)
	if slices.ContainsFunc(o.Results, func(r Result) bool { return r.Err == nil }) {
		live := wire.NewEvent("live", wire.Live{Filters: j.requested, Complete: true})
		s.pushEventThen(live, func() { s.freeSlot(j) })
	} else {
		s.freeSlot(j)
	}
	s.release()
	return o, nil
}

// begins is the position from which on the stream has o's messages, where it was
// attached at mark. Needs s.mu.
func (s *Stream) begins(q Subscription, o Outcome, mark uint64) uint64 {
	if o.Resumed {
		return q.Since.Seq()
	}
	position := max(mark, s.hub.CoveredSince(o.granted()))
	if hold := s.hold(); hold > 0 {
		return min(position, hold)
	}
	return position
}

// announce makes the new subscriptions count and returns the filters of which a
// snapshot is wanted. Needs s.mu.
func (s *Stream) announce(q Subscription, o Outcome, j *join) (wanted []mqtt.Filter) {
	for i, r := range o.Results {
		sub := s.sub(r.Filter)
		if r.Err != nil {
			s.restore(sub)
			continue
		}
		sub.announced, sub.before = true, nil
		if q.Requests[i].Snapshot {
			wanted = union(wanted, r.Granted)
		}
		if q.Named {
			j.requested = append(j.requested, string(r.Filter))
		}
	}
	s.remode()
	return wanted
}

// withoutReplaced leaves out of a replay what something newer of its topic
// replaces, where the mode says so. Needs s.mu.
func (s *Stream) withoutReplaced(frames []*hub.Frame) []*hub.Frame {
	if s.uniform && !s.mode.Latest {
		return frames
	}
	seen := map[mqtt.Topic]struct{}{}
	kept := len(frames)
	for i := len(frames) - 1; i >= 0; i-- {
		f := frames[i]
		if _, newer := seen[f.Topic]; newer && !f.Lost && s.modeOf(f.Topic).Latest {
			continue
		}
		seen[f.Topic] = struct{}{}
		kept--
		frames[kept] = f
	}
	return frames[kept:]
}

// prepare narrows, notes the subscriptions and starts to keep their messages
// aside. before reports the topics that the stream got already; nil: none.
func (s *Stream) prepare(q Subscription) (o Outcome, j *join, before func(mqtt.Topic) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.effective.len() > 0 && q.Since.Given() {
		held := s.effective.filters()
		before = func(t mqtt.Topic) bool {
			return slices.ContainsFunc(held, func(f mqtt.Filter) bool { return f.Matches(t) })
		}
	}
	j = &join{slot: true}
	o.Results = make([]Result, len(q.Requests))
	for i, one := range q.Requests {
		r := Result{Filter: one.Filter, QoS: min(one.QoS, maxQoS)}
		if again := s.sub(one.Filter); again == nil && len(s.subs) >= s.registry.limits.Filters {
			r.Err = fault.New(fault.BadRequest, "a connection may hold %d filters", s.registry.limits.Filters)
		} else if r.Granted, r.Err = s.narrow(one); r.Err == nil {
			s.note(&subscription{
				filter: one.Filter, granted: r.Granted, mode: one.Mode, snapshot: one.Snapshot, strict: one.Strict, named: q.Named, before: again,
			})
			j.filters = union(j.filters, r.Granted)
		}
		o.Results[i] = r
	}
	s.begin(j)
	return o, j, before
}

// narrow is Narrow with a bound on what many grants can make of few filters.
// Needs s.mu.
func (s *Stream) narrow(q Request) ([]mqtt.Filter, error) {
	granted, err := Narrow(s.principal, q.Filter, q.Strict)
	if err == nil && s.effective.len()+len(granted) > maxEffective {
		return nil, fault.New(fault.BadRequest, "narrowed by the grants, the connection's filters become more than %d", maxEffective)
	}
	return granted, err
}

// sub is the subscription to f, or nil. Needs s.mu.
func (s *Stream) sub(f mqtt.Filter) *subscription {
	for _, sub := range s.subs {
		if sub.filter == f {
			return sub
		}
	}
	return nil
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
		s.effective.add(f)
	}
	s.forget(sub.filter)
	s.subs = append(s.subs, sub)
	s.blend()
}

// forget removes the subscription to f, if there is one. Needs s.mu.
func (s *Stream) forget(f mqtt.Filter) {
	sub := s.sub(f)
	if sub == nil {
		return
	}
	s.subs = slices.DeleteFunc(s.subs, func(other *subscription) bool { return other == sub })
	s.blend()
	var unused []mqtt.Filter
	for _, g := range sub.granted {
		if s.effective.drop(g) {
			unused = append(unused, g)
		}
	}
	if len(unused) > 0 {
		s.hub.Unsubscribe(s, unused)
	}
}

// askBroker subscribes upstream and strikes what the broker refuses from the
// results. mark is the position from which on messages are delivered.
func (s *Stream) askBroker(ctx context.Context, results []Result) (mark uint64) {
	all := Outcome{Results: results}.granted()
	if len(all) == 0 {
		return 0
	}
	mark, errs := s.hub.Join(ctx, s, all)
	if !slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		return mark
	}
	verdicts := make(map[mqtt.Filter]error, len(all))
	for n, err := range errs {
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
	return mark
}

// strike makes the subscriptions hold only what the broker granted.
func (s *Stream) strike(results []Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range results {
		if sub := s.sub(r.Filter); sub != nil && r.Err == nil && len(r.Granted) < len(sub.granted) {
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
	s.remode()
}

// union appends to a what of b it lacks.
func union(a, b []mqtt.Filter) []mqtt.Filter {
	if len(a) == 0 {
		return slices.Clip(b)
	}
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
