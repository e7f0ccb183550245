package gateway

import (
	"crypto/tls"
	"fmt"

	"flyscreen/gateway/config"
)

// serverTLS is nil without a certificate.
func serverTLS(c config.ServerTLS) (*tls.Config, error) {
	if c.Cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("http.tls: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}
