package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/publish"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"

	"github.com/labstack/echo/v4"
)

// Post publishes the body as an event.
func (d *Door) Post(c echo.Context, p auth.Principal) error {
	return d.publish(c, p, func(q *wire.Query, m *mqtt.Message) (err error) {
		m.Retain, err = q.Bool("retain", false)
		return err
	}, nil)
}

// Put publishes the body as retained state.
func (d *Door) Put(c echo.Context, p auth.Principal) error {
	return d.publish(c, p, func(_ *wire.Query, m *mqtt.Message) error {
		m.Retain = true
		return nil
	}, func(m *mqtt.Message) error {
		if len(m.Payload) == 0 {
			return fault.New(fault.InvalidPayload, "an empty body would clear the state; use DELETE for that")
		}
		return nil
	})
}

// Delete clears the retained state.
func (d *Door) Delete(c echo.Context, p auth.Principal) error {
	return d.publish(c, p, func(_ *wire.Query, m *mqtt.Message) error {
		m.Retain = true
		return nil
	}, func(m *mqtt.Message) error {
		if len(m.Payload) > 0 {
			return fault.New(fault.InvalidPayload, "DELETE takes no body")
		}
		return nil
	})
}

// publish is what the three have in common. options reads the method's own query
// parameters, check judges the message with its payload.
func (d *Door) publish(c echo.Context, p auth.Principal, options func(*wire.Query, *mqtt.Message) error, check func(*mqtt.Message) error) error {
	r := c.Request()
	name, err := topicName(r)
	if err != nil {
		return err
	}
	var m mqtt.Message
	if m.Topic, err = d.options.Publish.Topic(name); err != nil {
		return err
	}
	q, err := query(c)
	if err != nil {
		return err
	}
	if m.QoS, err = q.QoS(); err != nil {
		return err
	}
	if err := options(q, &m); err != nil {
		return err
	}
	if err := q.Unknown(); err != nil {
		return err
	}
	if err := noHeaders(r); err != nil {
		return err
	}
	if m.Payload, err = d.body(c, d.options.Publish.MaxPayload(), d.options.Publish.TooLarge()); err != nil {
		return err
	}
	if check != nil {
		if err := check(&m); err != nil {
			return err
		}
	}
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	delivery, replayed, err := d.options.Publish.PublishKeyed(r.Context(), d.client(c, p), key, m)
	if err != nil {
		return err
	}
	if replayed {
		c.Response().Header().Set(replayedHeader, "true")
	}
	return c.Blob(status(delivery), echo.MIMEApplicationJSON, append(wire.AppendDelivery(nil, m.Topic, m.QoS, delivery), '\n'))
}

// replayedHeader says that an answer is the first request's with this key.
const replayedHeader = "Idempotency-Replayed"

// idempotencyKey reads the header; there may be one.
func idempotencyKey(r *http.Request) (publish.Key, error) {
	fields := r.Header.Values("Idempotency-Key")
	if len(fields) == 0 {
		return publish.Key{}, nil
	}
	if len(fields) > 1 {
		return publish.Key{}, fault.New(fault.BadRequest, "the header Idempotency-Key is given twice")
	}
	return publish.Key{Text: fields[0]}, publish.CheckKey(fields[0])
}

// status is 200 only for what the broker has acknowledged.
func status(d mqtt.Delivery) int {
	if d == mqtt.Acknowledged {
		return http.StatusOK
	}
	return http.StatusAccepted
}

// Get answers with the retained payload of a topic, byte for byte.
func (d *Door) Get(c echo.Context, p auth.Principal) error {
	name, err := topicName(c.Request())
	if err != nil {
		return err
	}
	topic, err := mqtt.ParseTopic(name, d.options.Topics)
	if err != nil {
		return fault.New(fault.InvalidTopic, "the topic %v", err)
	}
	if err := noOptions(c); err != nil {
		return err
	}
	if err := noHeaders(c.Request()); err != nil {
		return err
	}
	if _, err := stream.Narrow(p, mqtt.Filter(topic), true); err != nil {
		return fault.New(fault.NotAuthorized, "no grant allows reading the topic %q", topic)
	}
	messages, complete, err := d.retained(c.Request().Context(), mqtt.Filter(topic))
	if err != nil {
		return err
	}
	at := slices.IndexFunc(messages, func(m mqtt.Message) bool { return m.Topic == topic })
	if at < 0 && !complete {
		return fault.New(fault.UpstreamTimeout, "the broker did not say in time whether the topic %q has a retained message", topic)
	}
	if at < 0 {
		return fault.New(fault.NotFound, "the topic %q has no retained message", topic)
	}
	return answerPayload(c, messages[at].Payload)
}

