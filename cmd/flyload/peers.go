//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
)

// The peers: what somebody would take instead, each with the settings that let it
// do its best here. cmd/flyload/install installs those that are not ours.

// program finds a program, also where Debian puts servers.
func program(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	path, err := exec.LookPath(filepath.Join("/usr/sbin", name))
	if err != nil {
		return "", fmt.Errorf("%s is missing: cmd/flyload/install installs it, or leave it out with -targets", name)
	}
	return path, nil
}

// versions names the peers among the lanes.
func versions(list []lane) (all []string) {
	has := func(part string) bool {
		return slices.ContainsFunc(list, func(n lane) bool { return strings.Contains(n.name, part) })
	}
	if has("nchan") {
		all = append(all, versionOf("nginx", "-v")+" with nchan")
	}
	if has("mosquitto") {
		all = append(all, versionOf("mosquitto", "-h"))
	}
	if info, ok := debug.ReadBuildInfo(); ok && has("mochi") {
		for _, m := range info.Deps {
			if strings.HasPrefix(m.Path, "github.com/mochi-mqtt/") {
				all = append(all, "mochi-mqtt "+m.Version)
			}
		}
	}
	if len(all) == 0 {
		return []string{"none"}
	}
	return all
}

// versionOf is the first line of what a program says of itself; Mosquitto's status
// is not 0 then.
func versionOf(name, flag string) string {
	path, err := program(name)
	if err != nil {
		return name + " (not found)"
	}
	out, _ := exec.Command(path, flag).CombinedOutput() //nolint:gosec // our own arguments
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

// startMosquitto runs Mosquitto with its WebSocket listener.
func startMosquitto(ctx context.Context, e env, _ load) (*server, error) {
	addresses, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	p, err := runMosquitto(ctx, e.dir, e.cores.server, addresses[0], addresses[1])
	if err != nil {
		return nil, err
	}
	return &server{target: mqttTarget(addresses[0], addresses[1]), parts: []*process{p}}, nil
}

// mqttTarget is a broker with plain MQTT for the publishers and MQTT over
// WebSocket for the streams.
func mqttTarget(plain, web string) target {
	return target{Topic: "load/{k}", Door: "mqtt", StreamURL: "http://" + web + "/", Publish: "mqtt", PublishURL: "tcp://" + plain}
}

// runMosquitto starts one that listens on plain and, if not empty, on web.
func runMosquitto(ctx context.Context, dir, core, plain, web string) (*process, error) {
	path, err := program("mosquitto")
	if err != nil {
		return nil, err
	}
	listeners, addresses := "listener "+port(plain)+" 127.0.0.1\n", []string{plain}
	if web != "" {
		listeners += "listener " + port(web) + " 127.0.0.1\nprotocol websockets\n"
		addresses = append(addresses, web)
	}
	file := filepath.Join(dir, "mosquitto.conf")
	text := listeners + "allow_anonymous true\npersistence false\nset_tcp_nodelay true\nmax_queued_messages 100000\nlog_type error\n"
	if os.Geteuid() == 0 {
		text += "user root\n" // it shall not need rights in our directory
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, err := launch(dir, core, "mosquitto", path, "-c", file)
	if err != nil {
		return nil, err
	}
	_, err = awaited(ctx, &server{parts: []*process{p}}, listens(addresses...))
	return p, err
}

func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// nchan runs nginx with the module nchan; streams are read by WebSocket or by SSE.
type nchan struct{ door string }

func (n nchan) start(ctx context.Context, e env, _ load) (*server, error) {
	path, err := program("nginx")
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(e.dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(nchanConfig(e.dir, address)), 0o600); err != nil {
		return nil, err
	}
	p, err := launch(e.dir, e.cores.server, "nginx", path, "-c", file, "-e", filepath.Join(e.dir, "nginx.err"))
	if err != nil {
		return nil, err
	}
	page := "http://" + address
	t := target{Topic: "load-{k}", Door: n.door, StreamURL: page + "/sub/{topic}",
		Publish: "http", PublishURL: page + "/pub/{topic}", PublishHeaders: []string{"Content-Type: application/json"}}
	s := &server{target: t, parts: []*process{p}}
	up := listens(address)
	return awaited(ctx, s, func() bool {
		var err error
		s.workers, err = p.children()
		return err == nil && len(s.workers) > 0 && up()
	})
}

// nchanConfig keeps more messages than nchan's default of 10, with which streams
// a little behind lose some.
func nchanConfig(dir, address string) string {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n"
	}
	var temp strings.Builder
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "%s_temp_path %s;\n", name, filepath.Join(dir, name))
	}
	files := fileLimit()
	return fmt.Sprintf(`load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
%sdaemon off;
worker_processes 1;
worker_rlimit_nofile %d;
pid %s/nginx.pid;
error_log %s/nginx.err error;
events { worker_connections %d; }
http {
access_log off;
keepalive_requests 1000000000;
keepalive_timeout 3600;
nchan_max_reserved_memory 512M;
%sserver {
listen %s backlog=4096;
location ~ ^/pub/(.+)$ {
nchan_publisher;
nchan_channel_id $1;
nchan_message_buffer_length 5000;
nchan_message_timeout 10s;
}
location ~ ^/sub/(.+)$ {
nchan_subscriber websocket eventsource;
nchan_channel_id $1;
nchan_subscriber_first_message newest;
}
}
}
`, user, files, dir, dir, files-100, &temp, address)
}

// fileLimit is how many files a process may have open.
func fileLimit() uint64 {
	var l syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) // fails only for a bad argument
	return l.Max
}

// raiseFileLimit allows this process and those that it starts as many open files
// as the system lets them have: for its children Go would restore the old limit.
func raiseFileLimit() error {
	n := fileLimit()
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n})
}
