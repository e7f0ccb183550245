package auth_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
)

func TestTicket(t *testing.T) {
	at := clock
	a := withOptions(t, auth.Options{Issuers: []auth.Issuer{{Secret: secret}}, Now: func() time.Time { return at }})
	dash := must(a.Token(hs(hs256, good)))
	ticket := must(a.IssueTicket(dash))
	if p, err := a.Ticket(ticket); err != nil || p.Subject != "dash" || len(p.Grants.Sub) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
	const refused = "the ticket is not known here, was used already, or is older than 30s"
	want := func(what, ticket string) {
		t.Helper()
		_, err := a.Ticket(ticket)
		if !fault.Is(err, fault.Unauthenticated) || fault.From(err).Detail != refused {
			t.Errorf("%s: %v", what, err)
		}
	}
	want("used", ticket)
	want("invented", ticket[:len(ticket)-1]+"0")
	want("empty", "")
	last, late := must(a.IssueTicket(dash)), must(a.IssueTicket(dash))
	at = at.Add(auth.TicketLife - 1)
	if _, err := a.Ticket(last); err != nil {
		t.Errorf("within its time: %v", err)
	}
	at = at.Add(1)
	want("too late", late)
	// It is worth what its principal is worth when it is used.
	soon := must(a.IssueTicket(dash))
	if err := a.Revoke(auth.Revocation{Subject: "dash", Until: clock.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Ticket(soon); !auth.Revoked(err) {
		t.Errorf("of somebody revoked: %v", err)
	}
	if _, err := a.IssueTicket(auth.Principal{Anonymous: true}); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("for nobody: %v", err)
	}
}

// A ticket is good for one, however many come at once.
func TestTicketIsForOne(t *testing.T) {
	a := authenticator(t, auth.Issuer{Secret: secret})
	ticket := must(a.IssueTicket(must(a.Token(hs(hs256, good)))))
	var all sync.WaitGroup
	var got atomic.Int32
	for range 50 {
		all.Go(func() {
			if _, err := a.Ticket(ticket); err == nil {
				got.Add(1)
			}
		})
	}
	all.Wait()
	if got.Load() != 1 {
		t.Errorf("%d came in", got.Load())
	}
}

func TestTicketsAreBounded(t *testing.T) {
	at := clock
	a := withOptions(t, auth.Options{Issuers: []auth.Issuer{{Secret: secret}}, Now: func() time.Time { return at }})
	of := func(n int) auth.Principal {
		return must(a.Token(hs(hs256, strings.Replace(good, "dash", fmt.Sprint("dash", n), 1))))
	}
	var open []string
	for range 20 {
		open = append(open, must(a.IssueTicket(of(0))))
	}
	if _, err := a.IssueTicket(of(0)); !fault.Is(err, fault.RateLimited) || fault.From(err).RetryAfter <= 0 {
		t.Errorf("a 21st: %v", err)
	}
	must(a.IssueTicket(of(1)))
	must(a.Ticket(open[0]))
	must(a.IssueTicket(of(0)))
	for n := 2; n < 502; n++ {
		p := of(n)
		for range 20 {
			if _, err := a.IssueTicket(p); err != nil {
				if n < 499 || !fault.Is(err, fault.Overloaded) || fault.From(err).RetryAfter <= 0 {
					t.Fatalf("%d: %v", n, err)
				}
			} else if n == 501 {
				t.Fatal("there is no bound on all of them")
			}
		}
	}
	at = at.Add(auth.TicketLife)
	must(a.IssueTicket(of(0)))
}
