package gateway

import (
	"net/http"
	"strings"

	"flyscreen/gateway/fault"

	"github.com/labstack/echo/v4"
)

// origins is the allowlist for browsers of other origins, each exact
// (scheme://host[:port]) or https://*.example.com, in lower case. It holds for all
// doors alike: HTTP, SSE and WebSocket.
type origins []string

// middleware refuses requests from other origins, and answers the CORS preflight
// of allowed ones. Requests without an Origin do not come from a page, or from one
// of our own.
func (o origins) middleware(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r, h := c.Request(), c.Response().Header()
		h.Add("Vary", "Origin")
		sent := r.Header.Values("Origin")
		origin := strings.Join(sent, " ") // of which browsers send one; two fit nothing below
		if origin == "" || sameOrigin(origin, r) {
			return next(c)
		}
		if !o.allows(origin) {
			return fault.New(fault.OriginNotAllowed, "the origin %q is not in http.allowed_origins", origin)
		}
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "ETag, Location, Retry-After, WWW-Authenticate, X-Request-Id")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
			h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE")
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Prefer, X-API-Key")
			h.Set("Access-Control-Max-Age", "600")
			return c.NoContent(http.StatusNoContent)
		}
		return next(c)
	}
}

// cookies lets pages of allowed origins send their cookies along. It comes before
// middleware, which answers preflights.
func (o origins) cookies(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if sent := c.Request().Header.Values("Origin"); len(sent) == 1 && o.allows(sent[0]) {
			c.Response().Header().Set("Access-Control-Allow-Credentials", "true")
		}
		return next(c)
	}
}

// sameOrigin compares scheme, host and port with those of the request, as a whole:
// an origin is nothing more than them (RFC 6454 section 6.2). A request without TLS
// may have come through a proxy that ends it.
func sameOrigin(origin string, r *http.Request) bool {
	return strings.EqualFold(origin, "https://"+r.Host) || r.TLS == nil && strings.EqualFold(origin, "http://"+r.Host)
}

func (o origins) allows(origin string) bool {
	origin = strings.ToLower(origin)
	for _, allowed := range o {
		scheme, suffix, wild := strings.Cut(allowed, "*")
		if !wild {
			if origin == allowed {
				return true
			}
			continue
		}
		// At least one label must stand for the star, and nothing but labels.
		label, found := strings.CutPrefix(origin, scheme)
		label, ends := strings.CutSuffix(label, suffix)
		if found && ends && label != "" && !strings.ContainsAny(label, "/:@?#") && label[0] != '.' {
			return true
		}
	}
	return false
}
