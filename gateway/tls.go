package gateway

import (
	"crypto/tls"
	"fmt"

	"flyscreen/gateway/config"
)

// serverTLS is nil without a certificate. Where client certificates count they may
// be left out: the client then shows something else. One that is shown and not from
// a known authority ends the handshake.
func serverTLS(c config.ServerTLS) (*tls.Config, error) {
	if c.Cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("http.tls: %w", err)
	}
	t := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if t.ClientCAs, err = c.ClientAuthorities(); t.ClientCAs != nil {
		t.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return t, err
}
