//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startTime = 15 * time.Second
	stopTime  = 10 * time.Second
	topic     = "load/fanout"
)

// buildGateway compiles the gateway into dir; the working directory is in its
// module.
func buildGateway(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "flyscreen")
	out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, "flyscreen/cmd/flyscreen").CombinedOutput() //nolint:gosec // our own arguments
	if err != nil {
		return "", fmt.Errorf("building the gateway: %w\n%s", err, out)
	}
	return program, nil
}

// gateway is a running one with its embedded broker, both on free loopback ports.
type gateway struct {
	cmd    *exec.Cmd
	logged chan struct{} // closed at the end of its log
	token  string
	http   string // host:port
	broker string // host:port
}

// startGateway runs program with limits wide enough for n streams of one
// subject. It keeps its files in dir. The end of ctx ends it.
func startGateway(ctx context.Context, program, dir, core string, n int) (*gateway, error) {
	token, err := exec.CommandContext(ctx, program, "token", "--data-dir", dir, "--subject", "load", "--all", "load/#").Output() //nolint:gosec // our own arguments
	if err != nil {
		return nil, fmt.Errorf("flyscreen token: %w", err)
	}
	args := []string{program, "serve", "--listen", "127.0.0.1:0", "--broker-listen", "127.0.0.1:0",
		"--data-dir", dir, "--log-format", "json", "--log-level", "info"}
	most := strconv.Itoa(n + 100)
	for _, limit := range []string{"streams=" + most, "streams_per_subject=" + most, "streams_per_address=" + most,
		"publish_rate=1000000", "publish_burst=1000000", "drain_timeout=200ms"} {
		args = append(args, "--set", "limits."+limit)
	}
	if core != "" {
		args = append([]string{"taskset", "-c", core}, args...) // it becomes the program: same pid
	}
	g := &gateway{token: strings.TrimSpace(string(token)), logged: make(chan struct{})}
	g.cmd = exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // our own arguments
	g.cmd.Cancel = func() error { return g.cmd.Process.Signal(syscall.SIGTERM) }
	g.cmd.WaitDelay = stopTime
	log, err := g.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	addresses := make(chan [2]string, 1)
	go g.readLog(log, addresses)
	return g, g.await(ctx, addresses)
}

// readLog finds the addresses in the log and reads the rest, so that the gateway
// never waits for a full pipe.
func (g *gateway) readLog(log io.Reader, addresses chan<- [2]string) {
	defer close(g.logged)
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var line struct{ Msg, URL, Upstream string }
		if bytes.Contains(lines.Bytes(), []byte(`"listening"`)) && json.Unmarshal(lines.Bytes(), &line) == nil {
			addresses <- [2]string{line.URL, line.Upstream}
			break
		}
	}
	_, _ = io.Copy(io.Discard, log)
}

func (g *gateway) await(ctx context.Context, addresses <-chan [2]string) error {
	var cause error
	select {
	case a := <-addresses:
		page, err1 := url.Parse(a[0])
		broker, err2 := url.Parse(a[1])
		if cause = errors.Join(err1, err2); cause == nil {
			g.http, g.broker = page.Host, broker.Host
			cause = g.ready(ctx)
		}
		if cause == nil {
			return nil
		}
	case <-g.logged:
		cause = errors.New("it ended at once")
	case <-time.After(startTime):
		cause = errors.New("it does not listen")
	case <-ctx.Done():
		cause = ctx.Err()
	}
	return errors.Join(fmt.Errorf("starting the gateway: %w", cause), g.stop())
}

// ready waits until the gateway has its broker.
func (g *gateway) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.http+"/readyz", nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		_ = answer.Body.Close()
		if answer.StatusCode == http.StatusOK {
			return nil
		}
		pause(10 * time.Millisecond)
	}
}

// stop ends the gateway and waits for it.
func (g *gateway) stop() error {
	_ = g.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	killed := time.AfterFunc(stopTime, func() { _ = g.cmd.Process.Kill() })
	defer killed.Stop()
	<-g.logged // Wait would cut the log off
	if err := g.cmd.Wait(); err != nil {
		return fmt.Errorf("stopping the gateway: %w", err)
	}
	return nil
}

func (g *gateway) pids() []int { return []int{g.cmd.Process.Pid} }

// doors are the ways to read a stream that are measured.
var doors = []struct{ key, name string }{{"sse", "SSE"}, {"ws", "WebSocket"}, {"batch", "WebSocket, batch"}}

// target describes g for the door of that name, published to over MQTT.
func (g *gateway) target(door string) target {
	t := target{
		Name: door, Publish: "mqtt", PublishURL: "tcp://" + g.broker, Topic: topic,
	}
	if door == "SSE" {
		t.Door, t.StreamURL = "sse", "http://"+g.http+"/v1/stream?filter="+topic
		t.StreamHeaders = []string{"Authorization: Bearer " + g.token}
		t.Ready = "event: live\n"
		return t
	}
	t.Door, t.StreamURL, t.Subprotocol = "ws", "http://"+g.http+"/v1/ws", "flyscreen.v1"
	t.Hello = []string{
		fmt.Sprintf(`{"type":"connect","token":%q,"batch":%t}`, g.token, strings.HasSuffix(door, "batch")),
		fmt.Sprintf(`{"type":"subscribe","id":1,"filters":[%q]}`, topic),
	}
	t.Ready = `"type":"live"`
	return t
}

// posting describes g with publishers over HTTP.
func (g *gateway) posting() target {
	t := g.target("SSE")
	t.Name, t.Publish, t.PublishURL = "HTTP POST, QoS 1", "http", "http://"+g.http+"/v1/topics/"+topic
	t.PublishHeaders = []string{"Authorization: Bearer " + g.token, "Content-Type: application/json"}
	return t
}
