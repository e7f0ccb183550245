package wire

import "bytes"

// The bounds of what mayDouble looks through by itself.
const (
	plainDepth   = 6
	plainMembers = 12
)

// plainObject is an object or array that mayDouble is in.
type plainObject struct {
	array bool
	n     int
	names [plainMembers][]byte
}

// mayDouble reports whether JSON may hold a member twice, so that doubled must look
// closely. It allocates nothing, and says yes to whatever it does not know: escaped
// names, many members, deep nesting. What it makes of malformed JSON means nothing.
func mayDouble(data []byte) bool {
	var nest [plainDepth]plainObject
	depth, named := -1, false // named: the next string is a value
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{', '[':
			if depth++; depth == plainDepth {
				return true
			}
			nest[depth].array, nest[depth].n = data[i] == '[', 0
			named = false
		case '}', ']':
			if depth--; depth < -1 {
				return true
			}
		case ',':
			named = false
		case '"':
			end, escaped := stringEnd(data, i)
			text := data[min(i+1, end):end]
			i = end
			if depth < 0 || nest[depth].array || named {
				continue
			}
			o := &nest[depth]
			if escaped || o.n == plainMembers || o.has(text) {
				return true
			}
			o.names[o.n] = text
			o.n++
			named = true
			if string(text) == "payload" {
				i = valueEnd(data, i+1) - 1
			}
		}
	}
	return false
}

func (o *plainObject) has(name []byte) bool {
	for _, n := range o.names[:o.n] {
		if bytes.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// stringEnd is where the string that begins at data[start] has its closing quote.
func stringEnd(data []byte, start int) (end int, escaped bool) {
	for end = start + 1; end < len(data) && data[end] != '"'; end++ {
		if data[end] == '\\' {
			escaped = true
			end++
		}
	}
	return min(end, len(data)), escaped
}

// valueEnd is where the member's value ends, whose colon is at data[i] or behind.
func valueEnd(data []byte, i int) int {
	for depth := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			i, _ = stringEnd(data, i)
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return i
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return i
}
