package ws

import (
	"context"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/audit"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

type authFrame struct {
	Type  string       `json:"type"`
	ID    *wire.Number `json:"id"`
	Token string       `json:"token"`
}

// refresh takes a new token of the same subject. After a failure the connection
// goes on with the old one, unless the new grants leave nothing of its filters.
func (c *session) refresh(ctx context.Context, id *wire.Number, data []byte) error {
	var f authFrame
	if err := wire.Decode(data, &f); err != nil {
		return err
	}
	s := c.stream.Load()
	old := s.Principal()
	p, err := c.door.options.Auth.Token(f.Token)
	if err == nil && (old.Anonymous || p.Key() != old.Key()) {
		err = fault.New(fault.NotAuthorized, "the new token must be of the same subject, from the same issuer, as what opened the connection")
	}
	if err == nil {
		_, err = s.Refresh(ctx, p, func(granted []mqtt.Filter) *wire.Event {
			return wire.NewEvent("authack", wire.Authack{ID: id, Expires: wire.TimeOrNull(p.Expires), Granted: wire.NotNull(granted)})
		})
	}
	c.door.options.Audit.Record(ctx, audit.Decision{Principal: old, Address: c.address, Action: "refresh", Target: s.ID(), Err: err})
	return err
}

// audit records what became of each filter of a subscription.
func (c *session) audit(ctx context.Context, o stream.Outcome) {
	for _, r := range o.Results {
		c.door.options.Audit.Record(ctx, audit.Decision{
			Principal: c.stream.Load().Principal(), Address: c.address, Action: "subscribe", Target: string(r.Filter), Err: r.Err,
		})
	}
}
