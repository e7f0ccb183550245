//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
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

// gateway says how to start one for one way of reading streams.
type gateway struct {
	program  string
	door     string // "sse", "ws" or "batch"
	upstream string // "": the embedded broker; or "mosquitto"
}

// start runs the gateway with limits wide enough for l.
func (g gateway) start(ctx context.Context, e env, l load) (*server, error) {
	data := filepath.Join(e.dir, "data")
	token, err := exec.CommandContext(ctx, g.program, "token", "--data-dir", data, "--subject", "load", "--all", "load/#").Output() //nolint:gosec // our own arguments
	if err != nil {
		return nil, fmt.Errorf("flyscreen token: %w", err)
	}
	addresses, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	s := &server{page: addresses[0]}
	broker := addresses[1]
	args := []string{g.program, "serve", "--listen", s.page, "--data-dir", data, "--log-level", "warn"}
	if g.upstream == "" {
		args = append(args, "--broker-listen", broker)
	} else {
		m, err := runMosquitto(ctx, e.dir, e.cores.client, broker, "")
		if err != nil {
			return nil, err
		}
		s.helpers = append(s.helpers, m)
		args = append(args, "--upstream", "tcp://"+broker)
	}
	p, err := launch(e.dir, e.cores.server, "gateway", append(args, g.settings(e, l)...)...)
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	s.parts = append(s.parts, p)
	s.target = g.target(s.page, broker, strings.TrimSpace(string(token)))
	if l.kind == kindPublish {
		s.target.Publish, s.target.PublishURL = "http", "http://"+s.page+"/v1/topics/{topic}"
		s.target.PublishHeaders = []string{"Authorization: Bearer " + strings.TrimSpace(string(token)), "Content-Type: application/json"}
	}
	return awaited(ctx, s, func() bool { return ready(ctx, s.page) })
}

// settings are the limits for l and what the user adds.
func (g gateway) settings(e env, l load) (args []string) {
	most := strconv.Itoa(l.streams + 100)
	for _, s := range []string{"streams=" + most, "streams_per_subject=" + most, "streams_per_address=" + most,
		"publish_rate=1000000", "publish_burst=1000000", "drain_timeout=200ms"} {
		args = append(args, "--set", "limits."+s)
	}
	if l.kind == kindStall {
		args = append(args, "--set", "limits.queue_messages="+strconv.Itoa(stalledQueue))
	}
	if e.profiles.wanted() {
		args = append(args, "--set", "http.pprof=true")
	}
	for _, s := range e.set {
		args = append(args, "--set", s)
	}
	return args
}

// target describes the gateway, published to over MQTT.
func (g gateway) target(page, broker, token string) target {
	t := target{Topic: "load/{k}", Publish: "mqtt", PublishURL: "tcp://" + broker}
	if g.door == "sse" {
		t.Door, t.StreamURL = "sse", "http://"+page+"/v1/stream?filter={topic}"
		t.StreamHeaders = []string{"Authorization: Bearer " + token}
		t.Ready = "event: live\n"
		return t
	}
	t.Door, t.StreamURL, t.Subprotocol = "ws", "http://"+page+"/v1/ws", "flyscreen.v1"
	t.Hello = []string{
		fmt.Sprintf(`{"type":"connect","token":%q,"batch":%t}`, token, g.door == "batch"),
		`{"type":"subscribe","id":1,"filters":["{topic}"]}`,
	}
	t.Ready = `"type":"live"`
	return t
}

// ready asks the gateway whether it has its broker.
func ready(ctx context.Context, page string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+page+"/readyz", nil)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}
