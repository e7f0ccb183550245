package gateway

import (
	"net/http"
	"net/url"
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
		origin := r.Header.Get("Origin")
		if origin == "" || sameOrigin(origin, r) {
			return next(c)
		}
		if !o.allows(origin) {
			return fault.New(fault.OriginNotAllowed, "the origin %q is not in http.allowed_origins", origin)
		}
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", "ETag, Retry-After, WWW-Authenticate")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
			h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE")
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-None-Match, Last-Event-ID")
			h.Set("Access-Control-Max-Age", "600")
			return c.NoContent(http.StatusNoContent)
		}
		return next(c)
	}
}

// sameOrigin compares host and port, and the scheme where it is known: a request
// without TLS may have come through a proxy that ends it.
func sameOrigin(origin string, r *http.Request) bool {
	u, err := url.Parse(origin)
	if err != nil || !strings.EqualFold(u.Host, r.Host) {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && r.TLS == nil
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
