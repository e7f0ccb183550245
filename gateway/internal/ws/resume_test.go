package ws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"flyscreen/gateway/gatewaytest"

	"github.com/coder/websocket"
)

// recorded is a connection that can be cut.
type recorded struct {
	ctx   context.Context
	conn  *websocket.Conn
	tcp   *net.TCPConn
	ready []json.RawMessage
}

// dial connects, subscribes to filters, a JSON list, and resumes from cursor, which
// is given in the frame since is named after.
func dial(ctx context.Context, g *gatewaytest.Gateway, token, query, frame, cursor, filters string) (*recorded, error) {
	r := &recorded{ctx: ctx}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err == nil {
			r.tcp = conn.(*net.TCPConn)
		}
		return conn, err
	}}}
	o := &websocket.DialOptions{Subprotocols: []string{"flyscreen.v1"}, HTTPClient: client}
	var err error
	if r.conn, _, err = websocket.Dial(ctx, g.URL()+"/v1/ws"+query, o); err != nil {
		return nil, err
	}
	r.conn.SetReadLimit(64 << 20)
	since := map[string]string{}
	if cursor != "" {
		since[frame] = fmt.Sprintf(`,"since":%q`, cursor)
	}
	for _, text := range []string{
		fmt.Sprintf(`{"type":"connect","token":%q%s}`, token, since["connect"]),
		fmt.Sprintf(`{"type":"subscribe","filters":%s%s}`, filters, since["subscribe"]),
	} {
		if err := r.conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Next implements gatewaytest.Connection.
func (r *recorded) Next() (l gatewaytest.Line, err error) {
	for len(r.ready) == 0 {
		_, data, err := r.conn.Read(r.ctx)
		if err != nil {
			return l, err
		}
		if data[0] != '[' {
			r.ready = []json.RawMessage{data}
		} else if err := json.Unmarshal(data, &r.ready); err != nil {
			return l, err
		}
	}
	l.Raw, r.ready = string(r.ready[0]), r.ready[1:]
	return l, json.Unmarshal([]byte(l.Raw), &l)
}

// Cut implements gatewaytest.Connection.
func (r *recorded) Cut() {
	_ = r.tcp.SetLinger(0)
	_ = r.tcp.Close()
	_ = r.conn.CloseNow()
}

// WebSockets that are cut anywhere and come back have missed nothing, while
// messages keep coming.
func TestCutConnectionsMissNothing(t *testing.T) {
	for _, c := range []struct{ query, frame string }{{"", "connect"}, {"?batch=1", "subscribe"}} {
		t.Run(c.frame+c.query, func(t *testing.T) {
			g := gatewaytest.Start(t, "limits.publish_rate=1000000", "limits.publish_burst=1000000",
				"limits.streams_per_subject=1000", "limits.streams_per_address=1000", "limits.queue_messages=100000", "limits.queue_bytes=64MiB")
			token := gatewaytest.All(t)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			g.Record(t, 6, 50, []string{"n/1", "n/2", "n/3"}, func(cursor string) (gatewaytest.Connection, error) {
				conn, err := dial(ctx, g, token, c.query, c.frame, cursor, `["n/+","n/1"]`)
				if err != nil || cursor != "" {
					return conn, err
				}
				for l := (gatewaytest.Line{}); l.Type != "live"; { // the counting begins when all are there
					if l, err = conn.Next(); err != nil {
						return nil, err
					}
				}
				return conn, nil
			})
		})
	}
}

// A subscription that resumes brings nothing that an earlier one of the connection
// brought, and each says for itself whether it resumed.
func TestResumeBesideOtherFilters(t *testing.T) {
	g := gatewaytest.Start(t)
	c := open(t, g, gatewaytest.All(t), "")
	c.subscribe("a/#")
	publish(t, g, "a/0", "0")
	cursor := *c.want("message").Cursor
	other := open(t, g, gatewaytest.All(t), "")
	other.subscribe("b/#") // so that the broker sends them
	for _, topic := range []string{"a/1", "b/1", "a/2"} {
		publish(t, g, topic, "1")
	}
	c.want("message")
	c.want("message")
	c.sendf(`{"type":"subscribe","id":1,"filters":["+/1","a/2"],"since":%q}`, cursor)
	if s := c.want("suback"); s.Resumed { // "+/1" was not followed all the time
		t.Error(s.Raw)
	}
	if gap := c.want("gap"); gap.Reason != "evicted" {
		t.Error(gap.Raw)
	}
	c.want("live")
	c.sendf(`{"type":"unsubscribe","filters":["+/1","a/2"]}`)
	c.want("unsuback")
	c.sendf(`{"type":"subscribe","id":2,"filters":["a/1","a/2"],"since":%q}`, cursor)
	if s := c.want("suback"); !s.Resumed {
		t.Error(s.Raw)
	}
	c.want("live")

	fresh := open(t, g, gatewaytest.All(t), "?since="+cursor)
	fresh.send(`{"type":"subscribe","id":1,"filters":["a/1"]}`)
	if s := fresh.want("suback"); !s.Resumed {
		t.Error(s.Raw)
	}
	if m := fresh.want("message"); m.Topic != "a/1" {
		t.Error(m.Raw)
	}
	fresh.want("live")
	fresh.sendf(`{"type":"subscribe","id":2,"filters":["a/#"],"since":%q}`, cursor)
	fresh.want("suback")
	var topics []string
	for f := fresh.next(); f.Type == "message"; f = fresh.next() {
		topics = append(topics, f.Topic)
	}
	if got := strings.Join(topics, " "); got != "a/2" {
		t.Errorf("got %s, want a/2 alone: a/1 has come already", got)
	}
	fresh.send(`{"type":"subscribe","id":3,"filters":["a/2"],"since":"nonsense"}`)
	fresh.wantError("nonsense", "bad-request")
}
