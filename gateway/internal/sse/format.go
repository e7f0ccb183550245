package sse

import (
	"mime"
	"strconv"
	"strings"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/hub"
	"flyscreen/gateway/internal/stream"
	"flyscreen/gateway/wire"
)

// format is one of the two formats, with what frames it on the line.
type format struct {
	contentType string
	heartbeat   []byte
	plain       *stream.Format
	chunked     *stream.Format // for HTTP/1.1
}

// events is text/event-stream. All data is JSON on one line, so no payload can
// forge an event with a line break (HTML standard, section 9.2.6).
var events = newFormat("text/event-stream", ":\n\n", &stream.Format{
	Open:  func(dst []byte) []byte { return dst },
	Close: func(dst []byte, _ int) []byte { return dst },
	Message: func(dst []byte, f *hub.Frame, position uint64) []byte {
		if f.Seq > 0 {
			dst = append(stream.AppendID(append(dst, "id: "...), f, position), '\n')
		}
		return append(stream.AppendObject(append(dst, "data: "...), f, position), '\n', '\n')
	},
	Event: func(dst []byte, e *wire.Event) []byte {
		dst = append(append(append(dst, "event: "...), e.Name...), '\n')
		return append(append(append(dst, "data: "...), e.Fields...), '\n', '\n')
	},
})

// lines is application/x-ndjson; an empty line is the heartbeat.
var lines = newFormat("application/x-ndjson", "\n", stream.Messages("\n"))

func newFormat(contentType, heartbeat string, plain *stream.Format) *format {
	chunked := *plain
	chunked.Open, chunked.Close = openChunk, closeChunk
	return &format{contentType: contentType, heartbeat: []byte(heartbeat), plain: plain, chunked: &chunked}
}

// chunkSize is a chunk's size, to be filled in: RFC 9112 section 7.1 allows zeros
// in front.
const chunkSize = "00000000\r\n"

func openChunk(dst []byte) []byte { return append(dst, chunkSize...) }

func closeChunk(dst []byte, start int) []byte {
	size := len(dst) - start - len(chunkSize)
	for i := start + 7; size > 0; i-- {
		dst[i] = "0123456789abcdef"[size&15]
		size >>= 4
	}
	return append(dst, '\r', '\n')
}

// lastChunk ends a chunked body.
const lastChunk = "0\r\n\r\n"

// negotiate chooses by the Accept header: the acceptable format with the highest
// quality, server-sent events where the client does not care (RFC 9110 section
// 12.5.1). A range that names a type decides over one with a wildcard.
func negotiate(accept []string) (*format, error) {
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
		return nil, fault.New(fault.NotAcceptable, "a stream is text/event-stream or application/x-ndjson")
	case linesQ > eventsQ:
		return lines, nil
	}
	return events, nil
}
