package wire

import "time"

// Event is a control event of a stream, or an answer on a WebSocket: everything
// that is not a message object.
type Event struct {
	Name string
	// Fields is a JSON object on one line.
	Fields []byte
}

// NewEvent makes an event of one of this package's shapes, which must encode as
// an object.
func NewEvent(name string, fields any) *Event {
	return &Event{Name: name, Fields: AppendJSON(nil, fields)}
}

// AppendTyped appends e as one object with its name as the member "type", the
// form of WebSocket frames and NDJSON lines.
func (e *Event) AppendTyped(dst []byte) []byte {
	dst = append(dst, `{"type":`...)
	dst = appendString(dst, e.Name)
	if len(e.Fields) > len("{}") {
		dst = append(dst, ',')
	}
	return append(dst, e.Fields[1:]...)
}

// Ready is the first event of an HTTP stream.
type Ready struct {
	Stream  string   `json:"stream"`
	Granted []string `json:"granted"`
	Cursor  string   `json:"cursor"`
	Resumed bool     `json:"resumed"`
	Expires *Time    `json:"expires"`        // null: never
	Hint    string   `json:"hint,omitempty"` // a mistake that the request looks like
}

// Live says that the snapshot is complete, or why the stream goes on without.
type Live struct {
	Filters  []string `json:"filters,omitempty"` // WebSocket: as subscribed
	Snapshot int      `json:"snapshot"`
	Complete bool     `json:"complete"`
}

// The reasons of a Gap.
const (
	GapSlow     = "slow"     // the client read too slowly
	GapEvicted  = "evicted"  // the position to resume from is not kept
	GapUpstream = "upstream" // the broker connection was lost
	GapNode     = "node"     // the position is of another node, or of before a restart
)

// Gap tells of messages that the stream did not get. Missed is null when nobody
// can know how many.
type Gap struct {
	Missed *int   `json:"missed"`
	Reason string `json:"reason"`
}

// Upstream tells that the broker connection came or went.
type Upstream struct {
	Connected bool `json:"connected"`
}

// TokenExpiring tells how long the stream's token still holds.
type TokenExpiring struct {
	Seconds int `json:"seconds"`
}

// End is the last event of a stream.
type End struct {
	Code      CloseCode `json:"code"`
	Reason    string    `json:"reason"`
	Reconnect bool      `json:"reconnect"`
	AfterMS   int64     `json:"after_ms"` // wait this long before a reconnect
}

// Time is an instant that encodes as RFC 3339 in UTC with milliseconds.
type Time time.Time

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) {
	return append(AppendTime([]byte{'"'}, time.Time(t)), '"'), nil
}

// TimeOrNull is nil, null in JSON, for the zero time.
func TimeOrNull(t time.Time) *Time {
	if t.IsZero() {
		return nil
	}
	w := Time(t)
	return &w
}
