package api

import (
	"encoding/base64"
	"net/http"
	"strconv"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/outbox"
	"flyscreen/gateway/wire"

	"github.com/labstack/echo/v4"
)

// The bounds of limit in a list of the outbox.
const (
	outboxStandard = 100
	outboxMost     = 10_000
)

// Upstream tells the state of each connection to the broker.
func (d *Door) Upstream(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "no-store")
	return answer(c, http.StatusOK, d.options.Upstream())
}

// Outbox lists what the outbox holds.
func (d *Door) Outbox(c echo.Context) error {
	q, err := query(c)
	if err != nil {
		return err
	}
	limit, err := q.Int("limit", outboxStandard, 1, outboxMost)
	if err != nil {
		return err
	}
	if err := q.Unknown(); err != nil {
		return err
	}
	box, err := d.outbox()
	if err != nil {
		return err
	}
	items, queued, quarantined, err := box.List(limit)
	if err != nil {
		return err
	}
	list := wire.OutboxList{Messages: []wire.OutboxMessage{}, Queued: queued, Quarantined: quarantined}
	for _, i := range items {
		list.Messages = append(list.Messages, outboxMessage(i))
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return answer(c, http.StatusOK, list)
}

// OutboxMessage shows one message of the outbox, with its payload.
func (d *Door) OutboxMessage(c echo.Context) error {
	box, id, err := d.outboxID(c)
	if err != nil {
		return err
	}
	i, err := box.Show(id)
	if err != nil {
		return err
	}
	m := outboxMessage(i)
	payload := base64.StdEncoding.EncodeToString(i.Message.Payload)
	m.Base64 = &payload
	c.Response().Header().Set("Cache-Control", "no-store")
	return answer(c, http.StatusOK, m)
}

// OutboxDrop deletes a message of the outbox.
func (d *Door) OutboxDrop(c echo.Context) error {
	box, id, err := d.outboxID(c)
	if err != nil {
		return err
	}
	if err := box.Drop(c.Request().Context(), id); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// OutboxRetry takes a message out of quarantine.
func (d *Door) OutboxRetry(c echo.Context) error {
	box, id, err := d.outboxID(c)
	if err != nil {
		return err
	}
	if err := box.Retry(c.Request().Context(), id); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

func (d *Door) outbox() (*outbox.Outbox, error) {
	if d.options.Outbox == nil {
		return nil, fault.New(fault.NotFound, "the outbox is switched off (outbox.enabled)")
	}
	return d.options.Outbox, nil
}

func (d *Door) outboxID(c echo.Context) (*outbox.Outbox, uint64, error) {
	box, err := d.outbox()
	if err != nil {
		return nil, 0, err
	}
	id, err := strconv.ParseUint(c.Param("id"), 10, 64)
	if err != nil {
		return nil, 0, fault.New(fault.NotFound, "the outbox has no message %q: ids are numbers", c.Param("id"))
	}
	return box, id, nil
}

func outboxMessage(i outbox.Item) wire.OutboxMessage {
	return wire.NewOutboxMessage(i.ID, i.Quarantined, i.Message, i.Accepted, i.Reason)
}
