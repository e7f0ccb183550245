package api

import (
	"net/http"

	"flyscreen/auth"
	"flyscreen/gateway/internal/audit"

	"github.com/labstack/echo/v4"
)

type ticket struct {
	Ticket    string `json:"ticket"`
	ExpiresIn int    `json:"expires_in"` // seconds
}

// Ticket gives the caller a ticket that stands for its credential once, where a
// browser cannot send one: in the URL of a stream.
func (d *Door) Ticket(c echo.Context, p auth.Principal) error {
	if err := noOptions(c); err != nil {
		return err
	}
	text, err := d.options.Ticket(p)
	d.options.Audit.Record(c.Request().Context(), audit.Decision{Principal: p, Action: "ticket", Err: err})
	if err != nil {
		return err
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return answer(c, http.StatusOK, ticket{Ticket: text, ExpiresIn: int(auth.TicketLife.Seconds())})
}
