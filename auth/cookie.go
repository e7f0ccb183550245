package auth

import (
	"net/http"
	"strings"

	"flyscreen/gateway/fault"
)

// cookieToken returns the token in the configured cookie; empty when there is none,
// or when the request brings a credential that was put there on purpose. A browser
// adds cookies by itself, to requests that other sites make too, so whatever may
// change something, and a WebSocket, needs an Origin; the router has held that
// against the allowlist.
func (a *Authenticator) cookieToken(r *http.Request) (string, error) {
	if a.cookie == "" || strings.Contains(strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ","), "bearer.") {
		return "", nil
	}
	cookies := r.CookiesNamed(a.cookie)
	switch {
	case len(cookies) == 0 || cookies[0].Value == "":
		return "", nil
	case len(cookies) > 1:
		return "", fault.New(fault.Unauthenticated, "the request has %d cookies named %s; one is allowed", len(cookies), a.cookie)
	case r.Header.Get("Origin") == "" && !safe(r):
		return "", fault.New(fault.OriginNotAllowed, "a request with a cookie for its credential must say its Origin, which must be allowed")
	}
	return cookies[0].Value, nil
}

// safe reports whether r only reads (RFC 9110 section 9.2.1).
func safe(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return r.Header.Get("Upgrade") == ""
	}
	return false
}
