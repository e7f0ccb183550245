// Package ws is the WebSocket door: JSON text frames under the subprotocol
// flyscreen.v1, whose names follow MQTT's packets. A connection has one goroutine,
// which reads; the streams' pump writes.
package ws

import (
	"encoding/base64"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/audit"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/internal/line"
	"flyscreen/gateway/internal/publish"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"

	"github.com/coder/websocket"
)

// Subprotocol is what a client must offer.
const Subprotocol = "flyscreen.v1"

const (
	frameExtra  = 64 << 10 // of a client's frame, beyond its payload
	escapeBound = 6        // bytes of JSON for one byte of payload, at worst: \u0000
)

// Options are what New needs.
type Options struct {
	Auth         *auth.Authenticator
	Streams      *stream.Registry
	Publish      *publish.Desk
	Filters      mqtt.Limits
	MaxFilters   int           // in one request
	AuthTimeout  time.Duration // until connect must have come
	WriteTimeout time.Duration // for each 32 KiB to a client that is behind
	Limits       wire.Limits   // told in connack
	Logger       *slog.Logger
	// Address is the client's address as the limits count it.
	Address func(*http.Request) string
	// Hub tells positions to resume from.
	Hub *hub.Hub
	// Audit takes what is decided about streams; it may be nil.
	Audit *audit.Log
	// Go runs a goroutine that the gateway waits for when it stops.
	Go func(func())
}

// Door serves GET /v1/ws.
type Door struct {
	options Options
	log     *slog.Logger
	crew    *crew
}

// New makes the door.
func New(o Options) *Door {
	return &Door{options: o, log: o.Logger.With("room", "ws"), crew: newCrew(o.Go)}
}

// Serve upgrades r and serves it until either side ends. The origin has been
// checked. An error means that nothing was written; after the upgrade failures
// are told by the end frame and the close code, which is all that a browser sees.
func (d *Door) Serve(w http.ResponseWriter, r *http.Request) error {
	principal, known, err := d.identify(r)
	if err != nil {
		return err
	}
	c := &session{door: d, address: d.options.Address(r), format: single}
	if err := c.parse(r); err != nil {
		return err
	}
	upgrade := &upgrader{ResponseWriter: w, options: line.Options{
		Timeout: d.options.WriteTimeout,
		Expired: c.expired,
		Freed:   c.freed,
	}}
	conn, err := websocket.Accept(upgrade, r, &websocket.AcceptOptions{
		Subprotocols:       []string{Subprotocol},
		InsecureSkipVerify: true, // the router checked the origin, against one list for all doors
		OnPongReceived:     c.ponged,
	})
	if err != nil {
		d.log.Debug("upgrade refused", "err", err)
		return nil //nolint:nilerr // the library has answered
	}
	conn.SetReadLimit(-1) // receive has a limit that leaves the connection usable for the end frame
	c.conn, c.socket, c.line = conn, upgrade.conn, upgrade.conn.line
	s, err := d.options.Streams.Open(c.address)
	if err == nil {
		c.stream.Store(s)
		if known {
			err = c.authenticate(principal)
		}
	}
	// A goroutine of its own, so that net/http's, with its deep stack and its
	// buffers, is not kept for as long as the client stays.
	if err != nil {
		d.options.Go(func() { c.refuse(err) })
	} else {
		d.options.Go(c.run)
	}
	return nil
}

// identify looks at the request's own credentials; without any, a connect frame
// must bring the token.
func (d *Door) identify(r *http.Request) (p auth.Principal, known bool, err error) {
	token, given, err := subprotocolToken(r)
	if err != nil {
		return auth.Principal{}, false, err
	}
	ticket := r.URL.Query().Has("ticket")
	if given && ticket { // before the ticket is used up
		return auth.Principal{}, false, fault.New(fault.Unauthenticated, "more than one credential was sent")
	}
	p, err = d.options.Auth.Stream(r)
	presented := ticket || r.Header.Get("Authorization") != "" || r.Header.Get("X-Api-Key") != ""
	none := p.Anonymous || fault.Is(err, fault.Unauthenticated) && !presented
	switch {
	case given && none:
		p, err = d.options.Auth.Token(token)
	case given && err == nil:
		return auth.Principal{}, false, fault.New(fault.Unauthenticated, "more than one credential was sent")
	case none && err != nil:
		return auth.Principal{}, false, nil //nolint:nilerr // a connect frame may still bring the token
	}
	return p, err == nil, err
}

// bearerProtocol begins the subprotocol in which a browser can send a token with
// the handshake; it is never echoed back.
const bearerProtocol = "bearer."

// subprotocolToken is the token in the list of subprotocols, base64url without
// padding.
func subprotocolToken(r *http.Request) (token string, given bool, err error) {
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for _, one := range strings.Split(line, ",") {
			encoded, is := strings.CutPrefix(strings.TrimSpace(one), bearerProtocol)
			if !is {
				continue
			}
			data, err := base64.RawURLEncoding.DecodeString(encoded)
			if err != nil || given {
				return "", false, fault.New(fault.TokenInvalid, "the subprotocol list holds more than one token, or one that is not base64url")
			}
			token, given = string(data), true
		}
	}
	return token, given, nil
}

// parse checks what must be right before the upgrade, so that the answer can be
// a proper one.
func (c *session) parse(r *http.Request) error {
	q, err := wire.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	q.All("access_token") // package auth has judged both
	q.All("ticket")
	if err := q.NotYet("session"); err != nil {
		return err
	}
	since, given, err := q.One("since")
	if err == nil && given {
		c.since, err = c.door.options.Hub.ParsePosition(since)
	}
	if err != nil {
		return err
	}
	n, err := q.Int("batch", 0, 0, 1)
	if err != nil {
		return err
	}
	if n == 1 {
		c.format = batched
	}
	if err := q.Unknown(); err != nil {
		return err
	}
	if !offers(r, "Upgrade", "websocket") {
		return fault.New(fault.BadRequest, "this address speaks WebSocket: the request must be an upgrade")
	}
	if !offers(r, "Sec-WebSocket-Protocol", Subprotocol) {
		return fault.New(fault.BadRequest, "the WebSocket subprotocol %q must be offered", Subprotocol)
	}
	return nil
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
