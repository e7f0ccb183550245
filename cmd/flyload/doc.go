// Flyload is the load run behind make bench: it builds the gateway, starts it on
// loopback, holds many streams open, publishes, and prints one table of deliveries
// a second, CPU time, latency, allocations and memory, beside what else could do
// the work: nginx with nchan, Mosquitto, mochi-mqtt, and the floor (floor.go), the
// least that a server does which writes once for each message and socket.
//
// # Method
//
// Every payload carries a marker (marker.go) with the time at which it was due, its
// topic, its publisher and a number, so each delivery on each stream is checked for
// loss, order, repetition and the right topic; a run is only good when all of them
// arrived once. The streams' tokens are the gateway's own, with a grant for the
// load's topics only.
//
// The load is open loop: messages are due at fixed times whether or not the server
// keeps up, and latency counts from when a message was due. A rate counts
// deliveries: messages times streams. The capacity is the highest rate at which
// nothing is lost and the 99th percentile of latency keeps the scenario's bound
// (100 ms; 500 ms with 5,000 streams).
//
// CPU is the user and system time of all of the server's processes, which on
// loopback includes the kernel's TCP work; the gateway's includes its embedded
// broker. Server and client are pinned to a core each where taskset is at hand, so
// a capacity is that of one core. With "ws+mosquitto" the broker runs on the
// client's core and counts as neither. The tool costs up to 0.2 ms of latency
// itself (readers.go). A server is started anew for each scenario and run.
//
// What other processes take of the machine is shown. A step waits up to 3 s for
// them to rest, and is taken again, up to twice, when they took more than -quiet;
// the least disturbed one counts. Compare figures of one run of the tool only.
//
// # Table
//
// "Each" is a delivery; in idle and connect a stream that is opened (TCP, handshake,
// token, one subscription, snapshot), in publish a request. "× floor" is CPU time
// in units of the floor's in the same step. Allocations are the gateway's own count
// at /metrics. KB/stream is the growth of the resident memory at rest. A client
// near 100 % is the limit itself. All but "good runs" are medians of the runs; -out
// keeps every run as a line of JSON (record.go).
//
// # Files
//
// main.go and flags.go (what is asked for), scenario.go (the scenarios and who is
// measured in them), bench.go (the steps of a scenario), opening.go (idle and
// connect), stall.go (streams that stop reading), step.go (one measurement),
// search.go (the capacity search); server.go (processes), gateway.go, floor.go,
// mochi.go, peers.go (the servers), profile.go (the gateway's profiles and
// metrics); target.go (how to speak to a server), subscribe.go and readers.go (the
// streams), publish.go (the publishers), protocol.go (bytes of HTTP, WebSocket and
// MQTT), marker.go; proc.go (CPU, memory, machine), histogram.go, record.go,
// report.go (the table).
//
// Another server is measured with -target FILE -pids PID,…: target.go tells what
// the file holds.
package main
