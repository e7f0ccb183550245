package mqtt

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxBytes is the longest topic or filter that MQTT can carry (3.1.1 section
// 1.5.3: a string's length is two bytes). Clients cut longer ones silently.
const MaxBytes = 65535

// Limits bounds what ParseTopic and ParseFilter accept. Zero means MQTT's own
// bound for Bytes and no bound for Levels.
type Limits struct {
	Bytes  int
	Levels int
}

// Topic is a topic name: no wildcards, checked by ParseTopic. A Topic that came
// from the broker is not checked again.
type Topic string

// Filter is a topic filter, checked by ParseFilter.
type Filter string

// ParseTopic checks s as the name of a topic to publish to. The rules are
// stricter than MQTT's where a broker is known to drop the connection: no
// control characters and no non-characters (3.1.1 section 1.5.3 allows a
// receiver to close on them, and the connection is shared by everybody).
func ParseTopic(s string, limits Limits) (Topic, error) {
	if err := checkString(s, limits); err != nil {
		return "", err
	}
	if i := strings.IndexAny(s, "+#"); i >= 0 {
		return "", fmt.Errorf("holds the wildcard %q, which only filters may", s[i])
	}
	return Topic(s), nil
}

// ParseFilter checks s as a topic filter (3.1.1 section 4.7.1): "#" only as the
// whole last level, "+" only as a whole level, and ParseTopic's characters.
func ParseFilter(s string, limits Limits) (Filter, error) {
	if err := checkString(s, limits); err != nil {
		return "", err
	}
	for rest, more := s, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		switch {
		case level == "#" && more:
			return "", errors.New(`"#" must be the last level`)
		case level == "#" || level == "+":
		case strings.ContainsAny(level, "+#"):
			return "", fmt.Errorf("the level %q mixes a wildcard with other characters", level)
		}
	}
	return Filter(s), nil
}

// checkString holds what topics and filters have in common.
func checkString(s string, limits Limits) error {
	if limits.Bytes <= 0 || limits.Bytes > MaxBytes {
		limits.Bytes = MaxBytes
	}
	if s == "" {
		return errors.New("is empty")
	}
	if len(s) > limits.Bytes {
		return fmt.Errorf("has %d bytes, more than %d", len(s), limits.Bytes)
	}
	if !utf8.ValidString(s) {
		return errors.New("is not valid UTF-8")
	}
	for _, r := range s {
		if forbidden(r) {
			return fmt.Errorf("holds the character U+%04X, which brokers refuse", r)
		}
	}
	if levels := strings.Count(s, "/") + 1; limits.Levels > 0 && levels > limits.Levels {
		return fmt.Errorf("has %d levels, more than %d", levels, limits.Levels)
	}
	return nil
}

// forbidden reports control characters (C0, DEL, C1) and Unicode's
// non-characters; surrogates cannot occur in valid UTF-8.
func forbidden(r rune) bool {
	return r < 0x20 || r >= 0x7F && r <= 0x9F || r >= 0xFDD0 && r <= 0xFDEF || r&0xFFFE == 0xFFFE
}

// IsDollar reports whether t is in the part of the tree that wildcards do not
// reach (3.1.1 section 4.7.2).
func (t Topic) IsDollar() bool { return strings.HasPrefix(string(t), "$") }
