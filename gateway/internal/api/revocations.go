package api

import (
	"net/http"
	"slices"
	"strings"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/audit"
	"flyscreen/gateway/mqtt"

	"github.com/labstack/echo/v4"
)

// AdminTopic is what an administrator has a publish grant for, which must name the
// first level: a wildcard there does not count. Nobody can publish to it.
const AdminTopic mqtt.Topic = "flyscreen-barrier/control/revocations"

// maxRevocation bounds the body of a revocation.
const maxRevocation = 16 << 10

// Revoke takes back a token, all that a subject has, or all that a key signed, on
// every gateway that shares the broker.
func (d *Door) Revoke(c echo.Context, p auth.Principal) error {
	if err := noOptions(c); err != nil {
		return err
	}
	if !isAdmin(p) {
		return fault.New(fault.NotAuthorized, "revoking needs a publish grant for %q, whose first level is not a wildcard", AdminTopic)
	}
	body, err := d.document(c, "the revocation", maxRevocation)
	if err != nil {
		return err
	}
	r, err := auth.ParseRevocation(body)
	if err != nil {
		return err
	}
	err = d.options.Revoke(c.Request().Context(), r)
	d.options.Audit.Record(c.Request().Context(), audit.Decision{Principal: p, Action: "revoke", Target: r.String(), Err: err})
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, r)
}

func isAdmin(p auth.Principal) bool {
	first, _, _ := strings.Cut(string(AdminTopic), "/")
	return !p.Anonymous && !p.Grants.Denied(AdminTopic) && slices.ContainsFunc(p.Grants.Pub, func(f mqtt.Filter) bool {
		return strings.HasPrefix(string(f), first+"/") && f.Matches(AdminTopic)
	})
}
