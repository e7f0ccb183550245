package upstream_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"flyscreen/gateway/internal/upstream"
	"flyscreen/gateway/mqtt"
)

// mosquitto is a real broker in a directory of its own.
type mosquitto struct {
	t    *testing.T
	conf string
	port string
	cmd  *exec.Cmd
}

// startMosquitto starts a broker whose configuration is a listener on a free port
// followed by the given lines.
func startMosquitto(t *testing.T, lines ...string) *mosquitto {
	t.Helper()
	if _, err := exec.LookPath("mosquitto"); err != nil {
		t.Fatal("this test needs a real broker: apt-get install mosquitto")
	}
	m := &mosquitto{t: t, conf: filepath.Join(t.TempDir(), "mosquitto.conf")}
	m.port = freePort(t)
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "allow_anonymous") }) {
		lines = append(lines, "allow_anonymous true")
	}
	// Started by root it would become another user and not reach the test's files;
	// with nothing but WebSocket listeners 2.0.11 does not start.
	conf := fmt.Sprintf("user root\nlistener %s 127.0.0.1\nlistener %s 127.0.0.1\nsocket_domain ipv4\n%s\n", freePort(t), m.port, strings.Join(lines, "\n"))
	if err := os.WriteFile(m.conf, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	t.Cleanup(m.kill)
	return m
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

func (m *mosquitto) url(scheme string) string { return scheme + "://127.0.0.1:" + m.port }

func (m *mosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command("mosquitto", "-c", m.conf)
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	waitFor(m.t, "mosquitto to listen", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+m.port)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// kill ends the broker without a chance to say so.
func (m *mosquitto) kill() {
	_ = m.cmd.Process.Kill() // it may have ended already
	_ = m.cmd.Wait()
}

func TestMosquittoRoundTrip(t *testing.T) {
	var r record
	u := ready(t, r.into(quick(startMosquitto(t).url("mqtt"))))
	if answers, err := u.Subscribe(within(t), []mqtt.Filter{"a/#", "a/+"}, 1); err != nil || answers[0] != nil || answers[1] != nil {
		t.Fatal(answers, err)
	}
	want := []string{"link true"}
	for qos := range mqtt.QoS(3) {
		for _, payload := range []string{"", "x", "\x00\r\n\xff", strings.Repeat("big", 80_000)} {
			m := message("a/b", payload, qos)
			m.Retain = qos == 1
			if delivery, err := u.Publish(within(t), m); err != nil || (delivery == mqtt.Sent) != (qos == 0) {
				t.Errorf("qos %d: %q, %v", qos, delivery, err)
			}
			if qos == 0 { // its order against the next one is the broker's to choose
				waitFor(t, "the QoS 0 message", func() bool { return len(r.list(t)) == len(want)+1 })
			}
			want = append(want, "a/b="+payload)
		}
	}
	if err := u.Barrier(within(t), func() { r.note("reached") }); err != nil {
		t.Fatal(err)
	}
	if got := r.list(t); !slices.Equal(got, append(want, "reached")) {
		t.Errorf("got %d events, want %d", len(got), len(want)+1)
	}
	if err := u.Unsubscribe(within(t), []mqtt.Filter{"a/#", "a/+"}); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Publish(within(t), message("a/b", "unheard", 1)); err != nil {
		t.Fatal(err)
	}
	if err := u.Barrier(within(t), func() {}); err != nil || len(r.list(t)) != len(want)+1 {
		t.Errorf("after Unsubscribe: %v, %d events, want %d", err, len(r.list(t)), len(want)+1)
	}
}

func TestMosquittoRetained(t *testing.T) {
	var live atomic.Int64
	o := quick(startMosquitto(t).url("tcp"))
	o.Deliver = func(m mqtt.Message) {
		if strings.HasPrefix(string(m.Topic), "kept/") {
			live.Add(1)
		}
	}
	u := ready(t, o)
	const topics = 2000 // more than the broker's queue of 1,000
	for i := range topics {
		m := message(fmt.Sprintf("kept/%d", i), fmt.Sprint(i), 1)
		m.Retain = true
		if _, err := u.Publish(within(t), m); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := u.Subscribe(within(t), []mqtt.Filter{"#"}, 1); err != nil {
		t.Fatal(err)
	}
	for _, filter := range []mqtt.Filter{"kept/+", "#", "kept/+"} {
		messages, complete, err := u.Retained(within(t), filter)
		if len(messages) != topics || !complete || err != nil {
			t.Fatalf("%s: %d messages, complete %t, %v", filter, len(messages), complete, err)
		}
		for _, m := range messages {
			if string(m.Topic) != "kept/"+string(m.Payload) {
				t.Errorf("%s holds %s", m.Topic, m.Payload)
			}
		}
	}
	if messages, complete, err := u.Retained(within(t), "none/#"); len(messages) != 0 || !complete || err != nil {
		t.Errorf("nothing retained: %d messages, complete %t, %v", len(messages), complete, err)
	}
	if err := u.Barrier(within(t), func() {}); err != nil || live.Load() != 0 {
		t.Errorf("%v; %d retained messages were delivered as live", err, live.Load())
	}
}

// When a marker is back, everything acknowledged before it was sent has been
// delivered, in order.
func TestMosquittoBarrierOrder(t *testing.T) {
	const writers, each = 4, 300
	var delivered [writers]atomic.Int64
	o := quick(startMosquitto(t, "max_queued_messages 0").url("tcp"))
	o.Deliver = func(m mqtt.Message) {
		var writer int
		var n int64
		if _, err := fmt.Sscanf(string(m.Payload), "%d %d", &writer, &n); err != nil || !delivered[writer].CompareAndSwap(n-1, n) {
			t.Errorf("writer %d: message %d after %d", writer, n, delivered[writer].Load())
		}
	}
	u := ready(t, o)
	if _, err := u.Subscribe(within(t), []mqtt.Filter{"w/#"}, 1); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for writer := range writers {
		wg.Go(func() {
			for n := int64(1); n <= each; n++ {
				if _, err := u.Publish(within(t), message(fmt.Sprintf("w/%d", writer), fmt.Sprintf("%d %d", writer, n), 1)); err != nil {
					t.Error(err)
					return
				}
				if n%10 != 0 {
					continue
				}
				var seen int64
				if err := u.Barrier(within(t), func() { seen = delivered[writer].Load() }); err != nil || seen != n {
					t.Errorf("writer %d: %v, %d delivered at the marker, want %d", writer, err, seen, n)
				}
			}
		})
	}
	wg.Wait()
}

func TestMosquittoKilledAndBack(t *testing.T) {
	var r record
	m := startMosquitto(t)
	u := ready(t, r.into(quick(m.url("tcp"))))
	for range 3 {
		if _, err := u.Subscribe(within(t), []mqtt.Filter{"a"}, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := u.Publish(within(t), message("a", "x", 1)); err != nil {
			t.Fatal(err)
		}
		if err := u.Barrier(within(t), func() {}); err != nil {
			t.Fatal(err)
		}
		m.kill()
		waitFor(t, "Ready to turn red", func() bool { return u.Ready() != nil && strings.Count(u.Ready().Error(), "refused") == 3 })
		m.start()
		waitReady(t, u)
	}
	want := []string{"link true", "a=x", "link false", "link true", "a=x", "link false", "link true", "a=x", "link false", "link true"}
	if got := r.list(t); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestMosquittoCredentials(t *testing.T) {
	dir := t.TempDir()
	passwords := filepath.Join(dir, "passwords")
	if out, err := exec.Command("mosquitto_passwd", "-b", "-c", passwords, "gateway", "right").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := startMosquitto(t, "allow_anonymous false", "password_file "+passwords)
	o := quick(m.url("tcp"))
	o.Username, o.Password = "gateway", "wrong"
	u := start(t, o)
	waitFor(t, "the refusal", func() bool { return strings.Count(u.Ready().Error(), "not authorized") == 3 })
	o.Password = "right"
	_ = ready(t, o)
}

func TestMosquittoTransports(t *testing.T) {
	ca, conf := certificate(t)
	for scheme, lines := range map[string][]string{
		"ws":    {"protocol websockets"},
		"mqtts": conf,
		"wss":   append([]string{"protocol websockets"}, conf...),
	} {
		t.Run(scheme, func(t *testing.T) {
			m := startMosquitto(t, lines...)
			var r record
			o := r.into(quick(m.url(scheme)))
			o.TLS = &tls.Config{RootCAs: ca, MinVersion: tls.VersionTLS12}
			u := ready(t, o)
			if _, err := u.Subscribe(within(t), []mqtt.Filter{"a"}, 1); err != nil {
				t.Fatal(err)
			}
			big := strings.Repeat("x", 20_000) // more would do, but Mosquitto's WebSockets send only 4 KiB per 100 ms
			if delivery, err := u.Publish(within(t), message("a", big, 1)); err != nil || delivery != mqtt.Acknowledged {
				t.Fatal(delivery, err)
			}
			waitFor(t, "the message", func() bool { return len(r.list(t)) == 2 })
			if got := r.list(t); got[1] != "a="+big {
				t.Errorf("got %d bytes", len(got[1]))
			}
			m.kill()
			waitFor(t, "Ready to turn red", func() bool { return u.Ready() != nil })
			m.start()
			waitReady(t, u)
			if scheme == "ws" {
				return
			}
			stranger := quick(m.url(scheme)) // without our certificate authority
			other := start(t, stranger)
			waitFor(t, "the certificate to be refused", func() bool { return strings.Contains(other.Ready().Error(), "certificate") })
		})
	}
}

// certificate makes a certificate for 127.0.0.1 and returns it as a pool and as
// Mosquitto's configuration lines.
func certificate(t *testing.T) (*x509.CertPool, []string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for file, content := range map[string][]byte{certFile: certPEM, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return pool, []string{"certfile " + certFile, "keyfile " + keyFile}
}

// Publishing goes on in full while streams come and go, and stopping is clean.
func TestMosquittoStop(t *testing.T) {
	u, err := upstream.New(quick(startMosquitto(t).url("tcp")))
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, u)
	waitReady(t, u)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var acknowledged atomic.Int64
	for range 8 {
		wg.Go(func() {
			for ctx.Err() == nil {
				delivery, err := u.Publish(within(t), message("t", "x", 1))
				if err != nil {
					wantCode(t, err, "draining")
					return
				}
				if delivery == mqtt.Acknowledged {
					acknowledged.Add(1)
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			if _, _, err := u.Retained(within(t), "t"); err != nil {
				wantCode(t, err, "upstream-unavailable")
				return
			}
		}
	})
	waitFor(t, "a thousand publishes", func() bool { return acknowledged.Load() >= 1000 })
	stop()
	cancel()
	wg.Wait()
}
