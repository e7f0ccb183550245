package wire

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// Query is a parsed query string. Unlike in forms, "+" is a plus sign, because
// people type MQTT's wildcard; a space is %20. Reading a parameter marks it as
// known; Unknown refuses the rest, so that no option is ever ignored.
type Query struct {
	names  []string // in order of first appearance
	values map[string][]string
	known  []string
}

// ParseQuery decodes raw, the part of the URL behind "?".
func ParseQuery(raw string) (*Query, error) {
	q := &Query{values: map[string][]string{}}
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.PathUnescape(name)
		if err == nil {
			value, err = url.PathUnescape(value)
		}
		if err != nil {
			return nil, fault.New(fault.BadRequest, "the query is not percent-encoded correctly")
		}
		if q.values[name] == nil {
			q.names = append(q.names, name)
		}
		q.values[name] = append(q.values[name], value)
	}
	return q, nil
}

// All returns every value of name.
func (q *Query) All(name string) []string {
	q.known = append(q.known, name)
	return q.values[name]
}

// One returns the value of name and whether it is there; twice is a fault.
func (q *Query) One(name string) (value string, given bool, err error) {
	switch values := q.All(name); len(values) {
	case 0:
		return "", false, nil
	case 1:
		return values[0], true, nil
	default:
		return "", true, fault.New(fault.BadRequest, "the query parameter %q is given %d times", name, len(values))
	}
}

// Bool reads true or false; absent is standard.
func (q *Query) Bool(name string, standard bool) (bool, error) {
	value, given, err := q.One(name)
	switch {
	case err != nil || !given:
		return standard, err
	case value == "true":
		return true, nil
	case value == "false":
		return false, nil
	}
	return false, fault.New(fault.BadRequest, "the query parameter %q must be true or false", name)
}

// Int reads a decimal number from low to high; absent is standard.
func (q *Query) Int(name string, standard, low, high int) (int, error) {
	value, given, err := q.One(name)
	if err != nil || !given {
		return standard, err
	}
	n, err := strconv.Atoi(value)
	if err != nil || strconv.Itoa(n) != value || n < low || n > high { // in one spelling: no sign, no zeros in front
		return 0, fault.New(fault.BadRequest, "the query parameter %q must be a number from %d to %d", name, low, high)
	}
	return n, nil
}

// QoS reads the parameter qos; absent is 1.
func (q *Query) QoS() (mqtt.QoS, error) {
	n, err := q.Int("qos", 1, 0, 2)
	if err != nil {
		return 0, err
	}
	return CheckQoS(n)
}

// NotYet refuses parameters that are part of the API but not built yet.
func (q *Query) NotYet(names ...string) error {
	for _, name := range names {
		if len(q.All(name)) > 0 {
			return NotYet("the query parameter " + strconv.Quote(name))
		}
	}
	return nil
}

// Unknown refuses every parameter that was not read.
func (q *Query) Unknown() error {
	for _, name := range q.names {
		if !slices.Contains(q.known, name) {
			return fault.New(fault.BadRequest, "the query parameter %q is not known here", printable(name))
		}
	}
	return nil
}

// NotYet is the refusal of something that the API will have.
func NotYet(what string) error {
	return fault.New(fault.BadRequest, "%s is not supported yet", what)
}

// printable cuts a client's words down to what an answer may repeat.
func printable(s string) string {
	const most = 64
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
