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
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// heartbeat is the pause after which a comment (SSE) or an empty line (NDJSON)
// tells proxies and clients that the stream lives. Tests shorten it.
var heartbeat = 15 * time.Second

// batchItems and batchBytes bound one write, so that its deadline hits a client
// that does not read and not one whose line is slow.
const (
	batchItems = 256
	batchBytes = 32 << 10
)

// Options are what New needs.
type Options struct {
	Streams      *stream.Registry
	Hub          *hub.Hub
	Filters      mqtt.Limits
	MaxFilters   int           // in one request
	WriteTimeout time.Duration // for one batch
	Logger       *slog.Logger
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
	requests, hint, err := d.parse(r.URL.RawQuery)
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
	defer s.Close()
	if err := s.Authenticate(p); err != nil {
		return err
	}
	if err := d.subscribe(r, s, p.Expires, requests, hint); err != nil {
		return err
	}
	d.log.Debug("stream opened", "stream", s.ID())
	defer d.log.Debug("stream closed", "stream", s.ID())
	d.run(w, r, s, format)
	return nil
}

// subscribe asks for all filters as one, so that ready comes once, before any
// message.
func (d *Door) subscribe(r *http.Request, s *stream.Stream, expires time.Time, requests []stream.Request, hint string) error {
	var refused error
	s.Subscribe(r.Context(), requests, false, func(results []stream.Result) []*wire.Event {
		granted := []string{}
		for _, result := range results {
			if result.Err != nil && refused == nil {
				refused = result.Err
			}
			for _, f := range result.Granted {
				if !slices.Contains(granted, string(f)) {
					granted = append(granted, string(f))
				}
			}
		}
		if len(granted) > 0 && !requests[0].Strict {
			refused = nil
		}
		answer := []*wire.Event{wire.NewEvent("ready", wire.Ready{
			Stream:  s.ID(),
			Granted: granted,
			Cursor:  d.options.Hub.Cursor(),
			Expires: wire.TimeOrNull(expires),
			Hint:    hint,
		})}
		if r.Header.Get("Last-Event-ID") != "" {
			// What came after that position is not kept: tell it, and let the snapshot heal it.
			answer = append(answer, wire.NewEvent("gap", wire.Gap{Reason: wire.GapEvicted}))
		}
		return answer
	})
	return refused
}

// parse reads the query of a stream.
func (d *Door) parse(raw string) (requests []stream.Request, hint string, err error) {
	q, err := wire.ParseQuery(raw)
	if err != nil {
		return nil, "", err
	}
	q.All("access_token") // package auth has judged it
	if err := q.NotYet("since", "session", "ticket", "interval"); err != nil {
		return nil, "", err
	}
	for _, only := range []struct{ name, value string }{{"mode", "all"}, {"on_slow", "gap"}} {
		value, given, err := q.One(only.name)
		if err != nil {
			return nil, "", err
		}
		if given && value != only.value {
			return nil, "", wire.NotYet("the query parameter \"" + only.name + "\" other than \"" + only.value + "\"")
		}
	}
	var request stream.Request
	if request.QoS, err = q.QoS(); err != nil {
		return nil, "", err
	}
	if request.Snapshot, err = q.Bool("snapshot", true); err != nil {
		return nil, "", err
	}
	if request.Strict, err = q.Bool("strict", false); err != nil {
		return nil, "", err
	}
	requests, hint, err = d.filters(q.All("filter"), request)
	if err != nil {
		return nil, "", err
	}
	return requests, hint, q.Unknown()
}

func (d *Door) filters(names []string, like stream.Request) (requests []stream.Request, hint string, err error) {
	if len(names) == 0 || len(names) > d.options.MaxFilters {
		return nil, "", fault.New(fault.BadRequest, `the query parameter "filter" must be given 1 to %d times`, d.options.MaxFilters)
	}
	for _, name := range names {
		f, err := mqtt.ParseFilter(name, d.options.Filters)
		if err != nil {
			return nil, "", fault.New(fault.InvalidFilter, "the filter %v", err)
		}
		if strings.HasPrefix(name, "$share/") {
			return nil, "", fault.New(fault.InvalidFilter, "shared subscriptions ($share) are not possible on a stream")
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

// run writes what s owes until it ends or the client is gone.
func (d *Door) run(w http.ResponseWriter, r *http.Request, s *stream.Stream, format format) {
	h := w.Header()
	h.Set("Content-Type", format.contentType)
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)

	out := &writer{control: http.NewResponseController(w), w: w, format: format, timeout: d.options.WriteTimeout, expired: s.Expired}
	tick := time.NewTimer(heartbeat)
	defer tick.Stop()
	var items []stream.Item
	for {
		for {
			items = s.Take(items[:0], batchItems)
			if len(items) == 0 {
				break
			}
			if ended, err := out.items(items); err != nil || ended {
				d.logEnd(s, err)
				return
			}
		}
		clear(items[:cap(items)])
		tick.Reset(heartbeat)
		select {
		case <-s.Wake():
		case <-r.Context().Done():
			return
		case <-tick.C:
			if err := out.flush(format.heartbeat); err != nil {
				d.logEnd(s, err)
				return
			}
		}
	}
}

func (d *Door) logEnd(s *stream.Stream, err error) {
	if err != nil {
		d.log.Debug("stream lost", "stream", s.ID(), "err", err)
	}
}

// writer encodes items and writes them in batches.
type writer struct {
	w       http.ResponseWriter
	control *http.ResponseController
	format  format
	timeout time.Duration
	expired func() bool
	buf     []byte
}

func (o *writer) items(items []stream.Item) (ended bool, err error) {
	o.buf = o.buf[:0]
	for _, item := range items {
		if item.Frame != nil {
			o.buf = o.format.message(o.buf, item.Frame)
		} else {
			o.buf = o.format.event(o.buf, item.Event)
			ended = ended || item.Event.Name == stream.EndEvent
		}
		if len(o.buf) >= batchBytes {
			if err := o.flush(o.buf); err != nil {
				return ended, err
			}
			if o.buf = o.buf[:0]; o.expired() {
				return ended, errExpired
			}
		}
	}
	err = o.flush(o.buf)
	if cap(o.buf) > batchBytes {
		o.buf = nil // a burst must not cost an idle stream its memory
	}
	return ended, err
}

var errExpired = errors.New("the token expired while the client was slow")

// flush writes b in pieces, each with a deadline of its own. The first piece may
// hold the end; what a slow client would get after it is not written any more.
func (o *writer) flush(b []byte) error {
	for first := true; len(b) > 0; first = false {
		if !first && o.expired() {
			return errExpired
		}
		piece := b[:min(len(b), batchBytes)]
		b = b[len(piece):]
		if err := o.control.SetWriteDeadline(time.Now().Add(o.timeout)); err != nil {
			return err
		}
		if _, err := o.w.Write(piece); err != nil {
			return err
		}
		if err := o.control.Flush(); err != nil {
			return err
		}
	}
	// HTTP/2 resets a stream whose deadline passes, also while nothing is written.
	return o.control.SetWriteDeadline(time.Time{})
}
