package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"

	"github.com/labstack/echo/v4"
)

// maxStreamBody bounds the body of a change to a stream: a few filters.
const maxStreamBody = 128 << 10

// streamChange is the body of a PATCH.
type streamChange struct {
	Subscribe   []json.RawMessage `json:"subscribe"`
	Unsubscribe []string          `json:"unsubscribe"`
}

// PatchStream changes the filters of an open stream of p's subject: what the body
// adds goes by the stream's own token. It answers when the broker has; the
// snapshot and its live event come on the stream, with the filters named.
func (d *Door) PatchStream(c echo.Context, p auth.Principal) error {
	if err := noOptions(c); err != nil {
		return err
	}
	body, err := d.document(c, "the change", maxStreamBody)
	if err != nil {
		return err
	}
	requests, answers, drop, err := d.streamChange(body)
	if err != nil {
		return err
	}
	s, err := d.options.Streams.Find(c.Param("stream"), p)
	if err != nil {
		return err
	}
	if len(requests) > 0 {
		ask := stream.Subscription{Requests: requests, Named: true}
		ctx, cancel := context.WithTimeout(c.Request().Context(), d.options.Timeout)
		defer cancel()
		o, err := s.Subscribe(ctx, ask, func(stream.Outcome) []*wire.Event { return nil })
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return fault.New(fault.RateLimited, "the stream's client has not read yet what earlier changes brought").Retry(time.Second)
		case err != nil:
			return fault.New(fault.NotFound, "the stream has ended").Because(err)
		}
		stream.Answer(answers, o.Results)
	}
	s.Unsubscribe(drop)
	return answer(c, http.StatusOK, wire.Patched{Results: answers})
}

func (d *Door) streamChange(body []byte) (requests []stream.Request, answers []wire.SubscribeResult, drop []mqtt.Filter, err error) {
	var c streamChange
	if err := wire.Decode(body, &c); err != nil {
		return nil, nil, nil, err
	}
	if n := len(c.Subscribe) + len(c.Unsubscribe); n == 0 || n > d.options.MaxFilters {
		return nil, nil, nil, fault.New(fault.BadRequest, `"subscribe" and "unsubscribe" must name 1 to %d filters together`, d.options.MaxFilters)
	}
	for _, name := range c.Unsubscribe {
		f, err := stream.ParseFilter(name, d.options.Topics)
		if err != nil {
			return nil, nil, nil, err
		}
		drop = append(drop, f)
	}
	requests, answers = stream.ParseRequests(c.Subscribe, d.options.Topics)
	return requests, answers, drop, nil
}
