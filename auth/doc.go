// Package auth answers two questions: who is this, and what may they do.
//
// A credential goes in (today: a JSON Web Token, or none), a Principal comes
// out, and its Grants decide about topics and filters. Deciding is pure; the
// doors ask once per request or subscription, never per message.
//
//	the token is odd            token.go (form, header), object.go (strict JSON)
//	the signature does not fit  issuer.go (which keys), keys.go and jwks.go (reading them)
//	a claim is wrong            claims.go, acl.go
//	not allowed                 grants.go
//	the header is odd           request.go
//
// Verification is stricter than the library that checks the signatures: member
// names are compared exactly, no member may occur twice, everything must be
// valid UTF-8, exp is required, unknown critical extensions are refused.
package auth
