package ws

import (
	"context"
	"encoding/json"
	"unicode/utf8"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/hub"
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
		c.stream.Load().End(wire.CloseInvalidUTF8, "a text frame is not valid UTF-8")
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
		c.stream.Load().End(wire.CloseUnauthenticated, "the first frame must be connect with a token")
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
	case "auth":
		if err = c.refresh(ctx, head.ID, data); c.stream.Load().Over() {
			return true // nothing of the filters was left
		}
	case "ack":
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
	c.stream.Load().Send(wire.NewEvent("error", wire.Refusal{ID: id, Problem: wire.ProblemFrom(err)}))
	if c.complaints++; c.complaints > maxComplaints {
		c.stream.Load().End(wire.CloseProtocol, "too many frames were wrong")
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
		c.stream.Load().End(wire.CloseNormal, "the client disconnected")
		return true
	}
	c.stream.Load().Send(wire.NewEvent("pong", wire.Pong{ID: f.ID}))
	return false
}

type connectFrame struct {
	Type    string          `json:"type"`
	ID      *wire.Number    `json:"id"`
	Token   string          `json:"token"`
	Batch   bool            `json:"batch"`
	Session json.RawMessage `json:"session"`
	Will    json.RawMessage `json:"will"`
	Since   string          `json:"since"`
}

func (c *session) connect(id *wire.Number, data []byte) (done bool) {
	if c.begun {
		return c.complain(id, fault.New(fault.BadRequest, "connect must be the first frame"))
	}
	var f connectFrame
	err := wire.Decode(data, &f)
	if err == nil && (f.Session != nil || f.Will != nil) {
		err = wire.NotYet(`"session" or "will" in connect`)
	}
	since := c.since
	if err == nil && f.Since != "" {
		since, err = c.door.options.Hub.ParsePosition(f.Since)
	}
	if err == nil && f.Token != "" && c.known && !c.stream.Load().Principal().Anonymous {
		err = fault.New(fault.BadRequest, "the request brought a token already; connect must not bring another one")
	}
	if err != nil {
		return c.complain(id, err)
	}
	c.begun, c.since = true, since
	if f.Token != "" {
		p, err := c.door.options.Auth.Token(f.Token)
		if err == nil {
			err = c.authenticate(p)
		}
		if err != nil {
			c.stream.Load().Send(wire.NewEvent("error", wire.Refusal{ID: id, Problem: wire.ProblemFrom(err)}))
			c.stream.Load().End(wire.CloseFrom(err), fault.From(err).Detail)
			return true
		}
	}
	if !c.known {
		c.stream.Load().End(wire.CloseUnauthenticated, "connect must bring a token")
		return true
	}
	if f.Batch {
		c.stream.Load().SetFormat(batched)
	}
	p := c.stream.Load().Principal()
	c.stream.Load().Send(wire.NewEvent("connack", wire.Connack{
		ID: id, Stream: c.stream.Load().ID(), Subject: p.Subject, Expires: wire.TimeOrNull(p.Expires), Limits: c.door.options.Limits,
	}))
	return false
}

type filtersFrame struct {
	Type    string            `json:"type"`
	ID      *wire.Number      `json:"id"`
	Filters []json.RawMessage `json:"filters"`
	Since   string            `json:"since"` // subscribe only
}

func (c *session) filters(data []byte) (f filtersFrame, err error) {
	if err := wire.Decode(data, &f); err != nil {
		return f, err
	}
	if most := c.door.options.MaxFilters; len(f.Filters) == 0 || len(f.Filters) > most {
		return f, fault.New(fault.BadRequest, `"filters" must name 1 to %d filters`, most)
	}
	return f, nil
}

func (c *session) subscribe(ctx context.Context, id *wire.Number, data []byte) error {
	f, err := c.filters(data)
	if err != nil {
		return err
	}
	since := c.since // of the handshake or of connect: for the first subscribe
	if f.Since != "" {
		if since, err = c.door.options.Hub.ParsePosition(f.Since); err != nil {
			return err
		}
	}
	c.since = hub.Position{}
	requests, answers := stream.ParseRequests(f.Filters, c.door.options.Filters)
	answer := func(o stream.Outcome) []*wire.Event {
		stream.Answer(answers, o.Results)
		return []*wire.Event{wire.NewEvent("suback", wire.Suback{ID: id, Resumed: o.Resumed, Results: answers})}
	}
	if len(requests) == 0 {
		c.stream.Load().Send(answer(stream.Outcome{})[0])
		return nil
	}
	ask := stream.Subscription{Requests: requests, Since: since, Named: true}
	o, err := c.stream.Load().Subscribe(ctx, ask, answer)
	c.audit(ctx, o)
	return err
}

func (c *session) unsubscribe(id *wire.Number, data []byte) error {
	f, err := c.filters(data)
	if err == nil && f.Since != "" {
		err = fault.New(fault.BadRequest, `"since" belongs to subscribe`)
	}
	if err != nil {
		return err
	}
	filters := make([]mqtt.Filter, len(f.Filters))
	for i, one := range f.Filters {
		var name string
		if err := wire.Decode(one, &name); err != nil {
			return err
		}
		if filters[i], err = mqtt.ParseFilter(name, c.door.options.Filters); err != nil {
			return fault.New(fault.InvalidFilter, "the filter %v", err)
		}
	}
	c.stream.Load().Unsubscribe(filters)
	c.stream.Load().Send(wire.NewEvent("unsuback", wire.Unsuback{ID: id}))
	return nil
}

type publishFrame struct {
	Type string       `json:"type"`
	ID   *wire.Number `json:"id"`
	wire.Publish
}

func (c *session) publish(ctx context.Context, id *wire.Number, data []byte) (done bool) {
	var f publishFrame
	err := wire.Decode(data, &f)
	if err != nil {
		return c.complain(id, err)
	}
	client := publish.Client{Principal: c.stream.Load().Principal(), Address: c.address}
	delivery, replayed, err := c.door.options.Publish.PublishWireOnce(ctx, client, &f.Publish)
	if err != nil {
		// A refused message is an answer, not a breach of the protocol.
		c.stream.Load().Send(wire.NewEvent("error", wire.Refusal{ID: id, Problem: wire.ProblemFrom(err)}))
		return false
	}
	c.stream.Load().Send(wire.NewEvent("puback", wire.Puback{ID: id, Delivery: delivery, Replayed: replayed}))
	return false
}
