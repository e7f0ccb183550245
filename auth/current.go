package auth

import (
	"errors"

	"flyscreen/gateway/fault"
)

// errWithdrawn is the failure of what was good once.
var errWithdrawn = fault.New(fault.TokenInvalid, "the credential no longer counts: its key was withdrawn, or it was taken out of the server's files")

// Current returns what p is now: its grants may have changed with a file. The
// error is a *fault.Error: TokenExpired after its end; TokenInvalid when its key
// was withdrawn, it is not in its file any more, or it was revoked. It is cheap
// and does not wait.
func (a *Authenticator) Current(p Principal) (Principal, error) {
	if p.Anonymous {
		if now, ok := a.Anonymous(); ok {
			return now, nil
		}
		return Principal{}, errNoCredential()
	}
	if !p.Ends.IsZero() && !a.now().Before(p.Ends) {
		return Principal{}, expired(p.Expires)
	}
	if err := a.revocations.check(p); err != nil {
		return Principal{}, err
	}
	switch p.Kind {
	case KindToken:
		if !a.signs(p) {
			return Principal{}, errWithdrawn
		}
		return p, nil
	case KindAPIKey:
		return a.currentAPIKey(p)
	case KindPassword:
		if !a.passwords.Load().holds(p) {
			return Principal{}, errWithdrawn
		}
		return a.withGrants(p, Grants{})
	case KindCertificate:
		return a.withGrants(p, Grants{})
	}
	return p, nil
}

// signs reports whether what signed p's token still counts.
func (a *Authenticator) signs(p Principal) bool {
	i := a.issuerFor(p.Issuer)
	return i != nil && i.material.Load().holds(signer{p.proof, p.KeyID})
}

// withGrants gives p its own grants and what the ACL file says of its name.
func (a *Authenticator) withGrants(p Principal, own Grants) (Principal, error) {
	p.Grants = own
	acl := a.acl.Load()
	if acl == nil {
		return p, nil
	}
	grants, err := acl.grants(p.Subject)
	if err != nil {
		return Principal{}, fault.New(fault.Unauthenticated, "the ACL file cannot be applied to this name: it %v", err)
	}
	p.Grants = own.plus(grants)
	return p, nil
}

// SetIssuer gives the nth of Options.Issuers, counted from 0, a new secret or the new content of its keys file. After an error the old one stays.
func (a *Authenticator) SetIssuer(n int, secret, keys []byte) error {
	i := a.issuers[n]
	if i.remote != nil {
		return errors.New("the keys of this issuer come from its server")
	}
	if len(secret)+len(keys) == 0 {
		return errors.New("is empty")
	}
	m, complaints := newMaterial(secret, keys, i.configured)
	if len(complaints) > 0 {
		return errors.Join(complaints...)
	}
	i.replace(m)
	a.changed()
	return nil
}

// SetAPIKeys takes the new content of the file of API keys. After an error the old
// one stays.
func (a *Authenticator) SetAPIKeys(text []byte) error { return a.set(a.setAPIKeys, text) }

// SetPasswords takes the new content of the file of passwords. After an error the
// old one stays.
func (a *Authenticator) SetPasswords(text []byte) error { return a.set(a.setPasswords, text) }

// SetACL takes the new content of the ACL file. After an error the old one stays.
func (a *Authenticator) SetACL(text []byte) error { return a.set(a.setACL, text) }

func (a *Authenticator) set(read func([]byte) error, text []byte) error {
	if err := read(text); err != nil {
		return err
	}
	a.changed()
	return nil
}
