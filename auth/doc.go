// Package auth answers two questions: who is this, and what may they do.
//
// A credential goes in (a JSON Web Token, an API key, user and password, a client
// certificate, a ticket, or none), a Principal comes out, and its Grants decide
// about topics and filters. Deciding is pure; the doors ask once per request or
// subscription, and per message only where a rule denies something. Whoever keeps
// a principal asks Current what it is worth after Options.Changed.
//
//	the token is odd             token.go (form, header), object.go (strict JSON)
//	the signature does not fit   issuer.go (which keys), keys.go and jwks.go (reading them)
//	the keys are not there       remote.go (when to fetch), fetch.go (how)
//	a claim is wrong             claims.go; acl.go and scope.go (grants)
//	another kind of credential   apikeys.go, passwords.go, passwordguard.go, request.go (certificates)
//	a rule of the ACL file       aclfile.go
//	not allowed                  grants.go
//	no longer allowed            current.go, revocation.go
//	the header is odd            request.go
//	a ticket                     tickets.go
//
// Verification is stricter than the library that checks the signatures: member
// names are compared exactly, no member may occur twice, everything must be
// valid UTF-8, exp is required, unknown critical extensions are refused.
package auth
