package auth

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"flyscreen/gateway/fault"
)

// tokenParameter is the query parameter of RFC 6750 section 2.3.
const tokenParameter = "access_token"

// keyHeader carries an API key.
const keyHeader = "X-API-Key"

// Request returns who r is from: who its one credential stands for (a token, an
// API key, user and password, else the certificate of its connection), or the
// anonymous principal if r brings none at all. A credential that is bad, doubled or
// of a kind that is not accepted never makes a request anonymous. The error is a
// *fault.Error: Unauthenticated, TokenInvalid, TokenExpired, BadRequest for two
// credentials or for a token in the query where that is not allowed, RateLimited,
// Overloaded or UpstreamUnavailable where a credential cannot be checked now.
func (a *Authenticator) Request(r *http.Request) (Principal, error) {
	c, err := a.credential(r)
	if err != nil {
		a.metrics.refused(err)
		return Principal{}, err
	}
	if c.token != "" {
		return a.Bearer(r.Context(), c.token)
	}
	p, err := a.other(r, c)
	if err != nil {
		a.metrics.refused(err)
	}
	return p, err
}

// ticketParameter carries a ticket in the URL of a stream.
const ticketParameter = "ticket"

// Stream is Request for a stream, whose URL may bring a ticket, which is used up. A
// ticket must be the only credential (BadRequest), but for a certificate.
func (a *Authenticator) Stream(r *http.Request) (Principal, error) {
	tickets, given := r.URL.Query()[ticketParameter]
	switch {
	case !given:
		return a.Request(r)
	case len(tickets) > 1 || tickets[0] == "":
		return Principal{}, fault.New(fault.BadRequest, "the query parameter %s must hold one ticket", ticketParameter)
	case len(r.Header.Values("Authorization"))+len(r.Header.Values(keyHeader)) > 0 || r.URL.Query().Has(tokenParameter):
		return Principal{}, fault.New(fault.BadRequest, "the request brings a ticket and another credential; send one of them")
	}
	return a.Ticket(tickets[0])
}

// other is Request for what is not a token.
func (a *Authenticator) other(r *http.Request, c credential) (Principal, error) {
	switch {
	case c.apiKey != "":
		return a.APIKey(c.apiKey)
	case c.user != "":
		return a.Password(r.Context(), c.user, c.password, a.address(r))
	}
	if p, shown, err := a.certificate(r); shown {
		return p, err
	}
	p, ok := a.Anonymous()
	if !ok {
		return Principal{}, errNoCredential()
	}
	return p, nil
}

// credential is what a request brings: one of the three, or nothing. A cookie counts
// only where there is nothing else.
type credential struct {
	token, apiKey, user, password string
}

// credential returns the request's one credential; the zero value when it brings
// none.
func (a *Authenticator) credential(r *http.Request) (c credential, err error) {
	if c.token, err = a.queryToken(r.URL); err != nil {
		return credential{}, err
	}
	headers, keys := r.Header.Values("Authorization"), r.Header.Values(keyHeader)
	switch {
	case len(headers) > 1:
		return credential{}, fault.New(fault.Unauthenticated, "the request has %d Authorization headers; one is allowed", len(headers))
	case len(keys) > 1:
		return credential{}, fault.New(fault.Unauthenticated, "the request has %d X-API-Key headers; one is allowed", len(keys))
	case len(headers) > 0 && c.token != "":
		// RFC 6750 section 2: "Clients MUST NOT use more than one method to transmit
		// the token in each request."
		return credential{}, fault.New(fault.BadRequest, "the token is both in the Authorization header and in the query; send it once")
	case len(keys) > 0 && (len(headers) > 0 || c.token != ""):
		return credential{}, fault.New(fault.BadRequest, "the request brings an API key and another credential; send one of them")
	case len(keys) > 0 && keys[0] == "":
		return credential{}, fault.New(fault.Unauthenticated, "the X-API-Key header is empty")
	case len(keys) > 0:
		return credential{apiKey: keys[0]}, nil
	case len(headers) > 0:
		return parseAuthorization(headers[0])
	case c.token == "":
		c.token, err = a.cookieToken(r)
	}
	return c, err
}

