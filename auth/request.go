package auth

import (
	"net/http"
	"net/url"
	"strings"

	"flyscreen/gateway/fault"
)

// tokenParameter is the query parameter of RFC 6750 section 2.3.
const tokenParameter = "access_token"

// Request returns who r is from: the bearer of its token, or the anonymous
// principal if r brings no credential at all. A credential that is bad, doubled or
// of a kind that is not supported never makes a request anonymous. The error is a
// *fault.Error: Unauthenticated, TokenInvalid, TokenExpired, or BadRequest for a
// token in the query where that is not allowed.
func (a *Authenticator) Request(r *http.Request) (Principal, error) {
	token, err := a.credential(r)
	if err != nil {
		a.metrics.refused(err)
		return Principal{}, err
	}
	if token != "" {
		return a.Token(token)
	}
	p, ok := a.Anonymous()
	if !ok {
		err := errNoCredential()
		a.metrics.refused(err)
		return Principal{}, err
	}
	return p, nil
}

// credential returns the request's one token; empty without an error when the
// request brings no credential.
func (a *Authenticator) credential(r *http.Request) (string, error) {
	inQuery, err := a.queryToken(r.URL)
	if err != nil {
		return "", err
	}
	if len(r.Header.Values("X-API-Key")) > 0 {
		return "", fault.New(fault.Unauthenticated, "API keys (X-API-Key) are not supported yet; send a token in the header Authorization: Bearer <token>")
	}
	headers := r.Header.Values("Authorization")
	switch {
	case len(headers) == 0:
		return inQuery, nil
	case len(headers) > 1:
		return "", fault.New(fault.Unauthenticated, "the request has %d Authorization headers; one is allowed", len(headers))
	case inQuery != "":
		// RFC 6750 section 2: "Clients MUST NOT use more than one method to transmit
		// the token in each request."
		return "", fault.New(fault.BadRequest, "the token is both in the Authorization header and in the query; send it once")
	}
	scheme, token, _ := strings.Cut(strings.TrimSpace(headers[0]), " ")
	token = strings.TrimLeft(token, " ")
	switch {
	case strings.EqualFold(scheme, "Basic"):
		return "", fault.New(fault.Unauthenticated, "user name and password (Basic) are not supported yet; send Authorization: Bearer <token>")
	case !strings.EqualFold(scheme, "Bearer"):
		return "", fault.New(fault.Unauthenticated, "the Authorization header is not of the form Bearer <token>")
	case token == "":
		return "", fault.New(fault.Unauthenticated, "the Authorization header holds no token")
	}
	return token, nil
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
