package blackbox_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// site is a running gateway with the broker behind it.
type site struct {
	url       string // http://127.0.0.1:port
	mqttPort  string // the broker's, on 127.0.0.1
	gateway   *process
	mosquitto *process // nil: the embedded broker
	conf      string   // Mosquitto's configuration file
}

// kinds are the brokers that the tests run against.
var kinds = []string{"embedded", "mosquitto"}

// onBoth runs a test in front of the embedded broker and of Mosquitto.
func onBoth(t *testing.T, overrides map[string]any, test func(t *testing.T, s *site)) {
	t.Helper()
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) { test(t, boot(t, kind, overrides)) })
	}
}

// boot starts a gateway in front of a broker of that kind and waits until it is
// ready. overrides are configuration keys by dotted name.
func boot(t *testing.T, kind string, overrides map[string]any) *site {
	t.Helper()
	s := &site{mqttPort: freePort(t)}
	port := freePort(t)
	s.url = "http://127.0.0.1:" + port
	keys := map[string]any{
		"data_dir":     t.TempDir(),
		"http.listen":  "127.0.0.1:" + port,
		"log.format":   "json",
		"log.level":    "info",
		"auth.issuers": []any{map[string]any{"secret": secret}},
	}
	if kind == "mosquitto" {
		s.startMosquitto(t)
		keys["upstream.url"] = "tcp://127.0.0.1:" + s.mqttPort
	} else {
		keys["broker.listen"] = "127.0.0.1:" + s.mqttPort
	}
	maps.Copy(keys, overrides)
	s.gateway = launch(t, nil, suite.binary, "serve", "--config", configFile(t, keys))
	t.Cleanup(func() { s.report(t) })
	s.awaitReady(t)
	return s
}

// report ends the gateway and shows the end of its log if the test failed. A
// data race that the gateway found in itself is a failure of its own.
func (s *site) report(t *testing.T) {
	t.Helper()
	s.gateway.kill()
	log, _, _ := s.gateway.log.snapshot()
	for i, line := range log {
		if strings.Contains(line, "DATA RACE") || strings.HasPrefix(line, "panic:") {
			t.Errorf("the gateway: %s", strings.Join(log[i:min(len(log), i+40)], "\n"))
			return
		}
	}
	if t.Failed() {
		t.Logf("the gateway's log ends:\n%s", tail(log))
	}
}

// configFile writes keys, given by dotted name, as JSON, which is YAML too.
func configFile(t *testing.T, keys map[string]any) string {
	t.Helper()
	root := map[string]any{}
	for name, v := range keys {
		at := root
		parts := strings.Split(name, ".")
		for _, p := range parts[:len(parts)-1] {
			next, ok := at[p].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[p] = next
			}
			at = next
		}
		at[parts[len(parts)-1]] = v
	}
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "flyscreen.yaml", string(text))
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// freePort is a port that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// startMosquitto starts the broker, or starts it again on the same port.
func (s *site) startMosquitto(t *testing.T) {
	t.Helper()
	if s.conf == "" {
		s.conf = writeFile(t, "mosquitto.conf", fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\n", s.mqttPort))
	}
	s.mosquitto = launch(t, nil, "mosquitto", "-c", s.conf)
	eventually(t, "Mosquitto listens", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+s.mqttPort)
		if err == nil {
			_ = c.Close() // it was only a knock
		}
		return err == nil
	})
}

// awaitReady waits for /readyz to be green.
func (s *site) awaitReady(t *testing.T) {
	t.Helper()
	eventually(t, "the gateway is ready", func() bool {
		select {
		case <-s.gateway.exited:
			log, _, _ := s.gateway.log.snapshot()
			t.Fatalf("the gateway ended: %v\n%s", s.gateway.err, tail(log))
		default:
		}
		return s.readiness(t) == http.StatusOK
	})
}

// readiness is the status of /readyz, 0 while nobody answers.
func (s *site) readiness(t *testing.T) int {
	t.Helper()
	res, err := suite.document.client(t).Get(s.url + "/readyz")
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	return res.StatusCode
}

// eventually polls until done, or fails the test after patience.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	limit := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}
