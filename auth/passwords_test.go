package auth_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
)

// madeByMosquitto is what mosquitto_passwd 2.0.11 wrote for "wonder land" and
// "pässwort:with:colons".
const madeByMosquitto = `alice:$7$101$1Va4VyHtQQ30sRcT$CAmSCNqEa/r4eXeHky05zsaj9tAl+p/Scd2ycm7k9k99znoKr+nZP49b11I3l+kU+5cuoUo804EuL+2g3Lyg2A==
bob:$7$101$z5zsw/fRJU/kN9dI$y6mJcerNZp6RUKd4QXAkeBwoGWHonT/elQ712gNdw/MqQz0GAUEyNvP4hrmgaFRV9Da/zCrrvOdCE6D5VP94gw==
`

func basic(user, password string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	return r
}

func TestBasic(t *testing.T) {
	ours := must(auth.NewPassword("c arol", "p$w:", 5))
	a := withOptions(t, auth.Options{
		Passwords: []byte("# users\n\n" + madeByMosquitto + ours + " \r\n"),
		ACL:       []byte("topic read public\nuser alice\ntopic readwrite pets/#\npattern write in/%u"), Now: now,
	})
	p, err := a.Request(basic("alice", "wonder land"))
	if err != nil || p.Kind != auth.KindPassword || p.Subject != "alice" || p.Anonymous || !p.Ends.IsZero() {
		t.Fatalf("%+v, %v", p, err)
	}
	wantFilters(t, "pub", p.Grants.Pub, "pets/#", "in/alice")
	wantFilters(t, "sub", p.Grants.Sub, "pets/#")
	for user, password := range map[string]string{"bob": "pässwort:with:colons", "c arol": "p$w:"} {
		if p, err := a.Request(basic(user, password)); err != nil || p.Subject != user {
			t.Errorf("%s: %+v, %v", user, p, err)
		}
	}
	for user, password := range map[string]string{
		"alice": "wonder land ", "bob": "", "Alice": "wonder land", "nobody": "x", "carol": "p$w:",
		"alice ": "wonder land", "c arol": "p$w", "#": "x",
	} {
		_, err := a.Request(basic(user, password))
		wantFault(t, err, fault.Unauthenticated, "the user name or the password is wrong")
	}
}

func TestPasswordFile(t *testing.T) {
	line := must(auth.NewPassword("a", "x", 2))
	parts := strings.Split(line, "$")
	with := func(n int, text string) string {
		changed := append([]string{}, parts...)
		changed[n] = text
		return strings.Join(changed, "$")
	}
	const form = "line 1 is not of the form user:$7$"
	for _, row := range []struct{ text, refused string }{
		{line, ""}, {"", ""}, {"#x\n" + line + "\n\n", ""}, {line + "\n" + must(auth.NewPassword("b", "x", 1)), ""},
		{line + "\n" + line, "line 2 names a user who has a line already"},
		{"a", form + "…"}, {"a:" + strings.Join(parts[1:4], "$"), "line 1 holds no $7$ hash, the only kind that is read; make the line anew with mosquitto_passwd or flyscreen passwd"},
		{"a:x", "line 1 holds no $7$ hash, the only kind that is read; make the line anew with mosquitto_passwd or flyscreen passwd"},
		{with(1, "6"), "line 1 holds no $7$ hash, the only kind that is read; make the line anew with mosquitto_passwd or flyscreen passwd"},
		{strings.Join(parts[:4], "$"), form + "iterations$salt$hash"}, {line + "$", form + "iterations$salt$hash"},
		{":" + line[2:], "line 1 names a user that is empty"}, {"a\x01" + line[1:], "line 1 names a user that holds a control character"},
		{with(2, "0"), "line 1 has a number of iterations that is not from 1 to 10000000"}, {with(2, "10000001"), "line 1 has a number of iterations that is not from 1 to 10000000"},
		{with(2, ""), "line 1 has a number of iterations that is not from 1 to 10000000"},
		{with(3, "AAAA"), "line 1 has a salt that is not 8 to 64 bytes in base64"}, {with(3, "!"), "line 1 has a salt that is not 8 to 64 bytes in base64"},
		{with(4, parts[3]), "line 1 has a hash that is not 64 bytes in base64"}, {with(4, ""), "line 1 has a hash that is not 64 bytes in base64"},
	} {
		_, err := auth.New(auth.Options{Passwords: []byte(row.text)})
		if row.refused == "" && err != nil || row.refused != "" && (err == nil || err.Error() != "the file of passwords, "+row.refused) {
			t.Errorf("%q\ngives %v\nwant  %s", row.text, err, row.refused)
		}
	}
}

func TestNewPasswordRefuses(t *testing.T) {
	if _, err := auth.NewPassword("a", "x", auth.PasswordIterations); err != nil {
		t.Error(err)
	}
	for _, row := range []struct {
		user, secret string
		iterations   int
	}{
		{"", "x", 1}, {"a:b", "x", 1}, {"#a", "x", 1}, {" a", "x", 1}, {"a ", "x", 1}, {"a\n", "x", 1}, {"\xff", "x", 1},
		{"a", "", 1}, {"a", "x\n", 1}, {"a", "\x00", 1}, {"a", "\xff", 1}, {"a", strings.Repeat("x", 65536), 1}, {"a", "x", 0}, {"a", "x", 10_000_001},
	} {
		if line, err := auth.NewPassword(row.user, row.secret, row.iterations); err == nil {
			t.Errorf("%.20q %.20q %d: %s", row.user, row.secret, row.iterations, line)
		}
	}
}

