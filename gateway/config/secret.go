package config

import (
	"fmt"
	"log/slog"
)

// Secret is a text that shows as *** wherever it is printed, logged or encoded.
// string(s) is the text itself.
type Secret string

const mask = "***"

// String returns *** or, for an unset secret, nothing.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return mask
}

// Format writes String for every verb, so that %q, %x and %#v give nothing away.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, s.String()) }

// LogValue masks the secret in slog's records.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText masks the secret in JSON, YAML and whatever else encodes text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
