package outbox

// Expire puts what is too old into quarantine, as the lines do from time to time.
func (o *Outbox) Expire() {
	for _, l := range o.lines {
		l.expire()
	}
}
