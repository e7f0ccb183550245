// Package api is the door of requests and answers: topics, batches, explain and
// health. Each handler parses at the door, asks an engine, and answers; a returned
// error is spelled as a problem in one place, the router's error handler.
package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/audit"
	"flyscreen/gateway/internal/outbox"
	"flyscreen/gateway/internal/publish"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"

	"github.com/labstack/echo/v4"
)

// Retainer reads retained messages.
type Retainer interface {
	Retained(ctx context.Context, filter mqtt.Filter) (messages []mqtt.Message, complete bool, err error)
}

// Options are what New needs.
type Options struct {
	Publish       *publish.Desk
	Retainer      Retainer
	Streams       *stream.Registry
	Topics        mqtt.Limits
	MaxFilters    int // in one request
	BatchMessages int
	BatchBytes    int           // of the body of a batch
	BodyTimeout   time.Duration // within which the router makes a body come, for the answer when it did not
	Timeout       time.Duration // to read retained messages
	Ready         func() []error
	// Ticket makes a ticket that stands for a principal.
	Ticket func(auth.Principal) (string, error)
	// Revoke takes a revocation in, here and at all gateways of the broker.
	Revoke   func(context.Context, auth.Revocation) error
	Audit    *audit.Log                // may be nil
	Outbox   *outbox.Outbox            // nil when it is off
	Upstream func() wire.UpstreamState // the state of the connections to the broker
	Logger   *slog.Logger
	// Address is the client's address as the limits count it.
	Address func(*http.Request) string
}

// Door serves the request/response part of the API.
type Door struct {
	options Options
	log     *slog.Logger
}

// New makes the door.
func New(o Options) *Door { return &Door{options: o, log: o.Logger.With("room", "api")} }

func (d *Door) client(c echo.Context, p auth.Principal) publish.Client {
	return publish.Client{Principal: p, Address: d.options.Address(c.Request())}
}

// query parses the query string; the credential that package auth may have taken
// from it counts as known.
func query(c echo.Context) (*wire.Query, error) {
	q, err := wire.ParseQuery(c.Request().URL.RawQuery)
	if err == nil {
		q.All("access_token")
	}
	return q, err
}

// noHeaders refuses header fields that will mean something later.
func noHeaders(r *http.Request) error {
	for _, prefer := range r.Header.Values("Prefer") {
		for _, one := range strings.FieldsFunc(prefer, func(r rune) bool { return r == ',' || r == ';' }) {
			name, _, _ := strings.Cut(strings.TrimSpace(one), "=")
			if strings.EqualFold(strings.TrimSpace(name), "wait") || strings.EqualFold(name, "respond-async") {
				return wire.NotYet("the header Prefer: " + strings.ToLower(name))
			}
		}
	}
	return nil
}

// body reads the whole body, up to most bytes. A body that breaks off is an
// error, never a shorter message. The router has set the deadline for it.
func (d *Door) body(c echo.Context, most int, tooLarge error) ([]byte, error) {
	r := c.Request()
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return nil, fault.New(fault.UnsupportedMedia, "the body must come without Content-Encoding")
	}
	if !r.ProtoAtLeast(1, 1) && r.Header.Get("Content-Length") == "" && r.Method != http.MethodDelete {
		// Its body would end with the connection, and net/http takes it for none.
		return nil, fault.New(fault.BadRequest, "an HTTP/1.0 request must bring Content-Length")
	}
	if r.ContentLength > int64(most) {
		return nil, tooLarge
	}
	data, err := io.ReadAll(http.MaxBytesReader(c.Response(), r.Body, int64(most)))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fault.New(fault.RequestTimeout, "the body did not come within %s", d.options.BodyTimeout)
	case err != nil:
		return nil, fault.New(fault.BadRequest, "the body broke off or is malformed; nothing was published").Because(err)
	}
	return data, nil
}

// noOptions refuses every query parameter but the credential.
func noOptions(c echo.Context) error {
	q, err := query(c)
	if err != nil {
		return err
	}
	return q.Unknown()
}

// document reads a body that is JSON, up to most bytes; what it is called in
// refusals.
func (d *Door) document(c echo.Context, what string, most int) ([]byte, error) {
	if mediaType(c.Request()) != echo.MIMEApplicationJSON {
		return nil, fault.New(fault.UnsupportedMedia, "%s is application/json", what)
	}
	return d.body(c, most, fault.New(fault.TooLarge, "%s has more than %d bytes", what, most))
}

// answer writes v as JSON, with a line's end for those who read it in a terminal.
func answer(c echo.Context, status int, v any) error {
	return c.Blob(status, echo.MIMEApplicationJSON, append(wire.AppendJSON(nil, v), '\n'))
}

// mediaType is the request's media type, in lower case and without parameters.
func mediaType(r *http.Request) string {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return media
}
