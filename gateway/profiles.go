package gateway

import (
	"net/http"
	"net/http/pprof" // it also registers with the default mux, which nobody serves

	"github.com/labstack/echo/v4"
)

// profiles adds Go's profiles where http.pprof asks for them. The page that shows
// the command line is left out: it may hold a password.
func (g *Gateway) profiles(e *echo.Echo, guards ...echo.MiddlewareFunc) {
	if !g.config.HTTP.PProf {
		return
	}
	const path = "/debug/pprof/"
	e.GET(path+"profile", echo.WrapHandler(http.HandlerFunc(pprof.Profile)), guards...)
	e.GET(path+"trace", echo.WrapHandler(http.HandlerFunc(pprof.Trace)), guards...)
	for _, name := range []string{"allocs", "heap", "goroutine", "mutex", "block", "threadcreate"} {
		e.GET(path+name, echo.WrapHandler(pprof.Handler(name)), guards...)
	}
}
