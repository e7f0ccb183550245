package ws

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/wire"

	"github.com/coder/websocket"
)

// batchItems and batchBytes bound one write, so that its deadline hits a client
// that does not read and not one whose line is slow.
const (
	batchItems = 256
	batchBytes = 32 << 10
)

// write sends what the stream owes until it ends or ctx is done, and pings.
func (c *session) write(ctx context.Context) {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	var pings sync.WaitGroup
	defer pings.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	var items []stream.Item
	for {
		for {
			items = c.stream.Take(items[:0], batchItems)
			if len(items) == 0 {
				break
			}
			end, err := c.sendItems(ctx, items)
			if err != nil {
				return
			}
			if end != nil {
				_ = c.conn.Close(websocket.StatusCode(end.Code), closeReason(end.Reason))
				return
			}
		}
		clear(items[:cap(items)])
		select {
		case <-c.stream.Wake():
		case <-ctx.Done():
			return
		case <-ping.C:
			pings.Go(func() {
				if !c.alive(ctx) {
					cancel()
				}
			})
		}
	}
}

// alive pings the client. A pong waits its turn behind other frames, so a reader
// that is at work counts as one.
func (c *session) alive(ctx context.Context) bool {
	ctx, done := context.WithTimeout(ctx, pongWithin)
	defer done()
	before := c.steps.Load()
	return c.conn.Ping(ctx) == nil || before%2 == 1 || c.steps.Load() != before
}

// sendItems writes items with one system call where they fit. end is the stream's
// last event, if it was among them.
func (c *session) sendItems(ctx context.Context, items []stream.Item) (end *wire.End, err error) {
	c.out.cork()
	if c.batches() {
		err = c.sendArray(ctx, items)
	} else {
		err = c.sendEach(ctx, items)
	}
	if err != nil {
		return nil, err
	}
	if last := items[len(items)-1].Event; last != nil && last.Name == stream.EndEvent {
		end = &wire.End{}
		if err := json.Unmarshal(last.Fields, end); err != nil {
			return nil, err
		}
	}
	return end, c.out.uncork()
}

func (c *session) sendEach(ctx context.Context, items []stream.Item) error {
	var scratch []byte
	for _, item := range items {
		var data []byte
		if item.Frame != nil {
			data = item.Frame.JSON
		} else {
			scratch = item.Event.AppendTyped(scratch[:0])
			data = scratch
		}
		if err := c.sendFrame(ctx, data); err != nil {
			return err
		}
	}
	return nil
}

// sendFrame adds a frame to what will be one system call, which it makes when
// enough waits.
func (c *session) sendFrame(ctx context.Context, data []byte) error {
	if err := c.conn.Write(ctx, websocket.MessageText, data); err != nil {
		return err
	}
	if c.out.waiting() < batchBytes {
		return nil
	}
	err := c.out.uncork()
	c.out.cork()
	if err == nil && c.stream.Expired() {
		err = errExpired
	}
	return err
}

func (c *session) sendArray(ctx context.Context, items []stream.Item) error {
	array := []byte{'['}
	for i, item := range items {
		if len(array) > 1 {
			array = append(array, ',')
		}
		if item.Frame != nil {
			array = append(array, item.Frame.JSON...)
		} else {
			array = item.Event.AppendTyped(array)
		}
		if len(array) < batchBytes && i < len(items)-1 {
			continue
		}
		if err := c.sendFrame(ctx, append(array, ']')); err != nil {
			return err
		}
		array = array[:1]
	}
	return nil
}

// closeReason cuts s to what a close frame can hold (RFC 6455 section 5.5).
func closeReason(s string) string {
	const most = 123
	if len(s) <= most {
		return s
	}
	s = s[:most]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

// offers reports whether a comma-separated header holds token.
func offers(r *http.Request, header, token string) bool {
	for _, line := range r.Header.Values(header) {
		for _, one := range strings.Split(line, ",") {
			if strings.EqualFold(strings.TrimSpace(one), token) {
				return true
			}
		}
	}
	return false
}
