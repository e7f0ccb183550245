package sse_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
)

// wide are limits that cutting clients do not meet.
var wide = []string{
	"limits.publish_rate=1000000", "limits.publish_burst=1000000", "limits.streams_per_subject=1000", "limits.streams_per_address=1000",
	"limits.queue_messages=100000", "limits.queue_bytes=64MiB",
}

// wire is a stream on a connection of its own.
type wire struct {
	conn net.Conn
	r    *bufio.Reader
}

// dial opens a stream in that format on a connection of its own.
func dial(g *gatewaytest.Gateway, token, query, accept, lastEventID string) (*wire, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.URL(), "http://"))
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(gatewaytest.Patience))
	fmt.Fprintf(conn, "GET /v1/stream?%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nAccept: %s\r\n", query, token, accept)
	if lastEventID != "" {
		fmt.Fprintf(conn, "Last-Event-ID: %s\r\n", lastEventID)
	}
	fmt.Fprint(conn, "\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &wire{conn: conn, r: bufio.NewReader(answer.Body)}, nil
}

// Next implements gatewaytest.Connection.
func (w *wire) Next() (l gatewaytest.Line, err error) {
	kind := ""
	for {
		text, err := w.r.ReadString('\n')
		if err != nil {
			return l, err
		}
		text = strings.TrimSuffix(text, "\n")
		if name, is := strings.CutPrefix(text, "event: "); is {
			kind = name
			continue
		}
		text = strings.TrimPrefix(text, "data: ")
		if strings.HasPrefix(text, "{") {
			l.Raw = kind + text
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				return l, err
			}
			if l.Type == "" {
				l.Type = kind
			}
			return l, nil
		}
	}
}

// Cut implements gatewaytest.Connection.
func (w *wire) Cut() {
	_ = w.conn.(*net.TCPConn).SetLinger(0)
	_ = w.conn.Close()
}

// Streams that are cut anywhere and come back have missed nothing, while messages
// keep coming.
func TestCutStreamsMissNothing(t *testing.T) {
	for _, accept := range []string{"text/event-stream", "application/x-ndjson"} {
		t.Run(accept, func(t *testing.T) {
			g := gatewaytest.Start(t, wide...)
			token := gatewaytest.All(t)
			g.Record(t, 7, 50, []string{"n/1", "n/2", "n/3"}, func(cursor string) (gatewaytest.Connection, error) {
				return dial(g, token, "filter=n/%2B&filter=n/1", accept, cursor)
			})
		})
	}
}

// Where a stream cannot go on it says why, and brings the retained messages.
func TestResumeThatCannot(t *testing.T) {
	for _, c := range []struct {
		what, reason string
		settings     []string
		between      func(t *testing.T, g *gatewaytest.Gateway)
		cursor       string // instead of the one that was seen
	}{
		{what: "the window is too small", reason: "evicted", settings: []string{"limits.window_bytes=1KiB"},
			between: func(t *testing.T, g *gatewaytest.Gateway) {
				for range 10 {
					publish(t, g, "elsewhere", strings.Repeat("x", 300))
				}
			}},
		{what: "nothing lingers", reason: "evicted", settings: []string{"limits.linger=0s"},
			between: func(t *testing.T, g *gatewaytest.Gateway) {
				gatewaytest.Eventually(t, "the broker's subscription ends", func() bool {
					return metric(t, g, "flyscreen_hub_filters") == "1"
				})
			}},
		{what: "another process", reason: "node", cursor: "00000000-7"},
		{what: "no cursor at all", reason: "node", cursor: "what is this"},
		{what: "a position that has not been", reason: "node", cursor: "+1000000"},
	} {
		t.Run(c.what, func(t *testing.T) {
			g := gatewaytest.Start(t, c.settings...)
			token := gatewaytest.All(t)
			witness := g.Follow(t, token, "filter=elsewhere")
			defer witness.Close()
			g.Retain(t, "s/kept", "1")
			s := g.Follow(t, token, "filter=s/%23")
			publish(t, g, "s/live", "2")
			cursor := *s.Next().Cursor
			s.Close()
			gatewaytest.Eventually(t, "the stream is gone", func() bool { return metric(t, g, "flyscreen_stream_open") == "1" })
			if c.between != nil {
				c.between(t, g)
			}
			switch {
			case strings.HasPrefix(c.cursor, "+"):
				epoch, _, _ := strings.Cut(cursor, "-")
				cursor = epoch + "-" + c.cursor[1:]
			case c.cursor != "":
				cursor = c.cursor
			}
			again := follow(t, g, token, "filter=s/%23", "Last-Event-ID: "+cursor)
			if _, ready := again.next(); ready.Resumed {
				t.Error("resumed")
			}
			if e, gap := again.next(); e.name != "gap" || gap.Reason != c.reason || gap.Missed != nil {
				t.Errorf("got %s %s, want a gap with reason %s", e.name, e.data, c.reason)
			}
			if _, m := again.next(); m.Topic != "s/kept" || !m.Retain {
				t.Errorf("no snapshot, but %s", m.Raw)
			}
			again.until("live")
		})
	}
}

// What a narrower token may not read is not replayed to it.
func TestResumeWithOtherGrants(t *testing.T) {
	g := gatewaytest.Start(t)
	s := g.Follow(t, gatewaytest.All(t), "filter=p/%23")
	publish(t, g, "p/begin", "0")
	cursor := *s.Next().Cursor
	for _, topic := range []string{"p/mine", "p/theirs", "p/mine"} {
		publish(t, g, topic, "1")
		s.Next()
	}
	s.Close()
	narrow := gatewaytest.Token(t, auth.Claims{Subject: "other", Sub: []string{"p/mine"}})
	again := g.Open(t, narrow, "filter=p/%23&since="+cursor)
	if ready := again.Next(); !ready.Resumed || len(ready.Granted) != 1 {
		t.Errorf("got %s", ready.Raw)
	}
	for _, l := range again.Until("live") {
		if l.Type == "message" && l.Topic != "p/mine" {
			t.Errorf("not granted: %s", l.Raw)
		}
	}
	if answer, body := g.Do(t, gatewaytest.Token(t, auth.Claims{Subject: "none", Sub: []string{"q"}}), http.MethodGet,
		"/v1/stream?filter=p/%23&since="+cursor, ""); answer.StatusCode != http.StatusForbidden {
		t.Errorf("no grant: %s %s", answer.Status, body)
	}
	whole := g.Open(t, gatewaytest.All(t), "filter=p/%23&since="+cursor)
	if n := len(whole.Until("live")); n != 5 { // ready, three messages, live
		t.Errorf("the control got %d", n)
	}
}

// A client that sends where there is nothing to say is cut off in the end, and
// until then gets its stream.
func TestClientThatSends(t *testing.T) {
	g := gatewaytest.Start(t)
	w, err := dial(g, gatewaytest.All(t), "filter=a", "application/x-ndjson", "")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Cut()
	if _, err := w.conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	publish(t, g, "a", "1")
	for l := (gatewaytest.Line{}); l.Type != "message"; {
		if l, err = w.Next(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), gatewaytest.Patience)
	defer cancel()
	for err = nil; err == nil && ctx.Err() == nil; {
		_, err = w.conn.Write(make([]byte, 64<<10))
	}
	if err == nil {
		t.Error("the gateway reads on and on")
	}
	gatewaytest.Eventually(t, "the stream is gone", func() bool { return metric(t, g, "flyscreen_stream_open") == "0" })
}
