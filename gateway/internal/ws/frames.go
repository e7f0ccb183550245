package ws

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/publish"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"

	"github.com/coder/websocket"
)

// maxComplaints is how many frames of a client may be wrong before it is ended.
const maxComplaints = 10

// handle answers one frame; done means that the client is to be ended and reads
// nothing more.
func (c *session) handle(ctx context.Context, kind websocket.MessageType, data []byte) (done bool) {
	if kind != websocket.MessageText {
		return c.complain(nil, fault.New(fault.BadRequest, "a binary frame: this protocol is JSON in text frames"))
	}
	if !utf8.Valid(data) {
		c.stream.End(wire.CloseInvalidUTF8, "a text frame is not valid UTF-8")
		return true
	}
	var head struct {
		Type string       `json:"type"`
		ID   *wire.Number `json:"id"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return c.complain(nil, fault.New(fault.BadRequest, `a frame must be one JSON object with "type", and "id" a number`))
	}
	if head.Type == "connect" {
		return c.connect(head.ID, data)
	}
	if head.Type == "ping" || head.Type == "disconnect" {
		return c.bare(head.Type, data)
	}
	c.begun = true
	if !c.known {
		c.stream.End(wire.CloseUnauthenticated, "the first frame must be connect with a token")
		return true
	}
	var err error
	switch head.Type {
	case "subscribe":
		err = c.subscribe(ctx, head.ID, data)
	case "unsubscribe":
		err = c.unsubscribe(head.ID, data)
	case "publish":
		return c.publish(ctx, head.ID, data)
	case "auth", "ack":
		err = wire.NotYet("the frame type \"" + head.Type + "\"")
	default:
		err = fault.New(fault.BadRequest, "the frame type is not known")
	}
	if err != nil {
		return c.complain(head.ID, err)
	}
	return false
}

// complain answers a wrong frame, and ends a client that keeps on.
func (c *session) complain(id *wire.Number, err error) (done bool) {
	c.stream.Send(wire.NewEvent("error", wire.Refusal{ID: id, Problem: wire.ProblemFrom(err)}))
	if c.complaints++; c.complaints > maxComplaints {
		c.stream.End(wire.CloseProtocol, "too many frames were wrong")
		return true
	}
	return false
}

// bare handles the frames without members of their own.
func (c *session) bare(kind string, data []byte) (done bool) {
	var f struct {
		Type string       `json:"type"`
		ID   *wire.Number `json:"id"`
	}
	if err := wire.Decode(data, &f); err != nil {
		return c.complain(f.ID, err)
	}
	if kind == "disconnect" {
		c.stream.End(wire.CloseNormal, "the client disconnected")
		return true
	}
	c.stream.Send(wire.NewEvent("pong", wire.Pong{ID: f.ID}))
	return false
}

type connectFrame struct {
	Type    string          `json:"type"`
	ID      *wire.Number    `json:"id"`
	Token   string          `json:"token"`
	Batch   bool            `json:"batch"`
	Session json.RawMessage `json:"session"`
	Will    json.RawMessage `json:"will"`
	Since   json.RawMessage `json:"since"`
}

func (c *session) connect(id *wire.Number, data []byte) (done bool) {
	if c.begun {
		return c.complain(id, fault.New(fault.BadRequest, "connect must be the first frame"))
	}
	var f connectFrame
	err := wire.Decode(data, &f)
	if err == nil && (f.Session != nil || f.Will != nil || f.Since != nil) {
		err = wire.NotYet(`"session", "will" or "since" in connect`)
	}
	if err == nil && f.Token != "" && c.known && !c.stream.Principal().Anonymous {
		err = fault.New(fault.BadRequest, "the request brought a token already; connect must not bring another one")
	}
	if err != nil {
		return c.complain(id, err)
	}
	c.begun = true
	if f.Token != "" {
		p, err := c.door.options.Auth.Token(f.Token)
		if err == nil {
			err = c.authenticate(p)
		}
		if err != nil {
			c.stream.Send(wire.NewEvent("error", wire.Refusal{ID: id, Problem: wire.ProblemFrom(err)}))
			c.stream.End(wire.CloseFrom(err), fault.From(err).Detail)
			return true
		}
	}
	if !c.known {
		c.stream.End(wire.CloseUnauthenticated, "connect must bring a token")
		return true
	}
	if f.Batch {
		c.setBatch()
	}
	p := c.stream.Principal()
	c.stream.Send(wire.NewEvent("connack", wire.Connack{
		ID: id, Stream: c.stream.ID(), Subject: p.Subject, Expires: wire.TimeOrNull(p.Expires), Limits: c.door.options.Limits,
	}))
	return false
}

// want is one filter of a subscribe frame: a string, or an object with options.
type want struct {
	Filter   string       `json:"filter"`
	QoS      *int         `json:"qos"`
	Snapshot *bool        `json:"snapshot"`
	Strict   bool         `json:"strict"`
	Mode     string       `json:"mode"`
	Interval *wire.Number `json:"interval"`
	OnSlow   string       `json:"on_slow"`
}

type filtersFrame struct {
	Type    string            `json:"type"`
	ID      *wire.Number      `json:"id"`
	Filters []json.RawMessage `json:"filters"`
}

func (c *session) filters(data []byte) ([]json.RawMessage, error) {
	var f filtersFrame
	if err := wire.Decode(data, &f); err != nil {
		return nil, err
	}
	if most := c.door.options.MaxFilters; len(f.Filters) == 0 || len(f.Filters) > most {
		return nil, fault.New(fault.BadRequest, `"filters" must name 1 to %d filters`, most)
	}
	return f.Filters, nil
}

func (c *session) subscribe(ctx context.Context, id *wire.Number, data []byte) error {
	raw, err := c.filters(data)
	if err != nil {
		return err
	}
	answers := make([]wire.SubscribeResult, len(raw))
	var requests []stream.Request
	place := map[mqtt.Filter]int{}
	for i, one := range raw {
		request, name, err := c.request(one)
		answers[i].Filter = name
		if _, twice := place[request.Filter]; err == nil && twice {
			err = fault.New(fault.BadRequest, "the filter is given twice in this frame")
		}
		if err != nil {
			answers[i].Refuse(err)
			continue
		}
		place[request.Filter] = i
		requests = append(requests, request)
	}
	answer := func(results []stream.Result) []*wire.Event {
		for _, r := range results {
			a := &answers[place[r.Filter]]
			if r.Err != nil {
				a.Refuse(r.Err)
				continue
			}
			a.Grant(r.Granted, r.QoS)
		}
		return []*wire.Event{wire.NewEvent("suback", wire.Suback{ID: id, Results: answers})}
	}
	if len(requests) == 0 {
		for _, e := range answer(nil) {
			c.stream.Send(e)
		}
		return nil
	}
	c.stream.Subscribe(ctx, requests, true, answer)
	return nil
}

// request reads one filter of a subscribe frame. name is the filter as the client
// wrote it, also where it is refused.
func (c *session) request(raw json.RawMessage) (r stream.Request, name string, err error) {
	var w want
	if raw = bytes.TrimSpace(raw); raw[0] == '"' {
		err = wire.Decode(raw, &w.Filter)
	} else {
		err = wire.Decode(raw, &w)
	}
	if err != nil {
		return r, w.Filter, err
	}
	if err := w.notYet(); err != nil {
		return r, w.Filter, err
	}
	r = stream.Request{QoS: 1, Snapshot: true, Strict: w.Strict}
	if w.Snapshot != nil {
		r.Snapshot = *w.Snapshot
	}
	if w.QoS != nil {
		if r.QoS, err = wire.CheckQoS(*w.QoS); err != nil {
			return r, w.Filter, err
		}
	}
	if strings.HasPrefix(w.Filter, "$share/") {
		return r, w.Filter, fault.New(fault.InvalidFilter, "shared subscriptions ($share) are not possible on a stream")
	}
	if r.Filter, err = mqtt.ParseFilter(w.Filter, c.door.options.Filters); err != nil {
		return r, w.Filter, fault.New(fault.InvalidFilter, "the filter %v", err)
	}
	return r, w.Filter, nil
}

func (w *want) notYet() error {
	switch {
	case w.Mode != "" && w.Mode != "all":
		return wire.NotYet(`"mode" other than "all"`)
	case w.Interval != nil:
		return wire.NotYet(`"interval"`)
	case w.OnSlow != "" && w.OnSlow != "gap":
		return wire.NotYet(`"on_slow" other than "gap"`)
	}
	return nil
}

func (c *session) unsubscribe(id *wire.Number, data []byte) error {
	raw, err := c.filters(data)
	if err != nil {
		return err
	}
	filters := make([]mqtt.Filter, len(raw))
	for i, one := range raw {
		var name string
		if err := wire.Decode(one, &name); err != nil {
			return err
		}
		if filters[i], err = mqtt.ParseFilter(name, c.door.options.Filters); err != nil {
			return fault.New(fault.InvalidFilter, "the filter %v", err)
		}
	}
	c.stream.Unsubscribe(filters)
	c.stream.Send(wire.NewEvent("unsuback", wire.Unsuback{ID: id}))
	return nil
}

type publishFrame struct {
	Type string       `json:"type"`
	ID   *wire.Number `json:"id"`
	wire.Publish
	IdempotencyKey json.RawMessage `json:"idempotency_key"`
}

func (c *session) publish(ctx context.Context, id *wire.Number, data []byte) (done bool) {
	var f publishFrame
	err := wire.Decode(data, &f)
	if err == nil && f.IdempotencyKey != nil {
		err = wire.NotYet(`"idempotency_key"`)
	}
	if err != nil {
		return c.complain(id, err)
	}
	client := publish.Client{Principal: c.stream.Principal(), Address: c.address}
	delivery, err := c.door.options.Publish.PublishWire(ctx, client, &f.Publish)
	if err != nil {
		// A refused message is an answer, not a breach of the protocol.
		c.stream.Send(wire.NewEvent("error", wire.Refusal{ID: id, Problem: wire.ProblemFrom(err)}))
		return false
	}
	c.stream.Send(wire.NewEvent("puback", wire.Puback{ID: id, Delivery: delivery}))
	return false
}
