// Package fault is the vocabulary of failures. A room that fails says which kind
// of failure it is by a Code; how that is spelled as an HTTP status or a
// WebSocket close code is decided at the edge, in package wire.
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Code names a kind of failure. Its text is the last part of the problem type
// that clients see and is stable.
type Code string

// The kinds of failure, as the API documents them.
const (
	BadRequest          Code = "bad-request"
	InvalidTopic        Code = "invalid-topic"
	InvalidFilter       Code = "invalid-filter"
	InvalidPayload      Code = "invalid-payload"
	Unauthenticated     Code = "unauthenticated"
	TokenExpired        Code = "token-expired"
	TokenInvalid        Code = "token-invalid"
	NotAuthorized       Code = "not-authorized"
	OriginNotAllowed    Code = "origin-not-allowed"
	NotFound            Code = "not-found"
	MethodNotAllowed    Code = "method-not-allowed"
	IdempotencyMismatch Code = "idempotency-mismatch"
	NotAcceptable       Code = "not-acceptable"
	RequestTimeout      Code = "request-timeout"
	TooLarge            Code = "too-large"
	UnsupportedMedia    Code = "unsupported-media-type"
	HeadersTooLarge     Code = "headers-too-large"
	RateLimited         Code = "rate-limited"
	UpstreamUnavailable Code = "upstream-unavailable"
	Overloaded          Code = "overloaded"
	Draining            Code = "draining"
	UpstreamTimeout     Code = "upstream-timeout"
	Internal            Code = "internal"
)

// Error is a failure with its kind. Detail is written for the client: it names
// the field and the rule and never holds a secret. The cause behind it (Unwrap)
// is for the log only.
type Error struct {
	Code       Code
	Detail     string
	RetryAfter time.Duration // zero: nothing is said about when to try again

	cause error
}

// New makes an Error whose detail is formatted as by fmt.Sprintf. What looks like
// a credential in it is masked.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: Redact(fmt.Sprintf(format, args...))}
}

// Because returns a copy of e with the error that caused it.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// Retry returns a copy of e that tells the client to try again after d.
func (e *Error) Retry(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Detail, e.cause)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Detail)
}

func (e *Error) Unwrap() error { return e.cause }

// From returns the first Error in err's chain, or one of kind Internal that
// keeps err as its cause and tells the client nothing of it.
func From(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return New(Internal, "an internal error; the server's log has its cause").Because(err)
}

// Is reports whether err carries code.
func Is(err error, code Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}
