package wire

import (
	"bytes"
	"encoding/json"
	"net/http"

	"flyscreen/gateway/fault"
)

// ProblemType is the media type of a Problem (RFC 9457).
const ProblemType = "application/problem+json"

// Problem is the body of every failure (RFC 9457).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
}

// spelling is how a kind of failure looks outside: HTTP status, title, and the
// close code a WebSocket is ended with when the failure ends it.
type spelling struct {
	status int
	title  string
	close  CloseCode
}

var spellings = map[fault.Code]spelling{
	fault.BadRequest:          {http.StatusBadRequest, "Bad request", CloseProtocol},
	fault.InvalidTopic:        {http.StatusBadRequest, "Invalid topic", CloseProtocol},
	fault.InvalidFilter:       {http.StatusBadRequest, "Invalid topic filter", CloseProtocol},
	fault.InvalidPayload:      {http.StatusBadRequest, "Invalid payload", CloseProtocol},
	fault.Unauthenticated:     {http.StatusUnauthorized, "Authentication required", CloseUnauthenticated},
	fault.TokenExpired:        {http.StatusUnauthorized, "Token expired", CloseUnauthenticated},
	fault.TokenInvalid:        {http.StatusUnauthorized, "Token invalid", CloseUnauthenticated},
	fault.NotAuthorized:       {http.StatusForbidden, "Not authorized", CloseNotAuthorized},
	fault.OriginNotAllowed:    {http.StatusForbidden, "Origin not allowed", CloseNotAuthorized},
	fault.NotFound:            {http.StatusNotFound, "Not found", CloseProtocol},
	fault.MethodNotAllowed:    {http.StatusMethodNotAllowed, "Method not allowed", CloseProtocol},
	fault.IdempotencyMismatch: {http.StatusUnprocessableEntity, "Idempotency key used before", CloseProtocol},
	fault.NotAcceptable:       {http.StatusNotAcceptable, "Not acceptable", CloseProtocol},
	fault.RequestTimeout:      {http.StatusRequestTimeout, "Request timeout", CloseProtocol},
	fault.TooLarge:            {http.StatusRequestEntityTooLarge, "Too large", CloseTooBig},
	fault.UnsupportedMedia:    {http.StatusUnsupportedMediaType, "Unsupported media type", CloseUnsupported},
	fault.HeadersTooLarge:     {http.StatusRequestHeaderFieldsTooLarge, "Headers too large", CloseProtocol},
	fault.RateLimited:         {http.StatusTooManyRequests, "Rate limited", CloseRateLimited},
	fault.UpstreamUnavailable: {http.StatusServiceUnavailable, "Upstream unavailable", CloseUpstreamUnavailable},
	fault.Overloaded:          {http.StatusServiceUnavailable, "Overloaded", CloseTryLater},
	fault.Draining:            {http.StatusServiceUnavailable, "Shutting down", CloseRestart},
	fault.UpstreamTimeout:     {http.StatusGatewayTimeout, "Outcome unknown", CloseUpstreamUnavailable},
	fault.Internal:            {http.StatusInternalServerError, "Internal error", CloseTryLater},
}

// ProblemFrom spells err for a client. An error without a code is an internal
// one: the client is told that, and nothing of its text.
func ProblemFrom(err error) Problem {
	e := fault.From(err)
	s, known := spellings[e.Code]
	if !known {
		s = spellings[fault.Internal]
	}
	return Problem{
		Type:   "/problems/" + string(e.Code),
		Title:  s.title,
		Status: s.status,
		Detail: e.Detail,
		Code:   string(e.Code),
	}
}

// AppendJSON appends v's JSON and returns the extended slice. It is for shapes
// of this package, which always encode.
func AppendJSON(dst []byte, v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // this is not HTML, and people read it
	if err := e.Encode(v); err != nil {
		panic("wire: a shape of our own does not encode: " + err.Error())
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}
