package wire

import (
	"encoding/json"
	"errors"

	"flyscreen/gateway/mqtt"
)

// Number is a JSON number that is given back as it was written: a WebSocket
// client's id.
type Number string

// What answers repeat of a client's frame is bounded, in bytes, because many
// answers may wait for a client that does not read.
const (
	maxNumber        = 64
	maxRefusedFilter = 1024
)

// UnmarshalJSON implements json.Unmarshaler.
func (n *Number) UnmarshalJSON(b []byte) error {
	var number json.Number
	if b[0] == '"' || len(b) > maxNumber {
		return errors.New("not a number of a sensible length")
	}
	if err := json.Unmarshal(b, &number); err != nil {
		return err
	}
	*n = Number(number)
	return nil
}

// MarshalJSON implements json.Marshaler.
func (n Number) MarshalJSON() ([]byte, error) { return []byte(n), nil }

// Connack answers connect.
type Connack struct {
	ID             *Number `json:"id,omitempty"`
	Stream         string  `json:"stream"`
	Subject        string  `json:"subject"`
	Expires        *Time   `json:"expires"`
	SessionPresent bool    `json:"session_present"`
	Limits         Limits  `json:"limits"`
}

// Limits tells a WebSocket client what it may do.
type Limits struct {
	PayloadBytes   int `json:"payload_bytes"`
	TopicBytes     int `json:"topic_bytes"`
	RequestFilters int `json:"request_filters"`
	Filters        int `json:"filters"`
	QueueMessages  int `json:"queue_messages"`
	QueueBytes     int `json:"queue_bytes"`
}

// Suback answers subscribe, a result for each filter in the order of the request.
type Suback struct {
	ID      *Number           `json:"id,omitempty"`
	Resumed bool              `json:"resumed,omitempty"` // what was missed follows, and no snapshot
	Results []SubscribeResult `json:"results"`
}

// Patched answers a change of a stream's filters, a result for each that was to be
// added, in the order of the request.
type Patched struct {
	Results []SubscribeResult `json:"results"`
}

// SubscribeResult is what became of one filter: Granted and QoS, or Problem.
type SubscribeResult struct {
	Filter  string        `json:"filter"`
	Granted []mqtt.Filter `json:"granted,omitempty"`
	QoS     *mqtt.QoS     `json:"qos,omitempty"`
	Problem *Problem      `json:"problem,omitempty"`
}

// Grant makes r a success.
func (r *SubscribeResult) Grant(filters []mqtt.Filter, qos mqtt.QoS) {
	r.Granted, r.QoS = filters, &qos
}

// Refuse makes r a failure.
func (r *SubscribeResult) Refuse(err error) {
	p := ProblemFrom(err)
	r.Problem = &p
	if len(r.Filter) > maxRefusedFilter {
		r.Filter = printable(r.Filter)
	}
}

// Unsuback answers unsubscribe.
type Unsuback struct {
	ID *Number `json:"id,omitempty"`
}

// Puback answers publish.
type Puback struct {
	ID       *Number       `json:"id,omitempty"`
	Delivery mqtt.Delivery `json:"delivery"`
	Replayed bool          `json:"replayed,omitempty"` // published before, with the same key
}

// Authack answers auth, and the refresh of a stream over HTTP: the new end, and the
// effective filters.
type Authack struct {
	ID      *Number       `json:"id,omitempty"`
	Expires *Time         `json:"expires"`
	Granted []mqtt.Filter `json:"granted"`
}

// NotNull is filters, as a list also where there are none.
func NotNull(filters []mqtt.Filter) []mqtt.Filter {
	if filters == nil {
		return []mqtt.Filter{}
	}
	return filters
}

// Pong answers ping.
type Pong struct {
	ID *Number `json:"id,omitempty"`
}

// Refusal answers a frame that was wrong or a publish that failed.
type Refusal struct {
	ID      *Number `json:"id,omitempty"`
	Problem Problem `json:"problem"`
}
