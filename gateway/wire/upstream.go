package wire

import (
	"time"

	"flyscreen/gateway/mqtt"
)

// UpstreamState is the state of the gateway's side of the broker, for operators.
type UpstreamState struct {
	Broker      string       `json:"broker"` // its URL
	Connections []Connection `json:"connections"`
	Outbox      *OutboxState `json:"outbox"` // null when it is off
}

// Connection is one connection to the broker.
type Connection struct {
	Role     string `json:"role"`
	ClientID string `json:"client_id"`
	// State is "up", "silent" (up, but the broker has not been heard of for too long) or
	// "down"; Since is when it was last up or down.
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// RTT is how long the broker took to answer the last ping, in milliseconds; null
	// while it is down.
	RTT *float64 `json:"rtt_ms"`
	// LastError is why it is or was last down, in words.
	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
}

// OutboxState is how full the outbox is.
type OutboxState struct {
	Queued      int    `json:"queued"`
	Quarantined int    `json:"quarantined"`
	Error       string `json:"error,omitempty"` // why its file cannot be written
}

// OutboxList is what the outbox holds, the quarantined messages first.
type OutboxList struct {
	Messages    []OutboxMessage `json:"messages"` // as many as were asked for
	Queued      int             `json:"queued"`   // in all
	Quarantined int             `json:"quarantined"`
}

// OutboxMessage is a message in the outbox.
type OutboxMessage struct {
	ID       uint64    `json:"id"`
	State    string    `json:"state"` // "queued" or "quarantined"
	Topic    string    `json:"topic"`
	QoS      int       `json:"qos"`
	Retain   bool      `json:"retain"`
	Bytes    int       `json:"bytes"` // of the payload
	Accepted time.Time `json:"accepted"`
	Reason   string    `json:"reason,omitempty"` // of the quarantine
	Base64   *string   `json:"base64,omitempty"` // the payload, where one message was asked for
}

// NewOutboxMessage spells a message of the outbox, without its payload.
func NewOutboxMessage(id uint64, quarantined bool, m mqtt.Message, accepted time.Time, reason string) OutboxMessage {
	w := OutboxMessage{
		ID: id, State: "queued", Topic: string(m.Topic), QoS: int(m.QoS), Retain: m.Retain,
		Bytes: len(m.Payload), Accepted: accepted.UTC(), Reason: reason,
	}
	if quarantined {
		w.State = "quarantined"
	}
	return w
}
