package hub

import "time"

// The broker gets at most 50 SUBSCRIBE packets in any second, each with up to
// Options.FiltersPerSubscribe filters, and as many UNSUBSCRIBE: a burst after quiet
// goes out at once, and what is wanted for less than a turn is never sent.
const (
	paceBurst  = 10
	paceSecond = 40
)

// pace counts Run's turns. The zero value has a full burst.
type pace struct {
	full time.Time // when the burst will be, or was, whole again
}

const paceTurn = time.Second / paceSecond

// wait is how long to wait until there is a turn.
func (p *pace) wait(now time.Time) time.Duration {
	return max(0, p.full.Add(-(paceBurst-1)*paceTurn).Sub(now))
}

// take uses a turn.
func (p *pace) take(now time.Time) {
	if p.full.Before(now) {
		p.full = now
	}
	p.full = p.full.Add(paceTurn)
}