func parseAuthorization(header string) (credential, error) {
	scheme, value, _ := strings.Cut(strings.TrimSpace(header), " ")
	value = strings.TrimLeft(value, " ")
	switch {
	case strings.EqualFold(scheme, "Basic"):
		user, password, ok := parseBasic(value)
		if !ok {
			return credential{}, fault.New(fault.Unauthenticated, "the Authorization header is not of the form Basic base64(user:password)")
		}
		return credential{user: user, password: password}, nil
	case !strings.EqualFold(scheme, "Bearer"):
		return credential{}, fault.New(fault.Unauthenticated, "the Authorization header is not of the form Bearer <token>")
	case value == "":
		return credential{}, fault.New(fault.Unauthenticated, "the Authorization header holds no token")
	}
	return credential{token: value}, nil
}

// parseBasic reads user-pass (RFC 7617 section 2) as UTF-8. An empty user is
// nobody.
func parseBasic(value string) (user, password string, ok bool) {
	text, err := base64.StdEncoding.DecodeString(value)
	if err != nil || len(text) > maxSubjectBytes+1+maxPasswordBytes {
		return "", "", false
	}
	user, password, ok = strings.Cut(string(text), ":")
	return user, password, ok && checkSubject(user) == nil && utf8.ValidString(password)
}

// certificate returns whom the connection's certificate stands for: its subject's
// common name, or else its first alternative name. shown is false when there is
// none. The server has checked it against http.tls.client_ca.
func (a *Authenticator) certificate(r *http.Request) (p Principal, shown bool, err error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.PeerCertificates) == 0 {
		return Principal{}, false, nil
	}
	leaf := r.TLS.PeerCertificates[0]
	name := certificateName(leaf)
	if err := checkSubject(name); err != nil {
		return Principal{}, true, fault.New(fault.Unauthenticated, "the name in the client's certificate %v", err)
	}
	p, err = a.Current(Principal{
		Kind: KindCertificate, Subject: name, Expires: leaf.NotAfter, Ends: leaf.NotAfter.Add(a.leeway), proof: sha256.Sum256(leaf.Raw),
	})
	return p, true, err
}

func certificateName(c *x509.Certificate) string {
	switch {
	case c.Subject.CommonName != "":
		return c.Subject.CommonName
	case len(c.DNSNames) > 0:
		return c.DNSNames[0]
	case len(c.EmailAddresses) > 0:
		return c.EmailAddresses[0]
	case len(c.URIs) > 0:
		return c.URIs[0].String()
	case len(c.IPAddresses) > 0:
		return c.IPAddresses[0].String()
	}
	return ""
}

// queryToken returns the token from the query; empty when there is none.
func (a *Authenticator) queryToken(u *url.URL) (string, error) {
	if u == nil || u.RawQuery == "" {
		return "", nil
	}
	tokens, present := u.Query()[tokenParameter]
	switch {
	case !present:
		return "", nil
	case !a.tokenInQuery:
		return "", fault.New(fault.BadRequest,
			"a token in the query (%s) is not accepted, because URLs are logged; send it in the header Authorization: Bearer <token>", tokenParameter)
	case len(tokens) > 1 || tokens[0] == "":
		return "", fault.New(fault.BadRequest, "the query parameter %s must hold one token", tokenParameter)
	}
	return tokens[0], nil
}

// Challenge returns the value of WWW-Authenticate for an answer with err (RFC 6750
// section 3), or "" if such an answer carries none. A request without a usable
// credential gets the bare challenge: "the resource server SHOULD NOT include an
// error code or other error information" (section 3.1).
func Challenge(err error) string {
	const realm = `Bearer realm="flyscreen"`
	e := fault.From(err)
	switch e.Code {
	case fault.Unauthenticated, fault.OriginNotAllowed:
		return realm
	case fault.TokenInvalid, fault.TokenExpired:
		return realm + `, error="invalid_token", error_description="` + describe(e.Detail) + `"`
	case fault.NotAuthorized:
		return realm + `, error="insufficient_scope", error_description="` + describe(e.Detail) + `"`
	}
	return ""
}

// describe makes s fit for error_description, whose characters are %x20-21,
// %x23-5B and %x5D-7E (RFC 6750 section 3), and short enough for a header.
func describe(s string) string {
	const most = 200
	var b strings.Builder
	for _, r := range s {
		switch {
		case b.Len() == most:
			return b.String()
		case r == '"' || r == '\\':
			r = '\''
		case r < 0x20 || r > 0x7E:
			r = '?'
		}
		b.WriteRune(r)
	}
	return b.String()
}
