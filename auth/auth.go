package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"flyscreen/gateway/mqtt"
)

// Defaults of Options.
const (
	DefaultMaxTokenBytes = 8192
	DefaultMaxGrants     = 100
	DefaultLeeway        = 30 * time.Second
)

// Issuer is somebody whose tokens are accepted, with exactly one of Secret, Keys,
// JWKSURL and OIDC.
type Issuer struct {
	// Name is the iss that the tokens carry. The issuer without a name takes all
	// tokens that no other issuer's name fits, those without iss included.
	Name string
	// Audience are the values of which a token's aud must hold one. Empty: aud is
	// not looked at.
	Audience []string
	// Algorithms that are accepted, of HS256, HS384, HS512 for a Secret and
	// RS256…RS512, PS256…PS512, ES256…ES512, EdDSA for keys. Empty: HS256 for a
	// Secret, all that fit one of the keys.
	Algorithms []string
	// Secret is the shared key, at least as long as the algorithm's hash: 32, 48 or
	// 64 bytes.
	Secret []byte
	// Keys is the content of a keys file: public keys or certificates as PEM, or a
	// JWKS document. Of a certificate only the key counts, not the dates.
	Keys []byte
	// JWKSURL is where a JWKS document is fetched and kept fresh; https, or http on
	// this machine.
	JWKSURL string
	// OIDC is the URL of an OpenID provider, whose description says where the keys
	// are. It is the issuer's name too.
	OIDC string
}

// Options configure an Authenticator.
type Options struct {
	// Issuers whose tokens are accepted. None: every token is refused.
	Issuers []Issuer
	// APIKeys, Passwords and ACL are the contents of the files; nil: there is no
	// such file, and such credentials are refused. ACL says what the holders of API
	// keys, passwords and client certificates may do.
	APIKeys, Passwords, ACL []byte
	// Anonymous is what a request without a credential may do. Empty: such a
	// request is refused.
	Anonymous Grants
	// AllowTokenInQuery accepts the token as ?access_token= too. URLs end up in
	// logs and histories; leave it off unless a client can do nothing else.
	AllowTokenInQuery bool
	// Cookie is the name of a cookie that may hold a token; "": none may. Whoever sets
	// it makes it Secure, HttpOnly and SameSite.
	Cookie string
	// MaxTokenBytes bounds a token's length, default 8,192. A longer one is invalid.
	MaxTokenBytes int
	// MaxGrants bounds the grants in a token and in an API key, default 100. A token
	// with more is invalid.
	MaxGrants int
	// Leeway is how far clocks may differ, default 30 s: tokens are accepted that
	// much before nbf and after exp.
	Leeway time.Duration
	// Limits bound the filters in claims.
	Limits mqtt.Limits
	// Address is the client's address as limits count it, default the peer's. Who
	// sends wrong passwords is slowed down by it.
	Address func(*http.Request) string
	// Changed is called when credentials that counted may count no more, or may
	// allow something else: a key was withdrawn, a file was reloaded, something was
	// revoked. Whoever keeps principals asks Current about each. It is called by
	// Run and by the Set methods and must not call them.
	Changed func()
	// Transport does the requests to key servers; nil means one of the room's own.
	Transport http.RoundTripper
	// Logger says what becomes of key sets; nil means nothing is said.
	Logger *slog.Logger
	// Now is the clock, default time.Now.
	Now func() time.Time
	// Metrics takes the room's metrics; nil means none.
	Metrics prometheus.Registerer
}

// Authenticator verifies credentials. It is safe for concurrent use. Only its
// goroutine, Run, does I/O: it keeps the key sets that are behind URLs fresh.
type Authenticator struct {
	issuers       []*issuer
	fetcher       fetcher
	anonymous     Grants
	tokenInQuery  bool
	cookie        string
	maxTokenBytes int
	maxGrants     int
	leeway        time.Duration
	limits        mqtt.Limits
	address       func(*http.Request) string
	changed       func()
	now           func() time.Time
	log           *slog.Logger
	metrics       metrics
	tokens        *cache[Principal]
	guard         *passwordGuard
	tickets       *ticketStore
	revocations   *revocations

	// What files say at the moment; nil where there is no such file.
	apiKeys   atomic.Pointer[apiKeys]
	passwords atomic.Pointer[passwords]
	acl       atomic.Pointer[aclFile]
}

