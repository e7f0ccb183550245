// Flyload is the load run: it builds the gateway, starts it with its embedded
// broker on loopback, holds many streams open, publishes, and prints a table of
// deliveries a second, CPU time, latency and memory.
//
// Every payload carries a marker (marker.go) with the time at which it was due and
// a number, so each delivery on each stream is checked for loss, order and
// repetition; a figure is only printed as good when all of them arrived.
//
// The load is open loop: messages are due at fixed times whether or not the server
// keeps up, and latency counts from when a message was due. A rate counts
// deliveries: messages times streams. CPU is the user and system time of the
// server's process, which on loopback includes the kernel's TCP work. Server and
// client are pinned to a core each where taskset is at hand, so a capacity is that
// of one core. The tool costs up to 0.2 ms of latency itself (readers.go). What
// other processes take is shown; where they cannot rest, root may run it with
// "nice -n -10". Compare figures of one sitting only.
//
// Files: main.go (flags and time limit), scenario.go (what is measured, in which
// order), step.go (one measurement), search.go (the capacity search), gateway.go
// (the server's process), target.go (how to speak to a server), subscribe.go and
// readers.go (the streams), publish.go (the publishers), protocol.go (bytes of
// HTTP, WebSocket and MQTT), proc.go (CPU, memory, machine), report.go (tables).
//
// Another server is measured with -target FILE -pids PID,…: target.go tells what
// the file holds.
package main
