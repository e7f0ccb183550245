// Package mqtt is the vocabulary of MQTT 3.1.1 that all rooms share: topics,
// filters, messages. It does no I/O; everything in it is a value or a pure
// function and safe for concurrent use.
package mqtt

import "time"

// QoS is a delivery promise: 0 at most once, 1 at least once, 2 exactly once.
type QoS byte

// Message is one application message. Payload belongs to the message: nobody
// may change it after it was handed on.
type Message struct {
	Topic   Topic
	Payload []byte
	QoS     QoS
	// Retain asks the broker to keep the message as its topic's state; on a
	// received message it says that this is such a kept message.
	Retain bool
	// Time is when the gateway received the message; unused when publishing.
	Time time.Time
}

// Delivery says how far a publish is known to have come.
type Delivery string

const (
	// Acknowledged means that the broker's PUBACK (QoS 1) or PUBCOMP (QoS 2)
	// for this very packet was seen.
	Acknowledged Delivery = "acknowledged"
	// Sent means that a QoS 0 packet was written to the broker connection.
	Sent Delivery = "sent"
	// Queued means that the message is durable in the outbox and not yet at the broker.
	Queued Delivery = "queued"
)
