// Package upstream is the broker's side of the gateway: it publishes with
// truthful answers, holds the shared subscriptions, and collects retained
// messages. It is the only package that knows the MQTT client library.
//
// # Connections of three kinds
//
// "live" holds all shared subscriptions, "publish" (one or
// more, a topic always on the same) carries what clients publish,
// "snapshot" collects retained messages. They are apart because a SUBSCRIBE makes
// the broker send the retained set to the whole connection, which delays or (by
// queue limits) displaces live messages, and because a publish that a broker
// dislikes makes it drop the connection it came on. For a broker that sends a copy
// for each overlapping subscription, the live side has several connections
// (handover.go).
//
// # Why the library is held on a short lead
//
// Each of the following was seen with the library as it comes:
//
//   - With its automatic reconnect, a QoS 1 publish that was never acknowledged
//     completes without an error once the connection is back; a publish or
//     subscribe while it is connecting may hang for ever; and a publish that makes
//     the broker drop the connection is sent again after each reconnect, for ever.
//     So a link makes a new client per connection, with clean sessions, no store
//     and no reconnect, and nothing is ever sent twice.
//   - It completes whatever waits under a packet identifier when any
//     acknowledgement bears it, panics on a SUBACK with more codes than filters,
//     takes an unknown CONNACK code for success, allocates whatever a header
//     announces, and writes pings and subscribes without a deadline. So conn, the
//     net.Conn under it, checks each packet in both directions.
//   - It calls every matching route for one packet, and routes outlive their
//     subscriptions. So there are no routes, only the default handler.
//   - It reads a message of any size. So conn puts a small one in the place of a
//     message that is too large; to end the connection would bring a retained one
//     again and again.
//   - It does not notice when its connection is closed from our side. So conn
//     fails reads with an error of its own, and ending a conn ends the session.
//   - Its publish and subscribe calls block while the socket does. So a session's
//     sender makes them, and callers wait with their own contexts.
//
// # Publishes
//
// They go past the library, in a lane of their own (lane.go): joined in one write,
// with many under way, each told once how it ended, in the order of sending. What
// an ended connection left unanswered fails, and nothing here sends it again.
//
// # Order
//
// One goroutine of the library reads, handles and acknowledges live messages; the
// handler calls Options.Deliver and Missed directly. Link(false) of one connection comes
// after its last Deliver and before Link(true) of the next.
//
// # Markers
//
// A barrier is a message to a private topic under "flyscreen-barrier/" that only
// this connection subscribes to. The broker's user must be allowed to publish and
// subscribe there; that is tried on each new connection. Messages under that
// prefix, of any gateway, are never delivered, and clients cannot publish there.
package upstream
