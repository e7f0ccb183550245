package config

import (
	"errors"
	"fmt"

	"github.com/goccy/go-yaml/ast"
)

// complaint is what a rule says about a value; who called the rule knows the
// key and the place.
type complaint struct {
	reason, fix string
	sub         string // what follows the key: "[0].secret_file"
	line        int    // 0: the line of the key
}

func (c *complaint) Error() string { return c.reason }

// wrong makes a complaint. The fix may be empty.
func wrong(fix, reason string, args ...any) error {
	return &complaint{reason: fmt.Sprintf(reason, args...), fix: fix}
}

// several collects errors.
type several []error

// add keeps err, or what was joined in it; nil is left out.
func (s *several) add(err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		*s = append(*s, joined.Unwrap()...)
	} else if err != nil {
		*s = append(*s, err)
	}
}

func (s several) orNil() error {
	if len(s) == 0 {
		return nil
	}
	return errors.Join(s...)
}

// under places complaints below a key: sub goes before their own place, and
// those without a line get the node's.
func under(sub string, node ast.Node, err error) error {
	var in, out several
	in.add(err)
	for _, e := range in {
		c := asComplaint(e)
		c.sub = sub + c.sub
		if c.line == 0 {
			c.line = line(node)
		}
		out = append(out, &c)
	}
	return out.orNil()
}

// asComplaint copies err's complaint, or makes one of its text.
func asComplaint(err error) complaint {
	var c *complaint
	if errors.As(err, &c) {
		return *c
	}
	return complaint{reason: err.Error()}
}
