package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// readSecret reads a secret from a file; the line break that editors leave at
// the end is not part of it.
func readSecret(path string) (Secret, error) {
	b, err := readFile(path)
	if err != nil {
		return "", err
	}
	s := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if s == "" {
		return "", wrong("put the secret into it, on one line", "the file %s is empty", path)
	}
	return Secret(s), nil
}

// maxFile is the most that a key, certificate, secret or configuration file may
// hold, in bytes.
const maxFile = 1 * mib

// readFile reads a file of at most maxFile bytes.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case os.IsNotExist(err):
		return nil, wrong("check the path; it counts from the working directory", "the file %s does not exist", path)
	case err == nil && info.IsDir():
		return nil, wrong("name a file", "%s is a directory", path)
	case err == nil && info.Size() > maxFile:
		return nil, wrong("check the path", "the file %s has %d bytes, more than %d", path, info.Size(), maxFile)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, wrong("let the gateway's user read it", "the file %s cannot be read: %v", path, unwrapPath(err))
	}
	return b, nil
}

// ReadFile reads one of the files that a configuration names, as Load does.
func ReadFile(path string) ([]byte, error) { return readFile(path) }

// unwrapPath takes the path out of a file error, when the text around it names
// the file already.
func unwrapPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// ClientAuthorities reads the authorities whose client certificates count; nil
// without any. Load has checked the file, so an error means that it changed since.
func (t ServerTLS) ClientAuthorities() (*x509.CertPool, error) {
	if t.ClientCA == "" {
		return nil, nil
	}
	pem, err := readFile(t.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("http.tls.client_ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("http.tls.client_ca: the file %s holds no certificate", t.ClientCA)
	}
	return pool, nil
}

// Config reads the files and makes of them what a TLS connection to the broker
// needs. Load has checked them, so an error means that they changed since.
func (t ClientTLS) Config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, NextProtos: t.ALPN}
	if t.CA != "" {
		pem, err := readFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("upstream.tls.ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("upstream.tls.ca: the file %s holds no certificate", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("upstream.tls.cert: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
