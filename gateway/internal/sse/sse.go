// Package sse is the door of one-way streams over HTTP: server-sent events and
// NDJSON. It turns what package stream says into bytes.
package sse

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/audit"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// heartbeat is the pause after which a comment (SSE) or an empty line (NDJSON)
// tells proxies and clients that the stream lives. Tests shorten it.
var heartbeat = 15 * time.Second

// Options are what New needs.
type Options struct {
	Streams      *stream.Registry
	Hub          *hub.Hub
	Audit        *audit.Log // may be nil
	Filters      mqtt.Limits
	MaxFilters   int           // in one request
	WriteTimeout time.Duration // for each 32 KiB to a client that is behind
	Logger       *slog.Logger
	// Go runs a goroutine that the gateway waits for when it stops.
	Go func(func())
	// Address is the client's address as the limits count it.
	Address func(*http.Request) string
}

// Door serves GET /v1/stream.
type Door struct {
	options Options
	log     *slog.Logger
}

// New makes the door.
func New(o Options) *Door { return &Door{options: o, log: o.Logger.With("room", "sse")} }

// Serve answers r as p. An error means that nothing was written; after the first
// byte the stream tells its end itself.
func (d *Door) Serve(w http.ResponseWriter, r *http.Request, p auth.Principal) error {
	q, err := d.parse(r)
	if err != nil {
		return err
	}
	format, err := negotiate(r.Header.Values("Accept"))
	if err != nil {
		return err
	}
	s, err := d.options.Streams.Open(d.options.Address(r))
	if err != nil {
		return err
	}
	if err := d.join(r, s, p, q); err != nil {
		s.Close()
		return err
	}
	d.log.Debug("stream opened", "stream", s.ID())
	if r.ProtoMajor == 1 {
		return d.hijack(w, r, s, format)
	}
	d.respond(w, r, s, format)
	return nil
}

// join asks for all filters as one, so that ready comes once, before any message.
func (d *Door) join(r *http.Request, s *stream.Stream, p auth.Principal, q query) error {
	if err := s.Authenticate(p); err != nil {
		return err
	}
	var refused error
	ask := stream.Subscription{Requests: q.requests, Since: q.since}
	o, err := s.Subscribe(r.Context(), ask, func(o stream.Outcome) []*wire.Event {
		granted := []string{}
		for _, result := range o.Results {
			if result.Err != nil && refused == nil {
				refused = result.Err
			}
			for _, f := range result.Granted {
				if !slices.Contains(granted, string(f)) {
					granted = append(granted, string(f))
				}
			}
		}
		if len(granted) > 0 && !q.requests[0].Strict {
			refused = nil
		}
		return []*wire.Event{wire.NewEvent("ready", wire.Ready{
			Stream:  s.ID(),
			Granted: granted,
			Cursor:  o.Cursor,
			Resumed: o.Resumed,
			Expires: wire.TimeOrNull(p.Expires),
			Hint:    q.hint,
		})}
	})
	if err = errors.Join(refused, err); err != nil {
		return err // the edge records it
	}
	for _, result := range o.Results {
		d.options.Audit.Record(r.Context(), audit.Decision{
			Principal: p, Address: d.options.Address(r), Action: "subscribe", Target: string(result.Filter), Err: result.Err,
		})
	}
	return nil
}

// query is what a request asks for.
type query struct {
	requests []stream.Request
	since    hub.Position
	hint     string
}

func (d *Door) parse(r *http.Request) (query, error) {
	q, err := wire.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{}, err
	}
	q.All("access_token") // package auth has judged both
	q.All("ticket")
	if err := q.NotYet("session"); err != nil {
		return query{}, err
	}
	var like stream.Request
	if like.QoS, err = q.QoS(); err != nil {
		return query{}, err
	}
	if like.Snapshot, err = q.Bool("snapshot", true); err != nil {
		return query{}, err
	}
	if like.Strict, err = q.Bool("strict", false); err != nil {
		return query{}, err
	}
	if like.Mode, err = parseMode(q); err != nil {
		return query{}, err
	}
	since, err := d.since(q, r.Header.Get("Last-Event-ID"))
	if err != nil {
		return query{}, err
	}
	requests, hint, err := d.filters(q.All("filter"), like)
	if err != nil {
		return query{}, err
	}
	return query{requests: requests, since: since, hint: hint}, q.Unknown()
}

func parseMode(q *wire.Query) (m stream.Mode, err error) {
	var values [3]string
	for i, name := range []string{"mode", "interval", "on_slow"} {
		value, given, err := q.One(name)
		if err != nil {
			return m, err
		}
		if given && value == "" {
			return m, fault.New(fault.BadRequest, "the query parameter %q is empty", name)
		}
		values[i] = value
	}
	return stream.ParseMode(values[0], values[1], values[2])
}

// since is the position to resume from. The header, which a browser's EventSource
// sends by itself, beats the parameter; one that is no cursor must not end that
// client for good with a 400, so it counts as another node's.
func (d *Door) since(q *wire.Query, lastEventID string) (hub.Position, error) {
	text, given, err := q.One("since")
	if err != nil {
		return hub.Position{}, err
	}
	if lastEventID != "" {
		position, err := d.options.Hub.ParsePosition(lastEventID)
		if err != nil {
			position = hub.ForeignPosition()
		}
		return position, nil
	}
	if !given {
		return hub.Position{}, nil
	}
	return d.options.Hub.ParsePosition(text)
}

func (d *Door) filters(names []string, like stream.Request) (requests []stream.Request, hint string, err error) {
	if len(names) == 0 || len(names) > d.options.MaxFilters {
		return nil, "", fault.New(fault.BadRequest, `the query parameter "filter" must be given 1 to %d times`, d.options.MaxFilters)
	}
	for _, name := range names {
		f, err := stream.ParseFilter(name, d.options.Filters)
		if err != nil {
			return nil, "", err
		}
		if strings.HasSuffix(name, "/") {
			hint = `a filter ends in "/": a URL ends at "#", which must be written %23`
		}
		like.Filter = f
		if !slices.ContainsFunc(requests, func(r stream.Request) bool { return r.Filter == f }) {
			requests = append(requests, like)
		}
	}
	return requests, hint, nil
}
