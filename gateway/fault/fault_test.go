package fault_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"flyscreen/gateway/fault"
)

func TestError(t *testing.T) {
	plain := fault.New(fault.NotFound, "no %q", "x")
	full := plain.Because(io.ErrUnexpectedEOF).Retry(time.Second)
	if plain.RetryAfter != 0 || errors.Is(plain, io.ErrUnexpectedEOF) {
		t.Errorf("the copies changed the original: %#v", plain)
	}
	if full.RetryAfter != time.Second || !errors.Is(full, io.ErrUnexpectedEOF) || full.Detail != `no "x"` {
		t.Errorf("got %#v", full)
	}
	if text := full.Error(); text != `not-found: no "x": unexpected EOF` {
		t.Errorf("the log reads %q", text)
	}
	if text := plain.Error(); text != `not-found: no "x"` {
		t.Errorf("the log reads %q", text)
	}
}

func TestFrom(t *testing.T) {
	inner := fault.New(fault.TooLarge, "big")
	wrapped := fmt.Errorf("outer: %w", inner)
	if got := fault.From(wrapped); got != inner {
		t.Errorf("got %v", got)
	}
	if !fault.Is(wrapped, fault.TooLarge) || fault.Is(wrapped, fault.NotFound) || fault.Is(io.EOF, fault.Internal) || fault.Is(nil, fault.Internal) {
		t.Error("Is looks at something else than the code")
	}
	foreign := fault.From(io.ErrClosedPipe)
	if foreign.Code != fault.Internal || strings.Contains(foreign.Detail, "pipe") || !errors.Is(foreign, io.ErrClosedPipe) {
		t.Errorf("got %#v", foreign)
	}
}
