package auth

import (
	"context"
	"crypto/sha256"

	"flyscreen/gateway/fault"
)

// Token is Bearer for callers without a context; it returns within a few seconds.
func (a *Authenticator) Token(token string) (Principal, error) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	return a.Bearer(ctx, token)
}

// Bearer verifies a JSON Web Token in compact form and returns whom it stands for.
// It waits only where the token names a key that the issuer's server may have
// meanwhile, and then at most until ctx is done. The error is a *fault.Error: of
// kind TokenInvalid or TokenExpired, whose detail says why and holds nothing of the
// token's that was not verified, or UpstreamUnavailable while there are no keys.
func (a *Authenticator) Bearer(ctx context.Context, token string) (Principal, error) {
	p, cached, err := a.token(ctx, token)
	a.metrics.token(cached, err)
	return p, err
}

func (a *Authenticator) token(ctx context.Context, token string) (p Principal, cached bool, err error) {
	if len(token) > a.maxTokenBytes {
		return Principal{}, false, invalid("the token is longer than %d bytes", a.maxTokenBytes)
	}
	key := digest(sha256.Sum256([]byte(token)))
	if p, cached = a.tokens.get(key); cached && a.signs(p) {
		p, err = a.Current(p)
		return p, true, err
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
	by, err := i.verify(ctx, c)
	if err != nil {
		return Principal{}, false, err
	}
	if p, err = a.readClaims(c.claims, i.audience); err != nil {
		return Principal{}, false, err
	}
	p.Kind, p.Issuer, p.KeyID, p.proof = KindToken, name, by.id, by.print
	a.tokens.put(key, p)
	if err := a.revocations.check(p); err != nil {
		return Principal{}, false, err
	}
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
	grants := a.anonymous
	if acl := a.acl.Load(); acl != nil {
		grants = grants.plus(acl.forNobody())
	}
	return Principal{Anonymous: true, Grants: grants}, true
}

// errNoCredential is the answer to a request that brings nothing where something
// is needed.
func errNoCredential() *fault.Error {
	return fault.New(fault.Unauthenticated, "no credential was sent; send a token in the header Authorization: Bearer <token>")
}
