package config_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"flyscreen/gateway/config"
)

func writeFile(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }

func TestDevKeyIsMadeOnceForItsOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "below", "data")
	key, created, err := config.DevKey(dir)
	if err != nil || !created || len(key) < 32 {
		t.Fatalf("got %d bytes, created %v, %v", len(key), created, err)
	}
	again, created, err := config.DevKey(dir)
	if err != nil || created || !bytes.Equal(key, again) {
		t.Errorf("second time: created %v, same key %v, %v", created, bytes.Equal(key, again), err)
	}
	path := filepath.Join(dir, "dev.key")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v", info.Mode(), err)
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.TrimSpace(string(text)) != string(key) {
		t.Errorf("the key is not the file's text: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v", entries, err)
	}
	other, _, err := config.DevKey(t.TempDir())
	if err != nil || bytes.Equal(key, other) {
		t.Errorf("two directories have the same key, or %v", err)
	}
}

func TestDevKeyRefusesWhatIsNone(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := config.DevKey(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "dev.key")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := config.DevKey(dir); err == nil || !strings.Contains(err.Error(), "read by others") {
		t.Errorf("a key that others can read: got %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := config.DevKey(dir); err != nil {
		t.Errorf("the control: %v", err)
	}
	if err := writeFile(path, "short"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := config.DevKey(dir); err == nil || !strings.Contains(err.Error(), "hexadecimal") {
		t.Errorf("a broken key: got %v", err)
	}
}

func TestDevKeyOfManyAtOnceIsOne(t *testing.T) {
	dir := t.TempDir()
	var wait sync.WaitGroup
	keys := make([]string, 8)
	made := make([]bool, len(keys))
	for i := range keys {
		wait.Go(func() {
			key, created, err := config.DevKey(dir)
			if err != nil {
				t.Error(err)
			}
			keys[i], made[i] = string(key), created
		})
	}
	wait.Wait()
	count := 0
	for i := range keys {
		if keys[i] != keys[0] {
			t.Errorf("key %d differs", i)
		}
		if made[i] {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d say that they made the key", count)
	}
}

func TestSecretNeverShows(t *testing.T) {
	c := config.Default()
	c.Upstream.Password = "geheim"
	c.Auth.Issuers = []config.Issuer{{Issuer: "visible", Secret: "geheim"}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", *c)
		fmt.Fprintf(&out, verb+"\n", c.Upstream.Password)
	}
	if err := json.NewEncoder(&out).Encode(c); err != nil {
		t.Fatal(err)
	}
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "secret", c.Upstream.Password, "config", c)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "secret", c.Upstream.Password, "config", c)
	if text := out.String(); strings.Contains(text, "geheim") || strings.Contains(text, fmt.Sprintf("%x", "geheim")) {
		t.Errorf("the secret shows in\n%s", text)
	}
	if !strings.Contains(out.String(), "visible") || !strings.Contains(out.String(), "***") {
		t.Error("neither *** nor what is no secret shows")
	}
	if string(c.Upstream.Password) != "geheim" || config.Secret("").String() != "" {
		t.Error("the secret itself cannot be had, or an unset one shows")
	}
}

// certificate writes a self-signed certificate and its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert = write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	key = write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
	return cert, key
}

func TestCertificates(t *testing.T) {
	cert, key := certificate(t)
	_, otherKey := certificate(t)
	cases := []struct {
		name  string
		flags map[string]string
		key   string // of the problem; "" is none
	}{
		{"server pair", map[string]string{"http.tls.cert": cert, "http.tls.key": key}, ""},
		{"server pair that does not fit", map[string]string{"http.tls.cert": cert, "http.tls.key": otherKey}, "http.tls.cert"},
		{"server key missing", map[string]string{"http.tls.cert": cert, "http.tls.key": "/nowhere/key"}, "http.tls.key"},
		{"client", map[string]string{"upstream.url": "ssl://x", "upstream.tls.ca": cert, "upstream.tls.cert": cert, "upstream.tls.key": key}, ""},
		{"client pair that does not fit", map[string]string{"upstream.url": "ssl://x", "upstream.tls.cert": cert, "upstream.tls.key": otherKey}, "upstream.tls.cert"},
		{"authority that is a key", map[string]string{"upstream.url": "ssl://x", "upstream.tls.ca": key}, "upstream.tls.ca"},
	}
	for _, c := range cases {
		got := problems(t, config.Sources{Flags: c.flags})
		if c.key == "" && len(got) > 0 || c.key != "" && (len(got) != 1 || got[0].Key != c.key) {
			t.Errorf("%s: got %v, want a problem of %q", c.name, got, c.key)
		}
	}
	client := load(t, config.Sources{Flags: cases[3].flags})
	tls, err := client.Upstream.TLS.Config()
	if err != nil || len(tls.Certificates) != 1 || tls.RootCAs == nil {
		t.Errorf("the client's TLS: %+v, %v", tls, err)
	}
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Upstream.TLS.Config(); err == nil {
		t.Error("a file that went away makes no error")
	}
}
