package upstream_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
)

// A WebSocket server that is no broker is named as such, and trying again and
// again leaves no connections behind.
func TestWebSocketRefused(t *testing.T) {
	for name, test := range map[string]struct {
		serve http.HandlerFunc
		want  string
	}{
		"not found": {http.NotFound, "404"},
		"redirect":  {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, "302"},
		"no subprotocol": {func(w http.ResponseWriter, r *http.Request) {
			if ws, err := websocket.Accept(w, r, nil); err == nil {
				defer func() { _ = ws.CloseNow() }()
				_, _, _ = ws.Read(r.Context()) // until the gateway hangs up
			}
		}, "subprotocol"},
	} {
		t.Run(name, func(t *testing.T) {
			var attempts, open atomic.Int64
			server := httptest.NewUnstartedServer(test.serve)
			server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				switch state {
				case http.StateNew:
					attempts.Add(1)
					open.Add(1)
				case http.StateClosed, http.StateHijacked:
					open.Add(-1)
				}
			}
			server.Start()
			defer server.Close()
			o := quick("ws" + strings.TrimPrefix(server.URL, "http"))
			u := start(t, o)
			waitFor(t, "a reason", func() bool { return strings.Count(u.Ready().Error(), test.want) == 3 })
			waitFor(t, "attempts", func() bool { return attempts.Load() >= 60 })
			waitFor(t, "the connections to be closed", func() bool { return open.Load() <= 6 })
		})
	}
}
