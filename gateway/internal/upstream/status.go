package upstream

import "time"

// Connection is the state of one connection, for people.
type Connection struct {
	Role     string
	ClientID string
	Up       bool
	Silent   bool          // up, but not heard of for longer than a healthy one
	Since    time.Time     // up or down
	RTT      time.Duration // of the last ping; 0 while down
	// Cause is why it is or was last down, and Failed when that began; nil if it
	// never was.
	Cause  error
	Failed time.Time
}

// Connections returns the state of all connections that are needed.
func (u *Upstream) Connections() []Connection {
	var all []Connection
	for _, l := range u.links {
		if !l.unused() {
			all = append(all, l.status())
		}
	}
	return all
}

func (l *link) status() Connection {
	c := Connection{Role: string(l.role), ClientID: l.clientID()}
	l.mu.Lock()
	c.Cause, c.Failed = l.cause, l.since
	l.mu.Unlock()
	c.Since = c.Failed
	if s := l.current.Load(); s != nil && !s.over() {
		c.Up, c.Since, c.RTT = true, s.began, time.Duration(s.conn.rtt.Load())
		c.Silent = s.conn.silence() > l.u.patience()
	}
	if c.Since.IsZero() { // not tried to the end yet
		c.Since = l.u.began
	}
	return c
}
