package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"flyscreen/gateway/mqtt"
)

// AppendMessage appends m as the message object that all doors send (API section
// "the message object"), on one line, and returns the extended slice. cursor ""
// leaves the member out, as snapshot messages do.
//
// Exactly one of payload (valid JSON, embedded as it is but for line breaks
// between tokens, which become spaces so that the object stays one line), text
// (other valid UTF-8) and base64 is present.
// JSON that is nested deeper than parsers go is sent as text, so that no payload
// makes its message unreadable.
func AppendMessage(dst []byte, m mqtt.Message, cursor string) []byte {
	dst, _, _ = AppendMessageOpen(dst, m)
	if cursor != "" {
		dst = append(dst, `,"cursor":`...)
		dst = appendString(dst, cursor)
	}
	return append(dst, '}')
}

// AppendMessageOpen is AppendMessage up to where the cursor and the closing brace
// belong. The member that holds the payload lies from body to end.
func AppendMessageOpen(dst []byte, m mqtt.Message) (_ []byte, body, end int) {
	dst = append(dst, `{"type":"message","topic":`...)
	dst = appendString(dst, string(m.Topic))
	body = len(dst)
	dst = appendPayload(dst, m.Payload)
	end = len(dst)
	dst = append(dst, `,"qos":`...)
	dst = strconv.AppendUint(dst, uint64(m.QoS), 10)
	dst = append(dst, `,"retain":`...)
	dst = strconv.AppendBool(dst, m.Retain)
	dst = append(dst, `,"time":"`...)
	dst = AppendTime(dst, m.Time)
	return append(dst, '"'), body, end
}

// AppendTime appends t in UTC as RFC 3339 with milliseconds.
func AppendTime(dst []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
}

func appendPayload(dst, payload []byte) []byte {
	switch {
	case !utf8.Valid(payload):
		dst = append(dst, `,"base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, payload)
		return append(dst, '"')
	case json.Valid(payload) && !tooDeep(payload):
		dst = append(dst, `,"payload":`...)
		start := len(dst)
		dst = append(dst, payload...)
		for i, c := range dst[start:] {
			if c == '\n' || c == '\r' { // in valid JSON these stand only between tokens
				dst[start+i] = ' '
			}
		}
		return dst
	default:
		dst = append(dst, `,"text":`...)
		return appendString(dst, string(payload))
	}
}

// maxDepth leaves room for what stands around a payload below the 10,000 levels
// at which encoding/json and others give up.
const maxDepth = 9990

// tooDeep reports whether payload, which is valid JSON, is nested deeper than
// maxDepth. Nearly always counting shows that it cannot be.
func tooDeep(payload []byte) bool {
	if bytes.Count(payload, []byte{'['})+bytes.Count(payload, []byte{'{'}) <= maxDepth {
		return false
	}
	depth, quoted := 0, false
	for i := 0; i < len(payload); i++ {
		switch c := payload[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > maxDepth {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD; U+2028
// and U+2029 are escaped for old JavaScript.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' && c != 0x7F {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 || r == '\u2028' || r == '\u2029' {
			dst = append(dst, s[start:i]...)
			dst = append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
			start = i + size
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
