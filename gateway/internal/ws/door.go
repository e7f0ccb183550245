// Package ws is the WebSocket door: JSON text frames under the subprotocol
// flyscreen.v1, whose names follow MQTT's packets. A connection has one goroutine
// that reads and one that writes.
package ws

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/publish"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"

	"github.com/coder/websocket"
)

// Subprotocol is what a client must offer.
const Subprotocol = "flyscreen.v1"

// pingEvery and pongWithin find clients that are gone. Tests shorten them.
var (
	pingEvery  = 25 * time.Second
	pongWithin = 10 * time.Second
)

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
	WriteTimeout time.Duration // for one batch
	Limits       wire.Limits   // told in connack
	Logger       *slog.Logger
	// Address is the client's address as the limits count it.
	Address func(*http.Request) string
}

// Door serves GET /v1/ws.
type Door struct {
	options Options
	log     *slog.Logger
}

// New makes the door.
func New(o Options) *Door { return &Door{options: o, log: o.Logger.With("room", "ws")} }

// Serve upgrades r and serves it until either side ends. The origin has been
// checked. An error means that nothing was written; after the upgrade failures
// are told by the end frame and the close code, which is all that a browser sees.
func (d *Door) Serve(w http.ResponseWriter, r *http.Request) error {
	principal, known, err := d.identify(r)
	if err != nil {
		return err
	}
	batch, err := parse(r)
	if err != nil {
		return err
	}
	upgrade := &upgrader{ResponseWriter: w, timeout: d.options.WriteTimeout}
	conn, err := websocket.Accept(upgrade, r, &websocket.AcceptOptions{
		Subprotocols:       []string{Subprotocol},
		InsecureSkipVerify: true, // the router checked the origin, against one list for all doors
	})
	if err != nil {
		d.log.Debug("upgrade refused", "err", err)
		return nil // the library has answered
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(-1) // receive has a limit that leaves the connection usable for the end frame

	address := d.options.Address(r)
	s, err := d.options.Streams.Open(address)
	if err != nil {
		d.refuse(conn, err)
		return nil
	}
	defer s.Close()
	upgrade.conn.expired = s.Expired
	c := &session{door: d, conn: conn, out: upgrade.conn, stream: s, address: address, batch: batch}
	if known {
		if err := c.authenticate(principal); err != nil {
			d.refuse(conn, err)
			return nil
		}
	}
	c.run(r.Context())
	return nil
}

// identify looks at the request's own credentials; without any, a connect frame
// must bring the token.
func (d *Door) identify(r *http.Request) (p auth.Principal, known bool, err error) {
	token, given, err := subprotocolToken(r)
	if err != nil {
		return auth.Principal{}, false, err
	}
	p, err = d.options.Auth.Request(r)
	presented := r.Header.Get("Authorization") != "" || r.Header.Get("X-Api-Key") != ""
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
func parse(r *http.Request) (batch bool, err error) {
	q, err := wire.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return false, err
	}
	q.All("access_token") // package auth has judged it
	if err := q.NotYet("ticket", "since", "session"); err != nil {
		return false, err
	}
	n, err := q.Int("batch", 0, 0, 1)
	if err != nil {
		return false, err
	}
	if err := q.Unknown(); err != nil {
		return false, err
	}
	if !offers(r, "Upgrade", "websocket") {
		return false, fault.New(fault.BadRequest, "this address speaks WebSocket: the request must be an upgrade")
	}
	if !offers(r, "Sec-WebSocket-Protocol", Subprotocol) {
		return false, fault.New(fault.BadRequest, "the WebSocket subprotocol %q must be offered", Subprotocol)
	}
	return n == 1, nil
}

// refuse ends a connection that got no stream.
func (d *Door) refuse(conn *websocket.Conn, err error) {
	code := wire.CloseFrom(err)
	e := fault.From(err)
	end := wire.NewEvent(stream.EndEvent, wire.End{
		Code: code, Reason: e.Detail, Reconnect: code.Reconnect(), AfterMS: e.RetryAfter.Milliseconds(),
	})
	ctx, cancel := context.WithTimeout(context.Background(), d.options.WriteTimeout)
	defer cancel()
	if err := conn.Write(ctx, websocket.MessageText, end.AppendTyped(nil)); err == nil {
		_ = conn.Close(websocket.StatusCode(code), closeReason(e.Detail))
	}
}

// session is one connection.
type session struct {
	door    *Door
	conn    *websocket.Conn
	out     *coalescer
	stream  *stream.Stream
	address string

	steps atomic.Int64 // odd while the reader handles a frame

	// The reader's own:
	known      bool // the stream has a principal
	begun      bool // connect has come, or a frame that needs it
	complaints int
	authTimer  *time.Timer

	mu    sync.Mutex // guards what follows
	batch bool
}

// run serves the connection and returns when both goroutines have ended.
func (c *session) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if !c.known {
		c.authTimer = time.AfterFunc(c.door.options.AuthTimeout, func() {
			c.stream.End(wire.CloseUnauthenticated, "no connect frame with a token came in time")
		})
		defer c.authTimer.Stop()
	}
	wg.Go(func() {
		defer cancel()
		c.write(ctx)
	})
	err := c.read(ctx)
	c.door.log.Debug("connection ended", "stream", c.stream.ID(), "err", err)
}

// read handles frames in the order in which they come, one at a time.
func (c *session) read(ctx context.Context) error {
	for {
		kind, data, err := c.receive(ctx)
		switch {
		case errors.Is(err, errTooBig):
			c.stream.End(wire.CloseTooBig, "the frame is too large")
			return c.linger(ctx, err)
		case err != nil:
			return err
		}
		c.steps.Add(1)
		done := c.handle(ctx, kind, data)
		c.steps.Add(1)
		if done {
			return c.linger(ctx, nil)
		}
	}
}

var errTooBig = errors.New("a frame beyond the limit")

// receive reads one message, up to what the largest payload can need.
func (c *session) receive(ctx context.Context) (websocket.MessageType, []byte, error) {
	kind, r, err := c.conn.Reader(ctx)
	if err != nil {
		return 0, nil, err
	}
	most := frameExtra // enough for connect
	if c.known {
		most += escapeBound * c.door.options.Publish.MaxPayload()
	}
	data, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if err == nil && len(data) > most {
		err = errTooBig
	}
	return kind, data, err
}

// linger waits until the writer has told the end.
func (c *session) linger(ctx context.Context, err error) error {
	<-ctx.Done()
	return err
}

func (c *session) authenticate(p auth.Principal) error {
	if err := c.stream.Authenticate(p); err != nil {
		return err
	}
	c.known = true
	if c.authTimer != nil {
		c.authTimer.Stop()
	}
	return nil
}

func (c *session) setBatch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batch = true
}

func (c *session) batches() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.batch
}
