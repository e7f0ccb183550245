package auth

import "time"

// Kind says what a principal showed.
type Kind string

// The kinds of credentials. An anonymous principal has none.
const (
	KindToken       Kind = "token"
	KindAPIKey      Kind = "api-key"
	KindPassword    Kind = "password"
	KindCertificate Kind = "certificate"
)

// Principal is who a request is, after authentication. It is a value that may be
// shared; nobody may change the slices in it.
type Principal struct {
	// Kind is what the principal showed; empty for an anonymous one.
	Kind Kind
	// Issuer is the token's iss; empty where it has none.
	Issuer string
	// Subject is the token's sub, the name of the API key or the password, or the
	// subject of the certificate; empty for an anonymous principal.
	Subject string
	// TokenID is the token's jti; empty where it has none.
	TokenID string
	// KeyID is the kid of the key that signed the token, or the API key's id; empty
	// where there is none.
	KeyID string
	// Anonymous is true for a request that brought no credential.
	Anonymous bool
	// Grants are what the principal may do.
	Grants Grants
	// Expires is the end of the credential; zero means never.
	Expires time.Time
	// Ends is Expires plus the leeway for clocks that differ: from then on nothing
	// is delivered to the principal or accepted from it. Zero means never.
	Ends time.Time

	// proof stands for what the credential was checked with: the key, or the line
	// of a file. Current compares it with what is there.
	proof digest
}

// Key tells principals apart, for limits: two issuers may use one subject, and a
// password may have the name of a token's subject. Empty for an anonymous
// principal.
func (p Principal) Key() string {
	if p.Anonymous {
		return ""
	}
	return string(p.Kind) + "\x00" + p.Issuer + "\x00" + p.Subject
}
