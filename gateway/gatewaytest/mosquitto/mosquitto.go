// Package mosquitto runs a real Mosquitto inside a test.
package mosquitto

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience is how long it may take to come up.
const patience = 30 * time.Second

// Broker is a Mosquitto on a loopback port of its own.
type Broker struct {
	// Port stays the same over Kill and Start.
	Port   string
	t      testing.TB
	config string
	cmd    *exec.Cmd
	log    bytes.Buffer
}

// Start runs a broker with further lines of configuration, and ends it with the
// test. A machine without Mosquitto fails the test.
func Start(t testing.TB, lines ...string) *Broker {
	t.Helper()
	dir := t.TempDir()
	b := &Broker{Port: freePort(t), t: t, config: filepath.Join(dir, "mosquitto.conf")}
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n%s\n", b.Port, strings.Join(lines, "\n"))
	if err := os.WriteFile(b.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Start()
	t.Cleanup(b.Kill)
	return b
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// URL is the broker's address for the gateway.
func (b *Broker) URL() string { return "tcp://127.0.0.1:" + b.Port }

// Start runs the broker, again after Kill, and returns when it listens.
func (b *Broker) Start() {
	b.t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto" // Debian's place, not in everybody's PATH
	}
	b.cmd = exec.Command(path, "-c", b.config) //nolint:gosec // a test's own broker
	b.cmd.Stderr = &b.log
	if err := b.cmd.Start(); err != nil {
		b.t.Fatalf("%v; this test needs Mosquitto: apt-get install mosquitto", err)
	}
	deadline := time.Now().Add(patience)
	for {
		conn, err := net.Dial("tcp", "127.0.0.1:"+b.Port)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("mosquitto did not come up: %v\n%s", err, b.log.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Kill ends the broker as a crash does (SIGKILL).
func (b *Broker) Kill() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
	b.cmd = nil
}
