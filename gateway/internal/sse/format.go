package sse

import (
	"mime"
	"strconv"
	"strings"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/wire"
)

// format is how a stream looks on the line. The functions append to dst.
type format struct {
	contentType string
	heartbeat   []byte
	message     func(dst []byte, f *hub.Frame) []byte
	event       func(dst []byte, e *wire.Event) []byte
}

// events is text/event-stream. All data is JSON on one line, so no payload can
// forge an event with a line break (HTML standard, section 9.2.6).
var events = format{
	contentType: "text/event-stream",
	heartbeat:   []byte(":\n\n"),
	message: func(dst []byte, f *hub.Frame) []byte {
		if f.Cursor != "" {
			dst = append(append(append(dst, "id: "...), f.Cursor...), '\n')
		}
		return append(append(append(dst, "data: "...), f.JSON...), '\n', '\n')
	},
	event: func(dst []byte, e *wire.Event) []byte {
		dst = append(append(append(dst, "event: "...), e.Name...), '\n')
		return append(append(append(dst, "data: "...), e.Fields...), '\n', '\n')
	},
}

// lines is application/x-ndjson; an empty line is the heartbeat.
var lines = format{
	contentType: "application/x-ndjson",
	heartbeat:   []byte("\n"),
	message:     func(dst []byte, f *hub.Frame) []byte { return append(append(dst, f.JSON...), '\n') },
	event:       func(dst []byte, e *wire.Event) []byte { return append(e.AppendTyped(dst), '\n') },
}

// negotiate chooses by the Accept header: the acceptable format with the highest
// quality, server-sent events where the client does not care (RFC 9110 section
// 12.5.1). A range that names a type decides over one with a wildcard.
func negotiate(accept []string) (format, error) {
	if strings.Join(accept, "") == "" {
		return events, nil
	}
	eventsQ, linesQ := -1.0, -1.0
	eventsRank, linesRank := 0, 0
	consider := func(q *float64, rank *int, newQ float64, newRank int) {
		if newRank >= *rank {
			*q, *rank = newQ, newRank
		}
	}
	for _, part := range strings.Split(strings.Join(accept, ","), ",") {
		media, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if text, given := params["q"]; given {
			if q, err = strconv.ParseFloat(text, 64); err != nil || !(q >= 0 && q <= 1) { // the negation catches NaN too
				continue
			}
		}
		switch media {
		case "*/*":
			consider(&eventsQ, &eventsRank, q, 1)
			consider(&linesQ, &linesRank, q, 1)
		case "text/*":
			consider(&eventsQ, &eventsRank, q, 2)
		case "application/*":
			consider(&linesQ, &linesRank, q, 2)
		case events.contentType:
			consider(&eventsQ, &eventsRank, q, 3)
		case lines.contentType:
			consider(&linesQ, &linesRank, q, 3)
		}
	}
	switch {
	case eventsQ <= 0 && linesQ <= 0:
		return format{}, fault.New(fault.NotAcceptable, "a stream is text/event-stream or application/x-ndjson")
	case linesQ > eventsQ:
		return lines, nil
	}
	return events, nil
}
