//go:build linux

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// kind is what is done with the streams of a load.
type kind int

const (
	kindFanOut  kind = iota // a fixed rate, then the capacity
	kindIdle                // memory at rest
	kindConnect             // CPU time of opening
	kindPublish             // HTTP publishing, closed loop
	kindStall               // a tenth of the streams stops reading
)

// load is one scenario: how many streams follow how many topics, and what is
// published to them.
type load struct {
	name       string
	about      string
	kind       kind
	streams    int
	topics     int // streams share them evenly
	publishers int
	payload    int           // bytes
	rate       float64       // deliveries a second of the step at the fixed rate
	p99        time.Duration // bound of a good step
	stalled    int           // streams that will stop reading
}

// defaultPayload is used where a load says nothing else, in bytes.
const defaultPayload = 120

// loads are all scenarios, in the order in which they are measured.
var loads = []load{
	{name: "f100", about: "100 streams of one topic", streams: 100, topics: 1, publishers: 4, rate: 20000, p99: 100 * time.Millisecond},
	{name: "f1000", about: "1,000 streams of one topic", streams: 1000, topics: 1, publishers: 4, rate: 20000, p99: 100 * time.Millisecond},
	{name: "f5000", about: "5,000 streams of one topic", streams: 5000, topics: 1, publishers: 4, rate: 20000, p99: 500 * time.Millisecond},
	{name: "t1000", about: "1,000 streams with a topic each", streams: 1000, topics: 1000, publishers: 16, rate: 5000, p99: 100 * time.Millisecond},
	{name: "idle", about: "10,000 idle streams with a topic each", kind: kindIdle, streams: 10000, topics: 10000, publishers: 4},
	{name: "idle1", about: "10,000 idle streams of one topic", kind: kindIdle, streams: 10000, topics: 1, publishers: 1},
	{name: "connect", about: "2,000 streams with a topic each are opened", kind: kindConnect, streams: 2000, topics: 2000, publishers: 4},
	{name: "connect1", about: "2,000 streams of one topic are opened", kind: kindConnect, streams: 2000, topics: 1, publishers: 1},
	{name: "publish", about: "HTTP publishes over 64 kept-alive connections, counted at one stream", kind: kindPublish, streams: 1, topics: 1, publishers: 64, p99: time.Minute},
	{name: "stall", about: "2,000 streams of one topic, 1,000-byte payloads; 200 stop reading", kind: kindStall, streams: 2000, topics: 1, publishers: 4, payload: 1000, rate: 40000, p99: time.Second, stalled: 200},
}

// lane is a server and the way in which its streams are read.
type lane struct {
	name  string
	about string
	start func(ctx context.Context, e env, l load) (*server, error)
	// takes reports whether the lane is measured by default; nil: in all fan-out,
	// idle and connect scenarios.
	takes func(l load) bool
	ours  bool // a gateway of ours
	named bool // the user asked for this very one: it is measured wherever it can be
}

// env is what a server's start needs to know.
type env struct {
	dir      string // fresh for each start
	self     string // this program
	cores    cores
	set      []string // further settings of the gateway
	profiles profiles
}

// doors are the ways to read the gateway's streams that are measured.
var doors = []struct {
	name, about    string
	door, upstream string
	takes          func(load) bool
}{
	{"sse", "the gateway, SSE", "sse", "", except(kindPublish)},
	{"ws", "the gateway, WebSocket, a frame a message", "ws", "", nil},
	{"batch", "the gateway, WebSocket, batched frames", "batch", "", except(kindPublish)},
	{"ws+mosquitto", "the gateway, WebSocket, with Mosquitto as its broker", "ws", "mosquitto", manyTopics},
}

// lanes are all servers: the gateways that were named, door by door, then the
// floor and the peers.
func lanes(gateways []named) (all []lane) {
	for _, d := range doors {
		for _, g := range gateways {
			name := d.name
			if g.name != "" {
				name += "@" + g.name
			}
			all = append(all, lane{name: name, about: d.about, start: gateway{g.path, d.door, d.upstream}.start, takes: d.takes, ours: true})
		}
	}
	return append(all,
		lane{name: "floor", about: "one blocking write for each message and socket, nothing else", start: startFloor, takes: fanOutOnly},
		lane{name: "nchan-ws", about: "nginx with nchan, WebSocket", start: nchan{"ws"}.start, takes: nil},
		lane{name: "nchan-sse", about: "nginx with nchan, SSE", start: nchan{"sse"}.start, takes: except(kindPublish)},
		lane{name: "mosquitto", about: "Mosquitto, MQTT over WebSocket", start: startMosquitto, takes: except(kindPublish)},
		lane{name: "mochi", about: "mochi-mqtt, MQTT over WebSocket", start: startMochi, takes: except(kindPublish)},
	)
}

// named is a gateway's program; the name is empty when there is only one.
type named struct{ name, path string }

func except(kinds ...kind) func(load) bool {
	return func(l load) bool { return !slices.Contains(kinds, l.kind) }
}

func fanOutOnly(l load) bool { return l.kind == kindFanOut }

func manyTopics(l load) bool { return l.kind == kindFanOut && l.topics > 1 }

// is reports whether name means this lane: its name, with or without the name of
// a gateway, or a group.
func (n lane) is(name string) bool {
	door, _, _ := strings.Cut(n.name, "@")
	return name == n.name || name == door || name == "fly" && n.ours || name == "peers" && !n.ours
}

// measures reports whether the lane is measured in the scenario.
func (n lane) measures(l load) bool {
	return n.takes == nil || n.takes(l) || n.named && l.kind != kindPublish
}

// runningLane is a server that somebody else has started and described.
func runningLane(file, pids string) (lane, error) {
	t, err := readTarget(file)
	if err != nil {
		return lane{}, err
	}
	s := server{target: t}
	for _, part := range split(pids) {
		pid, err := strconv.Atoi(part)
		if err != nil {
			return lane{}, fmt.Errorf("-pids %q: must be numbers, separated by commas", pids)
		}
		s.workers = append(s.workers, pid)
	}
	start := func(context.Context, env, load) (*server, error) { return &s, nil }
	return lane{name: cmp.Or(t.Name, "target"), start: start}, nil
}
