package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"flyscreen/gateway/fault"
)

// maxRevocations bounds how many are kept at once, each until its time is over.
const maxRevocations = 100_000

// Revocation takes back what was given: one token (its jti), everything of a
// subject, or everything that one key signed; for an API key its id is the kid.
// Exactly one of the three is set. It holds until Until, which should be when the
// last of what it takes back would have ended by itself.
type Revocation struct {
	TokenID string    `json:"jti,omitempty"`
	Subject string    `json:"sub,omitempty"`
	KeyID   string    `json:"kid,omitempty"`
	Until   time.Time `json:"until"`
}

// ParseRevocation reads the JSON of a Revocation; until is a time as RFC 3339
// writes it, or, as in tokens, a number of seconds since 1970. The error is a
// *fault.Error of kind BadRequest.
func ParseRevocation(text []byte) (r Revocation, err error) {
	refuse := func(format string, args ...any) (Revocation, error) {
		return Revocation{}, fault.New(fault.BadRequest, "the revocation "+format, args...)
	}
	members, err := parseObject(text)
	if err != nil {
		return refuse("%v", err)
	}
	into := map[string]*string{"jti": &r.TokenID, "sub": &r.Subject, "kid": &r.KeyID}
	for name, v := range members {
		if name == "until" {
			continue
		}
		field, known := into[name]
		s, ok := v.(string)
		switch {
		case !known:
			return refuse(`has a member that is none of "jti", "sub", "kid" and "until"`)
		case !ok || s == "":
			return refuse("has a member %q that is not a string with something in it", name)
		}
		*field = s
	}
	switch until := members["until"].(type) {
	case nil:
		return refuse(`has no "until"`)
	case string:
		if r.Until, err = time.Parse(time.RFC3339, until); err != nil {
			return refuse(`has an "until" that is not a time such as 2027-01-31T00:00:00Z`)
		}
	case json.Number:
		if r.Until, _, err = numericDate(members, "until"); err != nil {
			return refuse(`has an "until" that is not a time`)
		}
	default:
		return refuse(`has an "until" that is not a time`)
	}
	if err := r.check(); err != nil {
		return refuse("%v", err)
	}
	return r, nil
}

func (r Revocation) check() error {
	set := 0
	for _, s := range []string{r.TokenID, r.Subject, r.KeyID} {
		if s != "" {
			set++
		}
	}
	switch {
	case set != 1:
		return errors.New(`must name exactly one of "jti", "sub" and "kid"`)
	case r.Until.IsZero():
		return errors.New(`has no "until"`)
	}
	return nil
}

// target says what is revoked; two revocations of one target are one.
func (r Revocation) target() string {
	switch {
	case r.TokenID != "":
		return "jti\x00" + r.TokenID
	case r.KeyID != "":
		return "kid\x00" + r.KeyID
	}
	return "sub\x00" + r.Subject
}

// Key names what is revoked in 32 hexadecimal digits, for a topic or a file.
func (r Revocation) Key() string {
	sum := sha256.Sum256([]byte(r.target()))
	return hex.EncodeToString(sum[:16])
}

// revocations is the list of what holds. It is safe for concurrent use.
type revocations struct {
	now   func() time.Time
	count atomic.Int64 // len(until), to be asked without the lock

	mu    sync.RWMutex // guards what follows
	until map[string]time.Time
}

func newRevocations(now func() time.Time) *revocations {
	return &revocations{now: now, until: map[string]time.Time{}}
}

// errRevoked is the failure of what somebody has revoked.
var errRevoked = fault.New(fault.TokenInvalid, "the credential has been revoked")

// Revoked reports whether err says that a credential was taken back before its
// end: revoked, withdrawn with its key, or taken out of its file.
func Revoked(err error) bool { return errors.Is(err, errRevoked) || errors.Is(err, errWithdrawn) }

// Revoke takes r into the list. Of two for one target the later end counts. One
// whose time is over changes nothing. The error is a *fault.Error: BadRequest, or
// Overloaded when the list is full.
func (a *Authenticator) Revoke(r Revocation) error {
	if err := r.check(); err != nil {
		return fault.New(fault.BadRequest, "the revocation %v", err)
	}
	fresh, err := a.revocations.add(r)
	if fresh {
		a.changed()
	}
	return err
}

// Revocations lists what holds, in the order of their targets.
func (a *Authenticator) Revocations() []Revocation { return a.revocations.list() }

func (l *revocations) add(r Revocation) (fresh bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.now().Before(r.Until) || !l.until[r.target()].Before(r.Until) {
		return false, nil
	}
	if len(l.until) >= maxRevocations {
		l.sweep()
	}
	if _, known := l.until[r.target()]; !known && len(l.until) >= maxRevocations {
		return false, fault.New(fault.Overloaded, "there are %d revocations already", maxRevocations)
	}
	l.until[r.target()] = r.Until
	l.count.Store(int64(len(l.until)))
	return true, nil
}

// sweep forgets what is over. Needs l.mu.
func (l *revocations) sweep() {
	for target, until := range l.until {
		if !l.now().Before(until) {
			delete(l.until, target)
		}
	}
	l.count.Store(int64(len(l.until)))
}

// check returns errRevoked when something in the list takes p back.
func (l *revocations) check(p Principal) error {
	if l.count.Load() == 0 {
		return nil
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, r := range []Revocation{{TokenID: p.TokenID}, {Subject: p.Subject}, {KeyID: p.KeyID}} {
		if until, listed := l.until[r.target()]; listed && l.now().Before(until) {
			return errRevoked
		}
	}
	return nil
}

func (l *revocations) list() []Revocation {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep()
	all := make([]Revocation, 0, len(l.until))
	for target, until := range l.until {
		r := Revocation{Until: until}
		switch kind, value, _ := strings.Cut(target, "\x00"); kind {
		case "jti":
			r.TokenID = value
		case "kid":
			r.KeyID = value
		default:
			r.Subject = value
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Revocation) int { return strings.Compare(a.target(), b.target()) })
	return all
}

// String says what is revoked, for logs.
func (r Revocation) String() string {
	kind, value, _ := strings.Cut(r.target(), "\x00")
	return fmt.Sprintf("%s %q until %s", kind, value, r.Until.UTC().Format(time.RFC3339))
}
