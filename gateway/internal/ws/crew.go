package ws

import (
	"time"
)

// crewPatience is how long a goroutine of the crew waits for more work.
const crewPatience = 100 * time.Millisecond

// crew runs functions on goroutines that are used again. To read and answer a frame
// needs a deep stack, and a goroutine that has grown one keeps it; a client's own
// goroutine only waits, so it borrows one of the crew's for the work.
type crew struct {
	work chan func()
	run  func(func()) // starts a goroutine
}

func newCrew(run func(func())) *crew { return &crew{work: make(chan func()), run: run} }

// do runs f and returns when it is done.
func (c *crew) do(f func(), done chan struct{}) {
	select {
	case c.work <- f:
	default:
		c.run(func() { c.member(f) })
	}
	<-done
}

// member does f and then whatever comes, until nothing has come for a while.
func (c *crew) member(f func()) {
	f()
	patience := time.NewTimer(crewPatience)
	defer patience.Stop()
	for {
		select {
		case f := <-c.work:
			f()
			patience.Reset(crewPatience)
		case <-patience.C:
			return
		}
	}
}
