package sse_test

import (
	"testing"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/sse"
)

func TestNegotiate(t *testing.T) {
	const events, lines = "text/event-stream", "application/x-ndjson"
	for _, c := range []struct {
		accept []string
		want   string // "" is 406
	}{
		{nil, events},
		{[]string{""}, events},
		{[]string{"*/*"}, events},
		{[]string{"text/event-stream"}, events},
		{[]string{"TEXT/Event-Stream"}, events},
		{[]string{"text/event-stream; charset=utf-8"}, events},
		{[]string{"text/*"}, events},
		{[]string{"application/x-ndjson"}, lines},
		{[]string{"application/*"}, lines},
		{[]string{"application/x-ndjson, text/event-stream"}, events},
		{[]string{"application/x-ndjson", "text/event-stream"}, events},
		{[]string{"application/x-ndjson, text/event-stream;q=0.9"}, lines},
		{[]string{"application/x-ndjson;q=0.8, text/event-stream;q=0.9"}, events},
		{[]string{"application/x-ndjson;q=0.9,text/event-stream;q=0.8,*/*;q=0.1"}, lines},
		{[]string{"text/event-stream;q=0.5, */*"}, lines},
		{[]string{"*/*, text/event-stream;q=0.5"}, lines},
		{[]string{"text/event-stream;q=0, */*"}, lines},
		{[]string{"application/x-ndjson;q=0, */*"}, events},
		{[]string{"text/*;q=0.2, application/*;q=0.3"}, lines},
		{[]string{"text/html, application/xhtml+xml, */*;q=0.8"}, events},
		{[]string{"text/html, application/x-ndjson ; q=0.001"}, lines},
		{[]string{"text/event-stream;Q=0.5, application/x-ndjson;q=0.4"}, events},
		{[]string{"text/html"}, ""},
		{[]string{"application/json"}, ""},
		{[]string{"text/event-stream;q=0"}, ""},
		{[]string{"*/*;q=0"}, ""},
		{[]string{"text/event-stream;q=0, application/x-ndjson;q=0.0, */*"}, ""},
		{[]string{"garbage"}, ""},
		{[]string{"garbage, application/x-ndjson"}, lines},
		{[]string{"text/event-stream;q=high"}, ""},
		{[]string{"text/event-stream;q=NaN"}, ""},
		{[]string{"text/event-stream;q=7, application/x-ndjson"}, lines},
		{[]string{"text/event-stream;q=-1, application/x-ndjson"}, lines},
	} {
		got, err := sse.Negotiate(c.accept...)
		if c.want == "" && !fault.Is(err, fault.NotAcceptable) || c.want != "" && (err != nil || got != c.want) {
			t.Errorf("Accept %q: %q, %v; want %q", c.accept, got, err, c.want)
		}
	}
}
