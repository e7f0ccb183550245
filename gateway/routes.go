package gateway

import (
	"errors"
	"net/http"
	"time"

	"flyscreen"
	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/web"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// router is every route and its middleware on one screen.
func (g *Gateway) router() *echo.Echo {
	e := g.newEcho()
	if g.config.Auth.Cookie != "" {
		e.Use(g.origins.cookies)
	}
	e.Use(g.origins.middleware)

	e.POST("/v1/topics/*", g.as(g.api.Post))
	e.PUT("/v1/topics/*", g.as(g.api.Put))
	e.DELETE("/v1/topics/*", g.as(g.api.Delete))
	e.GET("/v1/topics/*", g.as(g.api.Get))
	e.HEAD("/v1/topics/*", g.as(g.api.Get))
	e.GET("/v1/topics", g.as(g.api.List))
	e.POST("/v1/messages", g.as(g.api.Batch))
	e.POST("/v1/authz/explain", g.as(g.api.Explain))
	e.POST("/v1/tickets", g.as(g.api.Ticket))
	e.POST("/v1/revocations", g.as(g.api.Revoke))

	e.GET("/v1/stream", g.asFrom(g.auth.Stream, func(c echo.Context, p auth.Principal) error {
		return g.sse.Serve(c.Response(), c.Request(), p)
	}))
	e.PATCH("/v1/stream/:stream", g.as(g.api.PatchStream))
	e.PUT("/v1/stream/:stream/token", g.as(g.api.RefreshStream))
	e.GET("/v1/ws", func(c echo.Context) error { return g.ws.Serve(c.Response(), c.Request()) })

	e.GET("/livez", g.api.Live)
	e.GET("/readyz", g.api.Ready)
	e.GET("/openapi.yaml", openAPI)
	page := echo.WrapHandler(web.Handler())
	for _, path := range web.Paths() {
		e.GET(path, page)
		e.HEAD(path, page)
	}
	if g.config.HTTP.AdminListen == "" {
		g.operations(e, loopbackOnly)
		g.profiles(e, loopbackOnly)
	}
	return e
}

// adminRouter is what the admin listener serves.
func (g *Gateway) adminRouter() *echo.Echo {
	e := g.newEcho()
	e.GET("/livez", g.api.Live)
	e.GET("/readyz", g.api.Ready)
	g.operations(e)
	g.profiles(e)
	return e
}

// operations are for operators alone: on the admin listener, or for this machine.
func (g *Gateway) operations(e *echo.Echo, guard ...echo.MiddlewareFunc) {
	e.GET("/metrics", g.metricsPage(), guard...)
	e.GET("/v1/upstream", g.api.Upstream, guard...)
	e.GET("/v1/outbox", g.api.Outbox, guard...)
	e.GET("/v1/outbox/:id", g.api.OutboxMessage, guard...)
	e.DELETE("/v1/outbox/:id", g.api.OutboxDrop, guard...)
	e.POST("/v1/outbox/:id/retry", g.api.OutboxRetry, guard...)
}

func (g *Gateway) newEcho() *echo.Echo {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = g.answerError
	e.IPExtractor = g.proxies.address
	e.Use(g.observe, g.recoverPanic, g.limitBody)
	return e
}

// principalKey is where a request's principal is kept for the audit.
const principalKey = "principal"

// as makes a handler of one that needs to know who asks.
func (g *Gateway) as(serve func(echo.Context, auth.Principal) error) echo.HandlerFunc {
	return g.asFrom(g.auth.Request, serve)
}

// asFrom is as for who takes other credentials too.
func (g *Gateway) asFrom(who func(*http.Request) (auth.Principal, error), serve func(echo.Context, auth.Principal) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		p, err := who(c.Request())
		if err != nil {
			return err
		}
		c.Set(principalKey, p)
		return serve(c, p)
	}
}

func openAPI(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "no-cache")
	return c.Blob(http.StatusOK, "application/yaml", flyscreen.OpenAPI)
}

func (g *Gateway) metricsPage() echo.HandlerFunc {
	return echo.WrapHandler(promhttp.HandlerFor(g.metrics, promhttp.HandlerOpts{}))
}

// limitBody bounds the time for the whole body. It cannot be left to the handlers
// that read one: net/http waits for an unread body before it writes an answer, so
// a refused request could be held open without end. It ends the deadline itself
// when the body is there.
func (g *Gateway) limitBody(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if c.Request().ContentLength == 0 {
			return next(c)
		}
		deadline := time.Now().Add(g.config.Limits.BodyTimeout)
		if err := http.NewResponseController(c.Response()).SetReadDeadline(deadline); err != nil {
			return err
		}
		return next(c)
	}
}

// loopbackOnly looks at the peer itself: a header cannot make it local. The host
// must be local too, or a page could have its name resolved to this machine.
func loopbackOnly(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if ip := peer(c.Request()); !ip.IsLoopback() || !localHost(c.Request().Host) || forwarded(c.Request()) {
			return fault.New(fault.NotFound, "there is nothing at this path")
		}
		return next(c)
	}
}

// recoverPanic turns a panic into an answer; the process goes on.
func (g *Gateway) recoverPanic(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if e, is := v.(error); is && errors.Is(e, http.ErrAbortHandler) {
				panic(v)
			}
			err = g.panicked(v)
		}()
		return next(c)
	}
}