func answerPayload(c echo.Context, payload []byte) error {
	sum := sha256.Sum256(payload)
	etag := `"` + hex.EncodeToString(sum[:16]) + `"`
	h := c.Response().Header()
	h.Set("ETag", etag)
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	if matchesETag(c.Request().Header.Values("If-None-Match"), etag) {
		return c.NoContent(http.StatusNotModified)
	}
	h.Set("Content-Length", strconv.Itoa(len(payload))) // for HEAD too, where net/http does not know it
	return c.Blob(http.StatusOK, contentType(payload), payload)
}

// matchesETag compares weakly, as If-None-Match does (RFC 9110 section 13.1.2).
func matchesETag(fields []string, etag string) bool {
	for _, one := range strings.Split(strings.Join(fields, ","), ",") {
		one = strings.TrimPrefix(strings.TrimSpace(one), "W/")
		if one == "*" || one == etag {
			return true
		}
	}
	return false
}

// contentType says what the bytes are.
func contentType(payload []byte) string {
	switch {
	case !utf8.Valid(payload):
		return "application/octet-stream"
	case json.Valid(payload):
		return "application/json"
	}
	return "text/plain; charset=utf-8"
}

// The bounds of limit in a list.
const (
	listStandard = 1000
	listMost     = 10000
	// listBytes is when a list of several filters is cut short.
	listBytes = 32 << 20
)

// List answers with the retained messages that filters match.
func (d *Door) List(c echo.Context, p auth.Principal) error {
	q, err := query(c)
	if err != nil {
		return err
	}
	limit, err := q.Int("limit", listStandard, 1, listMost)
	if err != nil {
		return err
	}
	names := q.All("filter")
	if err := q.Unknown(); err != nil {
		return err
	}
	if len(names) == 0 || len(names) > d.options.MaxFilters {
		return fault.New(fault.BadRequest, `the query parameter "filter" must be given 1 to %d times`, d.options.MaxFilters)
	}
	filters, err := d.narrowAll(p, names)
	if err != nil {
		return err
	}
	messages, truncated, err := d.collect(c.Request().Context(), filters, p.Grants)
	if err != nil {
		return err
	}
	if len(messages) > limit {
		messages, truncated = messages[:limit], true
	}
	body := []byte(`{"messages":[`)
	for i, m := range messages {
		if i > 0 {
			body = append(body, ',')
		}
		body = wire.AppendMessage(body, m, "")
	}
	body = append(body, `],"truncated":`...)
	body = append(wire.AppendJSON(body, truncated), "}\n"...)
	c.Response().Header().Set("Cache-Control", "no-cache")
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, body)
}

// filter checks a filter that may be read or asked about.
func (d *Door) filter(name string) (mqtt.Filter, error) {
	if strings.HasPrefix(name, "$share/") {
		return "", fault.New(fault.InvalidFilter, "shared subscriptions ($share) are not possible here")
	}
	f, err := mqtt.ParseFilter(name, d.options.Topics)
	if err != nil {
		return "", fault.New(fault.InvalidFilter, "the filter %v", err)
	}
	return f, nil
}

// narrowAll narrows each filter; the request fails when nothing of one is left.
func (d *Door) narrowAll(p auth.Principal, names []string) ([]mqtt.Filter, error) {
	var filters []mqtt.Filter
	for _, name := range names {
		f, err := d.filter(name)
		if err != nil {
			return nil, err
		}
		granted, err := stream.Narrow(p, f, false)
		if err != nil {
			return nil, err
		}
		for _, g := range granted {
			if !slices.Contains(filters, g) {
				filters = append(filters, g)
			}
		}
	}
	return filters, nil
}

// collect reads the retained messages of all filters, each topic once and without
// those that a rule denies, in the order of the topics.
func (d *Door) collect(ctx context.Context, filters []mqtt.Filter, grants auth.Grants) (messages []mqtt.Message, truncated bool, err error) {
	seen := map[mqtt.Topic]struct{}{}
	bytes := 0
	for _, f := range filters {
		if truncated = truncated || bytes > listBytes; truncated { // the answer says already that something is missing
			break
		}
		some, complete, err := d.retained(ctx, f)
		if err != nil {
			return nil, false, err
		}
		truncated = !complete
		for _, m := range some {
			if _, twice := seen[m.Topic]; !twice && !grants.Denied(m.Topic) {
				seen[m.Topic] = struct{}{}
				messages = append(messages, m)
				bytes += len(m.Topic) + len(m.Payload)
			}
		}
	}
	slices.SortFunc(messages, func(a, b mqtt.Message) int { return strings.Compare(string(a.Topic), string(b.Topic)) })
	return messages, truncated, nil
}

func (d *Door) retained(ctx context.Context, f mqtt.Filter) ([]mqtt.Message, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, d.options.Timeout)
	defer cancel()
	return d.options.Retainer.Retained(ctx, f)
}
