package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"

	"flyscreen/gateway/fault"
)

const (
	// TicketLife is how long a ticket may be used, once.
	TicketLife = 30 * time.Second
	// maxTickets and maxTicketsEach bound those that are not used yet, in all and
	// for one principal.
	maxTickets     = 10_000
	maxTicketsEach = 20

	ticketPrefix = "fst_"
)

// ticketStore keeps the tickets that were given out, as hashes. A ticket lives in
// this process only: it must be used at the node that gave it.
type ticketStore struct {
	now func() time.Time

	mu    sync.Mutex // guards what follows
	open  map[digest]ticket
	each  map[string]int // by Principal.Key
	order []digest       // oldest first; used ones stay until their time is over
}

type ticket struct {
	principal Principal
	ends      time.Time
}

func newTicketStore(now func() time.Time) *ticketStore {
	return &ticketStore{now: now, open: map[digest]ticket{}, each: map[string]int{}}
}

// IssueTicket makes a ticket that stands for p, once and for TicketLife. The error
// is a *fault.Error: Unauthenticated for an anonymous p, RateLimited or Overloaded
// when too many tickets are open.
func (a *Authenticator) IssueTicket(p Principal) (string, error) {
	if p.Anonymous {
		return "", errNoCredential()
	}
	return a.tickets.issue(p)
}

// Ticket uses a ticket up and returns whom it stands for, as Current knows it. The
// error is a *fault.Error: Unauthenticated, or Current's.
func (a *Authenticator) Ticket(text string) (Principal, error) {
	p, ok := a.tickets.take(text)
	if !ok {
		err := fault.New(fault.Unauthenticated, "the ticket is not known here, was used already, or is older than %s", TicketLife)
		a.metrics.refused(err)
		return Principal{}, err
	}
	return a.Current(p)
}

func (s *ticketStore) issue(p Principal) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	switch {
	case s.each[p.Key()] >= maxTicketsEach:
		return "", fault.New(fault.RateLimited, "%d tickets of this subject are not used yet", maxTicketsEach).Retry(TicketLife)
	case len(s.order) >= maxTickets:
		return "", fault.New(fault.Overloaded, "too many tickets are open").Retry(TicketLife)
	}
	text := ticketPrefix + rand.Text()
	name := digest(sha256.Sum256([]byte(text)))
	s.open[name] = ticket{p, s.now().Add(TicketLife)}
	s.each[p.Key()]++
	s.order = append(s.order, name)
	return text, nil
}

// take returns a ticket's principal and forgets the ticket.
func (s *ticketStore) take(text string) (Principal, bool) {
	name := digest(sha256.Sum256([]byte(text)))
	s.mu.Lock()
	defer s.mu.Unlock()
	t, open := s.open[name]
	s.forget(name)
	return t.principal, open && s.now().Before(t.ends)
}

// sweep forgets what is over. Needs s.mu.
func (s *ticketStore) sweep() {
	for len(s.order) > 0 {
		t, open := s.open[s.order[0]]
		if open && s.now().Before(t.ends) {
			return
		}
		s.forget(s.order[0])
		s.order = s.order[1:]
	}
}

// forget needs s.mu.
func (s *ticketStore) forget(name digest) {
	t, open := s.open[name]
	if !open {
		return
	}
	delete(s.open, name)
	if s.each[t.principal.Key()]--; s.each[t.principal.Key()] == 0 {
		delete(s.each, t.principal.Key())
	}
}