// slow is a line whose check takes long enough to be noticed.
const slowIterations = 50_000

// Who sends the same again costs one hash, good or bad; a change of the line ends
// what is remembered.
func TestPasswordsAreRemembered(t *testing.T) {
	a := withOptions(t, auth.Options{Passwords: []byte(must(auth.NewPassword("a", "x", slowIterations)))})
	took := func(password string, ok bool) time.Duration {
		t.Helper()
		begun := time.Now()
		_, err := a.Password(t.Context(), "a", password, "192.0.2.1")
		if ok && err != nil || !ok && !fault.Is(err, fault.Unauthenticated) {
			t.Fatalf("%q: %v", password, err)
		}
		return time.Since(begun)
	}
	for password, ok := range map[string]bool{"x": true, "y": false} {
		first := took(password, ok)
		var rest time.Duration
		for range 100 {
			rest += took(password, ok)
		}
		if rest > first {
			t.Errorf("%q: a hundred more took %s, the first took %s", password, rest, first)
		}
	}
	if err := a.SetPasswords([]byte(must(auth.NewPassword("a", "y", 2)))); err != nil {
		t.Fatal(err)
	}
	took("x", false)
	took("y", true)
}

// An address that guesses is slowed down before anything is computed for it; the
// others, and those who send what they sent before, do not notice.
func TestGuessing(t *testing.T) {
	at := clock
	a := withOptions(t, auth.Options{Passwords: []byte(must(auth.NewPassword("a", "right", 1))), Now: func() time.Time { return at }})
	try := func(password, address string, code fault.Code) {
		t.Helper()
		_, err := a.Password(t.Context(), "a", password, address)
		if code == "" && err != nil || code != "" && !fault.Is(err, code) {
			t.Errorf("%s from %s: %v, want %q", password, address, err, code)
		}
		if code == fault.RateLimited && fault.From(err).RetryAfter <= 0 {
			t.Errorf("no Retry-After: %v", err)
		}
	}
	for n := range 10 {
		try(fmt.Sprint("wrong", n), "192.0.2.1", fault.Unauthenticated)
	}
	try("right", "192.0.2.1", fault.RateLimited)
	try("wrong0", "192.0.2.1", fault.Unauthenticated) // remembered, so it costs nothing
	try("right", "192.0.2.2", "")
	try("right", "192.0.2.1", "") // remembered too
	at = at.Add(6 * time.Second)
	try("wrong x", "192.0.2.1", fault.Unauthenticated)
	try("wrong y", "192.0.2.1", fault.RateLimited)
	at = at.Add(time.Hour)
	for n := range 10 {
		try(fmt.Sprint("again", n), "192.0.2.1", fault.Unauthenticated)
	}
	try("again", "192.0.2.1", fault.RateLimited)
}

// Of many checks at once a few run, some wait, and the rest are told to come
// later. Who leaves is not waited for.
func TestChecksAreBounded(t *testing.T) {
	a := withOptions(t, auth.Options{Passwords: []byte(must(auth.NewPassword("a", "x", slowIterations)))})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	var mu sync.Mutex
	overloaded := 0
	for n := range 500 {
		all.Go(func() {
			_, err := a.Password(ctx, "a", fmt.Sprint(n), fmt.Sprint("address", n))
			mu.Lock()
			defer mu.Unlock()
			if fault.Is(err, fault.Overloaded) && fault.From(err).RetryAfter > 0 {
				overloaded++
				if overloaded == 400 { // more than could wait
					cancel()
				}
			} else if !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("%d: %v", n, err)
			}
		})
	}
	begun := time.Now()
	all.Wait()
	if took := time.Since(begun); overloaded < 400 || took > 20*time.Second {
		t.Errorf("%d of 500 were told to come later, after %s", overloaded, took)
	}
	if _, err := a.Password(t.Context(), "a", "x", "192.0.2.1"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func FuzzPasswordFile(f *testing.F) {
	f.Add(madeByMosquitto, "alice", "wonder land")
	f.Add("a:$7$1$AAAAAAAAAAA=$", "a", "")
	f.Add("#\n\n:", "", "")
	f.Fuzz(func(t *testing.T, text, user, password string) {
		for _, part := range strings.Split(text, "$") {
			if len(part) > 3 && len(part) < 9 { // what the operator asks for may take seconds; not here
				return
			}
		}
		a, err := auth.New(auth.Options{Passwords: []byte(text + "\n"), Now: now})
		if err != nil {
			return
		}
		p, err := a.Password(t.Context(), user, password, "x")
		if err == nil && (p.Subject != user || !strings.Contains(text, user+":$7$")) {
			t.Fatalf("%q %q is good for %+v", user, password, p)
		}
	})
}
