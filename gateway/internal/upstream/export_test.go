package upstream

import (
	"time"

	"flyscreen/gateway/mqtt"
)

// SetOverdue shortens the wait after which a full publish connection is given up.
func (u *Upstream) SetOverdue(d time.Duration) { u.overdue = d }

// SetRoundLimit shortens the time of a snapshot round; only before the first.
func (u *Upstream) SetRoundLimit(d time.Duration) { u.snapshot.limit = d }

// Waiting is how many Retained calls for filter wait for their round to begin.
func (u *Upstream) Waiting(filter mqtt.Filter) int {
	q := u.snapshot
	q.mu.Lock()
	defer q.mu.Unlock()
	if r := q.waiting[filter]; r != nil {
		return r.callers
	}
	return 0
}

// Owners is what the live side knows of its subscriptions, for tests.
type Owners struct{ owners }

// NewOwners returns one without subscriptions.
func NewOwners() *Owners {
	o := &Owners{}
	o.clear()
	return o
}

// Place chooses a leg for f.
func (o *Owners) Place(f mqtt.Filter, legs int) (leg int, ok bool) {
	if e := o.place(f, legs); e != nil {
		return e.leg, true
	}
	return 0, false
}

// Remove forgets f.
func (o *Owners) Remove(f mqtt.Filter) { o.remove(f) }

// Owner is the filter that owns topic; "" when none matches.
func (o *Owners) Owner(topic mqtt.Topic) mqtt.Filter {
	if e := o.owner(topic, true); e != nil {
		return e.filter
	}
	return ""
}

// Empty reports whether no node is left.
func (o *Owners) Empty() bool { return o.root.empty() }
