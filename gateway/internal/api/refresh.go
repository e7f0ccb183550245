package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/audit"
	"flyscreen/gateway/wire"

	"github.com/labstack/echo/v4"
)

// RefreshStream gives an open stream of p's subject the credential that the request
// brought, with its end and its grants. After a failure the stream goes on with the
// old one, unless the new grants leave nothing of its filters: then it has ended.
func (d *Door) RefreshStream(c echo.Context, p auth.Principal) error {
	if err := noOptions(c); err != nil {
		return err
	}
	if _, err := d.body(c, 0, fault.New(fault.TooLarge, "the new token comes in the header; there is no body")); err != nil {
		return err
	}
	s, err := d.options.Streams.Find(c.Param("stream"), p)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), d.options.Timeout)
	defer cancel()
	granted, err := s.Refresh(ctx, p, nil)
	var coded *fault.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		err = fault.New(fault.Overloaded, "the stream's client has not read yet what earlier changes brought").Retry(time.Second).Because(err)
	case err != nil && !errors.As(err, &coded):
		err = fault.New(fault.NotFound, "the stream has ended").Because(err)
	}
	d.options.Audit.Record(c.Request().Context(), audit.Decision{Principal: p, Action: "refresh", Target: s.ID(), Err: err})
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, wire.Authack{Expires: wire.TimeOrNull(p.Expires), Granted: wire.NotNull(granted)})
}
