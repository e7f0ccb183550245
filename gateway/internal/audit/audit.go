// Package audit writes one line for each decision that changes something or
// refuses: who, from where, what, and by which rule. A line never holds a payload
// or a credential. Whoever decides records; the HTTP edge records the refusals
// that nobody else has.
package audit

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync/atomic"

	"flyscreen/auth"
	"flyscreen/gateway/fault"

	"golang.org/x/time/rate"
)

// Refusals beyond the pace are counted and not written, so that nobody fills the
// disk by being refused. Allowed changes are limited where they are allowed.
const (
	refusedRate  = 50 // a second
	refusedBurst = 500
)

// Levels say what is written.
const (
	All      = "all"      // changes and refusals
	Refusals = "refusals" // refusals only
	Off      = "off"
)

// Log takes decisions. It is safe for concurrent use; a nil Log drops them.
type Log struct {
	log        *slog.Logger
	level      string
	pace       *rate.Limiter
	suppressed atomic.Int64 // since the last refusal that was written
}

// New makes a log that writes to l what level says.
func New(l *slog.Logger, level string) *Log {
	return &Log{log: l.With("room", "audit"), level: level, pace: rate.NewLimiter(refusedRate, refusedBurst)}
}

// Decision is what was decided about one action.
type Decision struct {
	Principal auth.Principal
	Address   string // as limits count it
	Action    string // publish, subscribe, ticket, …; at the edge the method and the route
	Target    string // the topic or filter
	Rule      string // the grant or deny rule that decided; "" where none did
	Outcome   string // how far an allowed change has come, where that is known
	Err       error  // nil: it was allowed and done
}

// refusals are the codes of those failures that are decisions about the client.
// Others, such as a broker that is away, are outcomes of what was allowed.
var refusals = map[fault.Code]bool{
	fault.Unauthenticated: true, fault.TokenExpired: true, fault.TokenInvalid: true, fault.NotAuthorized: true,
	fault.OriginNotAllowed: true, fault.RateLimited: true, fault.Overloaded: true, fault.TooLarge: true,
}

// Refuses reports whether err is a decision against the client.
func Refuses(err error) bool { return err != nil && refusals[fault.From(err).Code] }

// Record writes d, and notes in the request of ctx that it is written.
func (l *Log) Record(ctx context.Context, d Decision) {
	if l == nil {
		return
	}
	r := From(ctx)
	refused := Refuses(d.Err)
	if refused {
		r.recorded.Store(true)
	}
	if l.level == Off || !refused && l.level != All || !l.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	if refused && !l.pace.Allow() {
		l.suppressed.Add(1)
		return
	}
	attrs := []slog.Attr{slog.String("req", r.ID)}
	attrs = append(attrs, d.who(r)...)
	attrs = append(attrs, slog.String("action", d.Action), slog.String("target", fault.Redact(d.Target)))
	if d.Rule != "" {
		attrs = append(attrs, slog.String("rule", fault.Redact(d.Rule)))
	}
	decision := "allowed"
	if refused {
		decision = "refused"
		if n := l.suppressed.Swap(0); n > 0 {
			attrs = append(attrs, slog.Int64("suppressed", n))
		}
	}
	attrs = append(attrs, slog.String("decision", decision))
	switch {
	case d.Err != nil:
		f := fault.From(d.Err) // its cause is for other lines
		attrs = append(attrs, slog.String("code", string(f.Code)), slog.String("reason", f.Detail))
	case d.Outcome != "":
		attrs = append(attrs, slog.String("outcome", d.Outcome))
	}
	l.log.LogAttrs(ctx, slog.LevelInfo, "audit", attrs...)
}

// who says whose action it is.
func (d Decision) who(r *Request) (attrs []slog.Attr) {
	p, address := d.Principal, d.Address
	if address == "" {
		address = r.Address
	}
	attrs = append(attrs, slog.String("address", address))
	if p.Anonymous {
		return append(attrs, slog.Bool("anonymous", true))
	}
	for _, a := range []slog.Attr{
		slog.String("subject", fault.Redact(p.Subject)), slog.String("issuer", p.Issuer), slog.String("credential", string(p.Kind)), slog.String("kid", fault.Redact(p.KeyID)),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	return attrs
}

// Request is what the lines of one HTTP request have in common.
type Request struct {
	ID      string
	Address string

	recorded atomic.Bool // a refusal was written
}

// NewRequest makes one with an id of its own.
func NewRequest(address string) *Request {
	return &Request{ID: rand.Text()[:16], Address: address}
}

// Recorded reports whether a refusal of this request has been recorded.
func (r *Request) Recorded() bool { return r.recorded.Load() }

type contextKey struct{}

// With returns a context that carries r.
func With(ctx context.Context, r *Request) context.Context {
	return context.WithValue(ctx, contextKey{}, r)
}

// From returns the request that ctx carries, or an empty one.
func From(ctx context.Context) *Request {
	if r, ok := ctx.Value(contextKey{}).(*Request); ok {
		return r
	}
	return &Request{}
}
