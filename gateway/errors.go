package gateway

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/audit"
	"flyscreen/gateway/wire"

	"github.com/labstack/echo/v4"
)

// answerError spells err for the client: the one place where a failure becomes a
// status.
func (g *Gateway) answerError(err error, c echo.Context) {
	if c.Response().Committed {
		g.log.Debug("an answer broke off", "path", c.Path(), "err", err)
		return
	}
	err = translate(err)
	g.auditRefusal(c, err)
	f := fault.From(err)
	switch {
	case f.Code != fault.Internal:
	case c.Request().Context().Err() != nil:
		g.log.Debug("the client left before its answer", "path", c.Path(), "err", err)
	default:
		g.log.Error("a request failed", "path", c.Path(), "err", err)
	}
	problem := wire.ProblemFrom(err)
	h := c.Response().Header()
	if challenge := auth.Challenge(err); challenge != "" {
		h.Set("WWW-Authenticate", challenge)
	}
	if wait := retryAfter(f, problem.Status); wait > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if err := c.Blob(problem.Status, wire.ProblemType, append(wire.AppendJSON(nil, problem), '\n')); err != nil {
		g.log.Debug("an answer broke off", "path", c.Path(), "err", err)
	}
}

// retryAfter is when to try again; a failure that passes always says it, also when
// nobody knows better than soon.
func retryAfter(f *fault.Error, status int) time.Duration {
	passes := status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable
	if passes && f.RetryAfter <= 0 {
		return time.Second
	}
	return f.RetryAfter
}

// translate gives the errors of libraries a code.
func translate(err error) error {
	var e *echo.HTTPError
	switch {
	case errors.As(err, &e) && e.Code == http.StatusNotFound:
		return fault.New(fault.NotFound, "there is nothing at this path")
	case errors.As(err, &e) && e.Code == http.StatusMethodNotAllowed:
		return fault.New(fault.MethodNotAllowed, "this path does not take this method")
	case errors.Is(err, context.DeadlineExceeded):
		return fault.New(fault.UpstreamTimeout, "the broker did not answer in time").Because(err)
	}
	return err
}

func (g *Gateway) panicked(v any) error {
	g.log.Error("a handler panicked", "panic", v, "stack", string(debug.Stack()))
	return fmt.Errorf("panic: %v", v)
}

// auditRefusal records a refusal that nobody below has.
func (g *Gateway) auditRefusal(c echo.Context, err error) {
	r := c.Request()
	if !audit.Refuses(err) || audit.From(r.Context()).Recorded() {
		return
	}
	target, isTopic := strings.CutPrefix(r.URL.Path, "/v1/topics/")
	if !isTopic {
		target = strings.Join(r.URL.Query()["filter"], " ")
	}
	p, _ := c.Get(principalKey).(auth.Principal)
	g.audit.Record(r.Context(), audit.Decision{Principal: p, Action: r.Method + " " + c.Path(), Target: target, Err: err})
}

// observe counts the requests being served, gives each an id, and writes one line
// for each. The query is left out: it may hold a token.
func (g *Gateway) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		g.doors.Add(1)
		defer g.doors.Done()
		request := audit.NewRequest(g.proxies.address(c.Request()))
		c.SetRequest(c.Request().WithContext(audit.With(c.Request().Context(), request)))
		c.Response().Header().Set("X-Request-Id", request.ID)
		begun := time.Now()
		if err := next(c); err != nil {
			c.Error(err)
		}
		r := c.Request()
		g.log.Debug("request", "req", request.ID, "method", r.Method, "path", r.URL.Path, "status", c.Response().Status, "took", time.Since(begun))
		return nil
	}
}
