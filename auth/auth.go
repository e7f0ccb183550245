package auth

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// Defaults of Options.
const (
	DefaultMaxTokenBytes = 8192
	DefaultMaxGrants     = 100
	DefaultLeeway        = 30 * time.Second
)

// Issuer is somebody whose tokens are accepted, with either a Secret or Keys.
type Issuer struct {
	// Name is the iss that the tokens carry. The issuer without a name takes all
	// tokens that no other issuer's name fits, those without iss included.
	Name string
	// Audience are the values of which a token's aud must hold one. Empty: aud is
	// not looked at.
	Audience []string
	// Algorithms that are accepted, of HS256, HS384, HS512 for a Secret and
	// RS256…RS512, PS256…PS512, ES256…ES512, EdDSA for Keys. Empty: HS256 for a
	// Secret, all that fit one of the Keys.
	Algorithms []string
	// Secret is the shared key, at least as long as the algorithm's hash: 32, 48 or
	// 64 bytes.
	Secret []byte
	// Keys is the content of a keys file: public keys or certificates as PEM, or a
	// JWKS document. Of a certificate only the key counts, not the dates.
	Keys []byte
}

// Options configure an Authenticator.
type Options struct {
	// Issuers whose tokens are accepted. None: every token is refused.
	Issuers []Issuer
	// Anonymous is what a request without a credential may do. Empty: such a
	// request is refused.
	Anonymous Grants
	// AllowTokenInQuery accepts the token as ?access_token= too. URLs end up in
	// logs and histories; leave it off unless a client can do nothing else.
	AllowTokenInQuery bool
	// MaxTokenBytes bounds a token's length, default 8,192. A longer one is invalid.
	MaxTokenBytes int
	// MaxGrants bounds the entries of a token's acl claim, default 100. A token with
	// more is invalid.
	MaxGrants int
	// Leeway is how far clocks may differ, default 30 s: tokens are accepted that
	// much before nbf and after exp.
	Leeway time.Duration
	// Limits bound the filters in claims.
	Limits mqtt.Limits
	// Now is the clock, default time.Now.
	Now func() time.Time
	// Metrics takes the room's metrics; nil means none.
	Metrics prometheus.Registerer
}

// Authenticator verifies credentials. It does no I/O and is safe for concurrent
// use.
type Authenticator struct {
	issuers       []*issuer
	anonymous     Grants
	tokenInQuery  bool
	maxTokenBytes int
	maxGrants     int
	leeway        time.Duration
	limits        mqtt.Limits
	now           func() time.Time
	metrics       metrics
	cache         *cache
}

// New checks the options and reads the keys. The error joins all complaints, each
// with the issuer that it is about.
func New(o Options) (*Authenticator, error) {
	a := &Authenticator{
		anonymous:     Grants{Pub: slices.Clone(o.Anonymous.Pub), Sub: slices.Clone(o.Anonymous.Sub)},
		tokenInQuery:  o.AllowTokenInQuery,
		maxTokenBytes: orDefault(o.MaxTokenBytes, DefaultMaxTokenBytes),
		maxGrants:     orDefault(o.MaxGrants, DefaultMaxGrants),
		leeway:        orDefault(o.Leeway, DefaultLeeway),
		limits:        o.Limits,
		now:           o.Now,
		cache:         newCache(),
	}
	if a.now == nil {
		a.now = time.Now
	}
	complaints := o.validate()
	names := map[string]bool{}
	for n, i := range o.Issuers {
		complain := func(err error) {
			complaints = append(complaints, fmt.Errorf("issuer %d (%q): %w", n+1, i.Name, err))
		}
		if names[i.Name] {
			complain(errors.New("has the name of an earlier issuer, so it would never be reached"))
		}
		names[i.Name] = true
		built, errs := newIssuer(i)
		for _, err := range errs {
			complain(err)
		}
		a.issuers = append(a.issuers, built)
	}
	if len(complaints) == 0 {
		var err error
		if a.metrics, err = newMetrics(o.Metrics); err != nil {
			complaints = append(complaints, err)
		}
	}
	if len(complaints) > 0 {
		return nil, errors.Join(complaints...)
	}
	return a, nil
}

// validate returns the complaints about everything but the issuers.
func (o Options) validate() (complaints []error) {
	if o.MaxTokenBytes < 0 {
		complaints = append(complaints, errors.New("the bound of a token's bytes is negative"))
	}
	if o.MaxGrants < 0 {
		complaints = append(complaints, errors.New("the bound of a token's grants is negative"))
	}
	if o.Leeway < 0 {
		complaints = append(complaints, errors.New("the leeway is negative"))
	}
	for _, f := range slices.Concat(o.Anonymous.Pub, o.Anonymous.Sub) {
		if _, err := parseGrant(string(f), mqtt.Limits{}); err != nil {
			complaints = append(complaints, fmt.Errorf("anonymous grant %q: %w", f, err))
		}
	}
	return complaints
}

func orDefault[T int | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// Token verifies a JSON Web Token in compact form and returns whom it stands for.
// The error is a *fault.Error of kind TokenInvalid or TokenExpired whose detail
// says why and holds nothing of the token's that was not verified.
func (a *Authenticator) Token(token string) (Principal, error) {
	p, cached, err := a.token(token)
	a.metrics.token(cached, err)
	return p, err
}

func (a *Authenticator) token(token string) (p Principal, cached bool, err error) {
	if len(token) > a.maxTokenBytes {
		return Principal{}, false, invalid("the token is longer than %d bytes", a.maxTokenBytes)
	}
	key := digest(sha256.Sum256([]byte(token)))
	if p, cached = a.cache.get(key); cached {
		if !a.now().Before(p.Ends) {
			return Principal{}, true, expired(p.Expires)
		}
		return p, true, nil
	}
	c, err := parseCompact(token)
	if err != nil {
		return Principal{}, false, err
	}
	name, err := issuerOf(c.claims)
	if err != nil {
		return Principal{}, false, err
	}
	i := a.issuerFor(name)
	if i == nil {
		return Principal{}, false, invalid("the token's issuer is not known here")
	}
	if err := i.verify(c); err != nil {
		return Principal{}, false, err
	}
	if p, err = a.readClaims(c.claims, i.audience); err != nil {
		return Principal{}, false, err
	}
	p.Issuer = name
	a.cache.put(key, p)
	return p, false, nil
}

// issuerFor returns the issuer of that name, else the one without a name, else
// nil. There is no second try with another when the token does not fit.
func (a *Authenticator) issuerFor(name string) (rest *issuer) {
	for _, i := range a.issuers {
		if i.name == name {
			return i
		}
		if i.name == "" {
			rest = i
		}
	}
	return rest
}

// Anonymous returns who a request without a credential is; ok is false when there
// is no anonymous access.
func (a *Authenticator) Anonymous() (p Principal, ok bool) {
	if len(a.anonymous.Pub)+len(a.anonymous.Sub) == 0 {
		return Principal{}, false
	}
	return Principal{Anonymous: true, Grants: a.anonymous}, true
}

// errNoCredential is the answer to a request that brings nothing where something
// is needed.
func errNoCredential() *fault.Error {
	return fault.New(fault.Unauthenticated, "no credential was sent; send a token in the header Authorization: Bearer <token>")
}
