package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

// maxDepth bounds how deep the JSON of a token or a key set may nest.
const maxDepth = 32

// parseObject decodes exactly one JSON object: valid UTF-8, no member name twice
// at any level, nothing after it. Numbers stay as they were written
// (json.Number). It exists because encoding/json alone lets the last of two
// equal members win, and struct fields match "Exp" for "exp": two readers of one
// token could then see two different tokens.
func parseObject(raw []byte) (map[string]any, error) {
	switch {
	case !utf8.Valid(raw):
		return nil, errors.New("is not valid UTF-8")
	case !json.Valid(raw):
		return nil, errors.New("is not valid JSON")
	case loneSurrogate(raw):
		return nil, errors.New("holds half a surrogate pair, which is no character")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := parseValue(d, 0)
	if err != nil {
		return nil, err
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("is not a JSON object")
	}
	return object, nil
}

// parseValue decodes the next value of text that json.Valid has passed, so the
// decoder's own errors cannot occur; they are handed on all the same.
func parseValue(d *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("nests too deep")
	}
	t, err := d.Token()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		return parseMembers(d, depth)
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := parseValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	}
	return t, nil
}

// parseMembers decodes an object after its opening brace, including the closing one.
func parseMembers(d *json.Decoder, depth int) (map[string]any, error) {
	object := map[string]any{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, ok := t.(string)
		if !ok {
			return nil, errors.New("has a member without a name")
		}
		if _, twice := object[name]; twice {
			return nil, errors.New("has two members of the same name")
		}
		if object[name], err = parseValue(d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := d.Token()
	return object, err
}

// loneSurrogate reports a \uD800…\uDFFF escape without its other half. The
// decoder would put U+FFFD there, and different names or subjects would become
// equal. The text must be valid JSON.
func loneSurrogate(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++ // the escaped character; a backslash here begins no escape of its own
		if raw[i] != 'u' {
			continue
		}
		switch unit := hex4(raw[i+1:]); {
		case unit >= 0xDC00 && unit <= 0xDFFF:
			return true
		case unit >= 0xD800 && unit <= 0xDBFF:
			next := raw[i+5:]
			if len(next) < 6 || next[0] != '\\' || next[1] != 'u' {
				return true
			}
			if low := hex4(next[2:]); low < 0xDC00 || low > 0xDFFF {
				return true
			}
			i += 6
		}
		i += 4
	}
	return false
}

// hex4 is the value of the four hexadecimal digits at the start of b.
func hex4(b []byte) (v int) {
	for _, c := range b[:4] {
		v <<= 4
		switch {
		case c <= '9':
			v |= int(c - '0')
		default:
			v |= int(c|0x20-'a') + 10
		}
	}
	return v
}

// stringList reads v as a list of strings; ok is false for anything else.
func stringList(v any) (list []string, ok bool) {
	values, ok := v.([]any)
	if !ok {
		return nil, false
	}
	for _, v := range values {
		s, ok := v.(string)
		if !ok {
			return nil, false
		}
		list = append(list, s)
	}
	return list, true
}
