package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// Publish is a message that a client asks to publish, in a batch or on a
// WebSocket. Exactly one of Payload, Text and Base64 is given.
type Publish struct {
	Topic   string          `json:"topic"`
	Payload json.RawMessage `json:"payload"`
	Text    *string         `json:"text"`
	Base64  *string         `json:"base64"`
	QoS     *int            `json:"qos"`
	Retain  bool            `json:"retain"`
	// IdempotencyKey makes a repetition of the message be published once; "" is none.
	IdempotencyKey string `json:"idempotency_key"`
}

// Bytes is the payload to publish: the JSON of payload as it was sent, the text,
// or the decoded base64.
func (p *Publish) Bytes() ([]byte, error) {
	given := 0
	for _, is := range []bool{p.Payload != nil, p.Text != nil, p.Base64 != nil} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		return nil, fault.New(fault.InvalidPayload, `exactly one of "payload", "text" and "base64" must be given`)
	case p.Payload != nil:
		return p.Payload, nil
	case p.Text != nil:
		return []byte(*p.Text), nil
	}
	b, err := base64.StdEncoding.Strict().DecodeString(*p.Base64)
	if err != nil {
		return nil, fault.New(fault.InvalidPayload, `"base64" is not standard base64 with padding`)
	}
	return b, nil
}

// Level is the QoS to publish with; 1 where the client says nothing.
func (p *Publish) Level() (mqtt.QoS, error) {
	if p.QoS == nil {
		return 1, nil
	}
	return CheckQoS(*p.QoS)
}

// CheckQoS refuses what is not 0, 1 or 2.
func CheckQoS(n int) (mqtt.QoS, error) {
	if n < 0 || n > 2 {
		return 0, fault.New(fault.BadRequest, `"qos" must be 0, 1 or 2`)
	}
	return mqtt.QoS(n), nil
}

// Delivery is the answer to a publish.
type Delivery struct {
	Topic    string        `json:"topic"`
	QoS      mqtt.QoS      `json:"qos"`
	Delivery mqtt.Delivery `json:"delivery"`
}

// AppendDelivery appends the JSON of a Delivery, without reflection: a gateway does
// little else.
func AppendDelivery(dst []byte, topic mqtt.Topic, qos mqtt.QoS, delivery mqtt.Delivery) []byte {
	dst = append(dst, `{"topic":`...)
	dst = appendString(dst, string(topic))
	dst = append(dst, `,"qos":`...)
	dst = strconv.AppendUint(dst, uint64(qos), 10)
	dst = append(dst, `,"delivery":"`...)
	dst = append(dst, delivery...)
	return append(dst, `"}`...)
}

// Decode reads the one JSON value in data into v, strictly: UTF-8, no unknown
// members, nothing behind it. The fault names what is wrong in the client's terms.
func Decode(data []byte, v any) error {
	if !utf8.Valid(data) {
		return fault.New(fault.InvalidPayload, "the JSON is not valid UTF-8")
	}
	if loneSurrogate(data) {
		return fault.New(fault.InvalidPayload, `the JSON holds half of a surrogate pair (\ud800 to \udfff), which is no character`)
	}
	if mayDouble(data) && json.Valid(data) { // the latter bounds the depth, before anything recurses
		if name, twice := doubled(json.NewDecoder(bytes.NewReader(data))); twice {
			return fault.New(fault.InvalidPayload, "the JSON member %q is given twice", printable(name))
		}
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fault.New(fault.InvalidPayload, "%s", jsonComplaint(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fault.New(fault.InvalidPayload, "the JSON goes on behind its value")
	}
	return nil
}

// doubled looks for a member that is given twice, in any case: the decoder would
// take the last one without a word. A payload's own members are not ours to judge.
func doubled(d *json.Decoder) (name string, twice bool) {
	token, err := d.Token()
	if err != nil { // the decoder will say what is wrong
		return "", false
	}
	delim, _ := token.(json.Delim)
	if delim != '{' && delim != '[' {
		return "", false
	}
	seen := map[string]bool{}
	for d.More() {
		if delim == '{' {
			if token, err = d.Token(); err != nil {
				return "", false
			}
			name, _ = token.(string)
			folded := strings.ToLower(name)
			if seen[folded] {
				return name, true
			}
			seen[folded] = true
			if name == "payload" {
				var skipped json.RawMessage
				if d.Decode(&skipped) != nil {
					return "", false
				}
				continue
			}
		}
		if name, twice = doubled(d); twice {
			return name, true
		}
	}
	_, _ = d.Token() // the closing bracket
	return "", false
}

// loneSurrogate reports a \u escape of half a character, which decoders replace by
// U+FFFD: something else would be published than was sent.
func loneSurrogate(data []byte) bool {
	for i := 0; i+1 < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		high, low := surrogate(data[i:], 0xD800), surrogate(data[i:], 0xDC00)
		switch {
		case high && i+6 < len(data) && surrogate(data[i+6:], 0xDC00):
			i += 11
		case high || low:
			return true
		default:
			i++ // the escaped character, which may be another backslash
		}
	}
	return false
}

// surrogate reports whether b begins with a \u escape from first to first+0x3FF.
func surrogate(b []byte, first uint64) bool {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return false
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return err == nil && n >= first && n < first+0x400
}

func jsonComplaint(err error) string {
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &kind) && kind.Field == "":
		return "the JSON is " + kind.Value + ", not what is asked for here"
	case errors.As(err, &kind):
		return "the JSON member " + strconv.Quote(kind.Field) + " has the wrong type"
	case errors.As(err, &syntax), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the JSON does not parse"
	}
	if name, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
		return "the JSON member " + printable(name) + " is not known here"
	}
	return "the JSON does not fit"
}
