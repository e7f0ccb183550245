package ws_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"flyscreen/gateway/gatewaytest"

	"github.com/coder/websocket"
)

func TestMain(m *testing.M) { gatewaytest.Main(m) }

// client is a WebSocket client that looks at the frames as they are.
type client struct {
	t    *testing.T
	ctx  context.Context
	conn *websocket.Conn
}

// frame is what tests look at in a frame.
type frame struct {
	gatewaytest.Line
	ID       json.RawMessage `json:"id"`
	Subject  string          `json:"subject"`
	Filters  []string        `json:"filters"`
	Delivery string          `json:"delivery"`
	Limits   map[string]int  `json:"limits"`
	Problem  struct {
		Code, Detail string
		Status       int
	} `json:"problem"`
	Results []struct {
		Filter  string
		Granted []string
		QoS     *int
		Problem *struct{ Code, Detail string }
	} `json:"results"`
}

// try opens a connection; answer is the HTTP one. header holds "Name: value" lines.
func try(t *testing.T, g *gatewaytest.Gateway, token, query string, header ...string) (c *client, answer *http.Response, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), gatewaytest.Patience)
	t.Cleanup(cancel)
	o := &websocket.DialOptions{Subprotocols: []string{"flyscreen.v1"}, HTTPHeader: http.Header{}}
	if token != "" {
		o.HTTPHeader.Set("Authorization", "Bearer "+token)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		o.HTTPHeader.Set(name, value)
	}
	conn, answer, err := websocket.Dial(ctx, g.URL()+"/v1/ws"+query, o)
	if err != nil {
		return nil, answer, err
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	conn.SetReadLimit(64 << 20)
	return &client{t: t, ctx: ctx, conn: conn}, answer, nil
}

// open opens a connection that must come about.
func open(t *testing.T, g *gatewaytest.Gateway, token, query string) *client {
	t.Helper()
	c, _, err := try(t, g, token, query)
	if err != nil {
		t.Fatal(err)
	}
	if p := c.conn.Subprotocol(); p != "flyscreen.v1" {
		t.Fatalf("the subprotocol is %q", p)
	}
	return c
}

func (c *client) send(text string) {
	c.t.Helper()
	if err := c.conn.Write(c.ctx, websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) sendf(format string, args ...any) {
	c.t.Helper()
	c.send(fmt.Sprintf(format, args...))
}

// raw is the next frame as it came.
func (c *client) raw() []byte {
	c.t.Helper()
	kind, data, err := c.conn.Read(c.ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	if kind != websocket.MessageText || bytes.ContainsAny(data, "\r\n") {
		c.t.Fatalf("a %v frame: %.200q", kind, data)
	}
	return data
}

// next is the next frame, which holds one object.
func (c *client) next() (f frame) {
	c.t.Helper()
	data := c.raw()
	if err := json.Unmarshal(data, &f); err != nil {
		c.t.Fatalf("%v: %.200q", err, data)
	}
	f.Raw = string(data)
	return f
}

// want is the next frame, which must be of that type.
func (c *client) want(kind string) frame {
	c.t.Helper()
	f := c.next()
	if f.Type != kind {
		c.t.Fatalf("got %s, want %s", f.Raw, kind)
	}
	return f
}

// wantError is the next frame, which must be an error with that code.
func (c *client) wantError(what, code string) frame {
	c.t.Helper()
	f := c.next()
	if f.Type != "error" || f.Problem.Code != code || f.Problem.Detail == "" {
		c.t.Errorf("%s: got %s, want error %s", what, f.Raw, code)
	}
	return f
}

// wantEnd reads up to the end: the end frame, and the close frame with the same
// code.
func (c *client) wantEnd(what string, code int) (end frame) {
	c.t.Helper()
	for {
		kind, data, err := c.conn.Read(c.ctx)
		if err != nil {
			if got := websocket.CloseStatus(err); int(got) != code || end.Code != code {
				c.t.Errorf("%s: closed with %v, end frame %q; want %d", what, err, end.Raw, code)
			}
			return end
		}
		if kind != websocket.MessageText || end.Type == "end" {
			c.t.Errorf("%s: a %v frame after the end frame %q", what, kind, end.Raw)
		}
		end = frame{}
		if err := json.Unmarshal(data, &end); err != nil {
			c.t.Errorf("%v: %.200q", err, data)
		}
		end.Raw = string(data)
	}
}

// subscribe subscribes to one filter and returns when it is live.
func (c *client) subscribe(filter string) {
	c.t.Helper()
	c.sendf(`{"type":"subscribe","filters":[%q]}`, filter)
	if s := c.want("suback"); s.Results[0].Problem != nil {
		c.t.Fatal(s.Raw)
	}
	for c.next().Type != "live" {
	}
}

// metric is the value of a metric without labels.
func metric(t *testing.T, g *gatewaytest.Gateway, name string) string {
	t.Helper()
	for _, line := range strings.Split(metrics(t, g), "\n") {
		if value, found := strings.CutPrefix(line, name+" "); found {
			return value
		}
	}
	t.Fatalf("there is no metric %s", name)
	return ""
}

func metrics(t *testing.T, g *gatewaytest.Gateway) string {
	t.Helper()
	_, body := g.Do(t, "", "GET", "/metrics", "")
	return body
}

func publish(t *testing.T, g *gatewaytest.Gateway, topic, payload string) {
	t.Helper()
	if r, body := g.Do(t, gatewaytest.All(t), "POST", "/v1/topics/"+topic, payload); r.StatusCode != 200 {
		t.Fatalf("publish to %s: %s %s", topic, r.Status, body)
	}
}