// New checks the options and reads the keys. The error joins all complaints, each
// with what it is about.
func New(o Options) (*Authenticator, error) {
	a := newAuthenticator(o)
	a.fetcher = newFetcher(o.Transport)
	complaints := append(o.validate(), a.addIssuers(o.Issuers)...)
	for _, file := range []struct {
		text []byte
		set  func([]byte) error
	}{{o.APIKeys, a.setAPIKeys}, {o.Passwords, a.setPasswords}, {o.ACL, a.setACL}} {
		if file.text == nil {
			continue
		}
		if err := file.set(file.text); err != nil {
			complaints = append(complaints, err)
		}
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
	for _, i := range a.issuers {
		a.attach(i)
	}
	return a, nil
}

// newAuthenticator fills in the defaults.
func newAuthenticator(o Options) *Authenticator {
	a := &Authenticator{
		anonymous:     o.Anonymous.clone(),
		tokenInQuery:  o.AllowTokenInQuery,
		cookie:        o.Cookie,
		maxTokenBytes: orDefault(o.MaxTokenBytes, DefaultMaxTokenBytes),
		maxGrants:     orDefault(o.MaxGrants, DefaultMaxGrants),
		leeway:        orDefault(o.Leeway, DefaultLeeway),
		limits:        o.Limits,
		address:       o.Address,
		changed:       o.Changed,
		now:           o.Now,
		log:           o.Logger,
		tokens:        newCache[Principal](),
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.changed == nil {
		a.changed = func() {}
	}
	if a.address == nil {
		a.address = func(r *http.Request) string { return r.RemoteAddr }
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	a.log = a.log.With("room", "auth")
	a.guard = newPasswordGuard(a.now)
	a.tickets = newTicketStore(a.now)
	a.revocations = newRevocations(a.now)
	return a
}

// addIssuers returns the complaints about them, each with its issuer.
func (a *Authenticator) addIssuers(issuers []Issuer) (complaints []error) {
	names := map[string]bool{}
	for n, o := range issuers {
		complain := func(err error) {
			complaints = append(complaints, fmt.Errorf("issuer %d (%q): %w", n+1, o.Name, err))
		}
		built, errs := newIssuer(o, a.fetcher)
		if names[built.name] {
			complain(errors.New("has the name of an earlier issuer, so it would never be reached"))
		}
		names[built.name] = true
		for _, err := range errs {
			complain(err)
		}
		a.issuers = append(a.issuers, built)
	}
	return complaints
}

// attach gives an issuer's remote keys what they report to.
func (a *Authenticator) attach(i *issuer) {
	if i.remote == nil {
		return
	}
	i.remote.log, i.remote.metrics = a.log, a.metrics
	if len(i.audience) == 0 {
		a.log.Warn("an issuer has no audience: whatever it signs, for whichever service, is accepted here", "issuer", i.name)
	}
	i.remote.store = func(set keySet) {
		if i.setRemote(set) {
			a.log.Info("keys of an issuer were withdrawn", "issuer", i.name)
			a.changed()
		}
	}
}

// Run keeps the key sets behind URLs fresh until ctx is done. Without it tokens of
// their issuers are refused with UpstreamUnavailable.
func (a *Authenticator) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, i := range a.issuers {
		if i.remote != nil {
			wg.Go(func() { i.remote.run(ctx) })
		}
	}
	<-ctx.Done()
	wg.Wait()
	a.fetcher.client.CloseIdleConnections()
	return nil
}

// Ready returns a sentence for each issuer whose keys have never been there.
func (a *Authenticator) Ready() (complaints []error) {
	for _, i := range a.issuers {
		if i.remote == nil {
			continue
		}
		if err := i.remote.ready(); err != nil {
			complaints = append(complaints, err)
		}
	}
	return complaints
}

// validate returns the complaints about everything but issuers and files.
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
	for _, f := range slices.Concat(o.Anonymous.Pub, o.Anonymous.Sub, o.Anonymous.Deny) {
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
