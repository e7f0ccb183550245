package faults_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait for something that must happen.
const patience = 60 * time.Second

// full says that the long form was asked for.
var full = os.Getenv("FAULTS_RUN") == "full"

// binary is the built program.
var binary string

func TestMain(m *testing.M) { os.Exit(build(m)) }

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "flyscreen-faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "flyscreen")
	args := []string{"build", "-o", binary}
	if !full { // the long form measures, too
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "flyscreen/cmd/flyscreen")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// gateway is the built program, running or killed. Anybody may publish.
type gateway struct {
	t        *testing.T
	url      string
	dir      string // its data directory
	settings []string

	mu  sync.Mutex // guards the following
	cmd *exec.Cmd
	log bytes.Buffer
}

func startGateway(t *testing.T, broker, dir string, settings ...string) *gateway {
	t.Helper()
	g := &gateway{t: t, dir: dir}
	address := freeAddress(t)
	g.url = "http://" + address
	for _, s := range append([]string{
		"data_dir=" + dir, "http.listen=" + address, "upstream.url=" + broker, "auth.anonymous.pub=#", "auth.anonymous.sub=#",
		"limits.publish_rate=1000000", "limits.publish_burst=1000000",
	}, settings...) {
		g.settings = append(g.settings, "--set", s)
	}
	g.start()
	t.Cleanup(func() {
		g.kill()
		if text := g.logText(); strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic:") {
			t.Errorf("the gateway:\n%s", text)
		} else if t.Failed() {
			t.Logf("the gateway's log ends:\n%s", text[max(0, len(text)-5000):])
		}
	})
	return g
}

func (g *gateway) start() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cmd = exec.Command(binary, append([]string{"serve"}, g.settings...)...)
	g.cmd.Stderr = writer{g}
	if err := g.cmd.Start(); err != nil {
		g.t.Errorf("starting the gateway: %v", err)
	}
}

// kill ends it as kill -9 does.
func (g *gateway) kill() {
	g.mu.Lock()
	cmd := g.cmd
	g.cmd = nil
	g.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// writer collects the log; exec writes to it on a goroutine of its own.
type writer struct{ g *gateway }

func (w writer) Write(p []byte) (int, error) {
	logMu.Lock()
	defer logMu.Unlock()
	return w.g.log.Write(p)
}

var logMu sync.Mutex // guards every gateway's log

func (g *gateway) logText() string {
	logMu.Lock()
	defer logMu.Unlock()
	return g.log.String()
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

var client = &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}

// do sends a request; status 0 is no answer.
func (g *gateway) do(method, path, body string, header ...string) (status int, answer string) {
	r, err := http.NewRequest(method, g.url+path, strings.NewReader(body))
	if err != nil {
		g.t.Error(err)
		return 0, ""
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(data)
}

func (g *gateway) status(path string) int {
	status, _ := g.do(http.MethodGet, path, "")
	return status
}

func (g *gateway) awaitReady() {
	g.t.Helper()
	eventually(g.t, "/readyz is green", func() bool { return g.status("/readyz") == http.StatusOK })
}

// metric is the sum of a metric's samples.
func (g *gateway) metric(name string) float64 {
	_, text := g.do(http.MethodGet, "/metrics", "")
	sum := 0.0
	for line := range strings.Lines(text) {
		if rest, found := strings.CutPrefix(line, name); found && (rest[0] == ' ' || rest[0] == '{') {
			var value float64
			if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &value); err == nil {
				sum += value
			}
		}
	}
	return sum
}

func (g *gateway) awaitEmpty() {
	g.t.Helper()
	eventually(g.t, "the outbox is empty", func() bool {
		return g.status("/readyz") == http.StatusOK && g.metric("flyscreen_outbox_messages") == 0
	})
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func runCommand(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(binary, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("flyscreen %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
