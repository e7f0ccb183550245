// Package gateway is START HERE: it builds every room once and holds them
// together. Flyscreen stands between web apps and an MQTT broker.
//
// Rooms. Vocabulary, without I/O: mqtt (topics, filters, messages), fault (kinds
// of failure), wire (every shape the outside sees). Doors, which face clients:
// internal/api (requests and answers), internal/sse (SSE and NDJSON streams),
// internal/ws (WebSocket). Engines, which do the work: internal/stream (what one
// client is owed, and the pump that writes it), internal/line (the way out to one
// client), internal/hub (fan-out, window, snapshots), internal/publish (what a client
// may publish), internal/audit (who did what), internal/upstream (the broker side),
// internal/broker (the embedded broker). Package auth says who a request is and what
// it may do; config is read by this package and the command only.
//
// The three ways through:
//
//  1. POST → broker → answer. routes.go → auth.Request → api parses the topic →
//     publish.Desk checks grant, size and rate → upstream.Publish waits for the
//     broker's acknowledgement, the deadline or the connection's end → answer.
//  2. Broker → clients. upstream calls hub.Deliver on the goroutine that reads the
//     connection; it matches, encodes once, keeps the message for those who resume, and
//     pushes the same bytes onto each stream's queue, never waiting for a reader. The
//     streams' pump takes what waits and offers it to the client's connection
//     (internal/line), which writes without waiting.
//  3. Token → grants → subscription. auth gives a Principal; stream narrows each
//     filter with its grants and subscribes at the hub, which keeps upstream
//     subscriptions for the widest of the wanted filters and takes the snapshot. The
//     stream ends at the token's expiry.
package gateway
