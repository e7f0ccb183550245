package gateway_test

import (
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flyscreen/gateway"
	"flyscreen/gateway/config"
	"flyscreen/gateway/gatewaytest"
	"log/slog"
)

func TestTLSVersions(t *testing.T) {
	g, client := gatewaytest.StartTLS(t)
	host := strings.TrimPrefix(g.URL(), "https://")
	pool := client.Transport.(*http.Transport).TLSClientConfig.RootCAs
	for version, ok := range map[uint16]bool{tls.VersionTLS13: true, tls.VersionTLS12: true, tls.VersionTLS11: false, tls.VersionTLS10: false} {
		conn, err := tls.Dial("tcp", host, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS10, MaxVersion: version})
		if (err == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}

// A bad file is told with its key, before anything runs.
func TestBadCertificates(t *testing.T) {
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for key, flags := range map[string]map[string]string{
		"http.tls":          {"http.tls.cert": junk, "http.tls.key": junk},
		"upstream.tls.ca":   {"upstream.url": "mqtts://127.0.0.1:1", "upstream.tls.ca": junk},
		"upstream.tls.cert": {"upstream.url": "mqtts://127.0.0.1:1", "upstream.tls.cert": junk, "upstream.tls.key": junk},
	} {
		flags["http.listen"], flags["broker.listen"], flags["data_dir"] = "127.0.0.1:0", "127.0.0.1:0", t.TempDir()
		cfg, err := config.Load(config.Sources{Flags: flags})
		if err == nil {
			var g *gateway.Gateway
			if g, err = gateway.New(cfg, gateway.Options{Logger: slog.New(slog.DiscardHandler), DevKey: gatewaytest.Secret}); err == nil {
				err = g.Start(t.Context())
			}
		}
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
}
