package publish

// Limiters is how many clients' rates are kept.
func (d *Desk) Limiters() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.limiters)
}
