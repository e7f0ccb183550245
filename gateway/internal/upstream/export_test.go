package upstream

import (
	"time"

	"flyscreen/gateway/mqtt"
)

// SetOverdue shortens the wait after which a full publish connection is given up.
func (u *Upstream) SetOverdue(d time.Duration) { u.overdue = d }

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
