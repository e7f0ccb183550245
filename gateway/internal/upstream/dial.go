package upstream

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// wireConn is a dialled connection: the stream of MQTT bytes, the TCP connection
// under it, and how to end both at once without waiting for the peer.
type wireConn struct {
	net.Conn
	tcp   *net.TCPConn
	abort func()
}

// dial opens the transport to ep; the host name is looked up each time, so that
// a broker that moved is found. ctx bounds everything up to the MQTT handshake.
func dial(ctx context.Context, ep endpoint, conf *tls.Config) (wireConn, error) {
	if ep.web {
		return dialWeb(ctx, ep, conf)
	}
	tcp, err := dialTCP(ctx, ep.host)
	if err != nil {
		return wireConn{}, err
	}
	w := wireConn{Conn: tcp, tcp: tcp, abort: func() { _ = tcp.Close() }}
	if !ep.secure {
		return w, nil
	}
	secure := tls.Client(tcp, tlsConfig(conf, ep.name))
	if err := secure.HandshakeContext(ctx); err != nil {
		w.abort()
		return wireConn{}, fmt.Errorf("TLS handshake: %w", err)
	}
	w.Conn = secure
	return w, nil
}

// dialTCP sets TCP keepalive as a last resort below MQTT's own; TCP_NODELAY is
// Go's default.
func dialTCP(ctx context.Context, host string) (*net.TCPConn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	c, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

func tlsConfig(conf *tls.Config, name string) *tls.Config {
	if conf == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	conf = conf.Clone()
	if conf.ServerName == "" {
		conf.ServerName = name
	}
	return conf
}

// dialWeb opens MQTT over WebSocket (3.1.1 section 6). The proxy variables of the
// environment are not followed and neither are redirects: a broker is configured,
// not discovered.
func dialWeb(ctx context.Context, ep endpoint, conf *tls.Config) (wireConn, error) {
	var tcp *net.TCPConn // the dial is over when Dial returns: no lock needed
	transport := &http.Transport{
		TLSClientConfig:   tlsConfig(conf, ep.name),
		ForceAttemptHTTP2: false,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			c, err := dialTCP(ctx, addr)
			if err != nil {
				return nil, err
			}
			tcp = c
			return c, nil
		},
	}
	defer transport.CloseIdleConnections() // or each refused handshake would leave one
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ws, _, err := websocket.Dial(ctx, ep.url, &websocket.DialOptions{HTTPClient: client, Subprotocols: []string{"mqtt"}}) //nolint:bodyclose // Dial's documentation: the body is never the caller's to close
	if err != nil {
		return wireConn{}, err
	}
	if ws.Subprotocol() != "mqtt" {
		_ = ws.CloseNow()
		return wireConn{}, fmt.Errorf("the WebSocket server chose the subprotocol %q instead of \"mqtt\" (3.1.1 section 6)", ws.Subprotocol())
	}
	stream := websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
	return wireConn{Conn: stream, tcp: tcp, abort: func() { _ = ws.CloseNow() }}, nil
}
