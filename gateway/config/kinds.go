package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"flyscreen/gateway/mqtt"
)

type filterList = []mqtt.Filter

// rule checks one text and returns it in the form in which it is kept.
type rule func(string) (string, error)

// text is a key that holds one string; a nil rule takes any.
func text(name string, field func(*Config) *string, check rule) key {
	return key{
		name: name,
		set: func(c *Config, v value) (err error) {
			s := v.text
			if check != nil {
				if s, err = check(s); err != nil {
					return err
				}
			}
			*field(c) = s
			return nil
		},
		show: func(c *Config) any { return *field(c) },
	}
}

// texts is a key that holds a list of strings, each under the same rule.
func texts(name string, field func(*Config) *[]string, check rule) key {
	return key{
		name: name, kind: list,
		set: func(c *Config, v value) (err error) {
			*field(c), err = each(v.list, check)
			return err
		},
		show: func(c *Config) any { return *field(c) },
	}
}

// filters is a key that holds topic filters. They are held to MQTT's own bounds
// here and to the configured ones in cross-checks, when those are known.
func filters(name string, field func(*Config) *filterList) key {
	return key{
		name: name, kind: list,
		set: func(c *Config, v value) (err error) {
			*field(c), err = each(v.list, func(s string) (mqtt.Filter, error) {
				f, err := mqtt.ParseFilter(s, mqtt.Limits{})
				switch {
				case err != nil:
					return "", wrong("write a topic filter such as pets/#", "the filter %q: %v", s, err)
				case strings.HasPrefix(s, "$share/"):
					return "", wrong("leave $share/… out", "the filter %q is a shared subscription, which one stream cannot be", s)
				}
				return f, nil
			})
			return err
		},
		show: func(c *Config) any {
			out := make([]string, len(*field(c)))
			for i, f := range *field(c) {
				out[i] = string(f)
			}
			return out
		},
	}
}

// prefixes is the key of the trusted proxies.
func prefixes(name string) key {
	return key{
		name: name, kind: list,
		set: func(c *Config, v value) (err error) {
			c.HTTP.TrustedProxies, err = each(v.list, proxyPrefix)
			return err
		},
		show: func(c *Config) any {
			out := make([]string, len(c.HTTP.TrustedProxies))
			for i, p := range c.HTTP.TrustedProxies {
				out[i] = p.String()
			}
			return out
		},
	}
}

// proxyPrefix takes 10.0.0.0/8 and a single address alike.
func proxyPrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, addrErr := netip.ParseAddr(s)
		if addrErr != nil || a.Zone() != "" {
			return netip.Prefix{}, wrong("write a range such as 10.0.0.0/8 or an address", "%q is not an address range", s)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Bits() == 0 {
		return netip.Prefix{}, wrong("name your proxies' addresses only", "%q trusts everybody's X-Forwarded-For", s)
	}
	return p.Masked(), nil
}

// each applies check to every element; all complaints are kept.
func each[S, T any](in []S, check func(S) (T, error)) ([]T, error) {
	out := make([]T, 0, len(in))
	var complaints several
	for _, s := range in {
		v, err := check(s)
		if err != nil {
			complaints = append(complaints, err)
			continue
		}
		out = append(out, v)
	}
	return out, complaints.orNil()
}

// secret is the key of the password at the broker, written in the open.
func secret(name string) key {
	return key{
		name: name,
		set: func(c *Config, v value) error {
			c.Upstream.Password = Secret(v.text)
			return nil
		},
		show: func(c *Config) any { return c.Upstream.Password.String() },
	}
}

// secretFile is the key of the file that holds the password at the broker.
func secretFile(name string) key {
	return key{name: name, set: func(c *Config, v value) error {
		if v.text == "" {
			return nil
		}
		s, err := readSecret(v.text)
		if err != nil {
			return err
		}
		c.Upstream.Password = s
		return nil
	}}
}

// contents is a key that names a file whose content counts. What it is good for is
// judged in the room that uses it.
func contents(name string, field func(*Config) *File) key {
	return key{
		name: name,
		set: func(c *Config, v value) error {
			if v.text == "" {
				return nil
			}
			b, err := readFile(v.text)
			if err != nil {
				return err
			}
			*field(c) = File{Path: v.text, Text: append([]byte{}, b...)}
			return nil
		},
		show: func(c *Config) any { return field(c).Path },
	}
}

// boolean is a key that is true or false.
func boolean(name string, field func(*Config) *bool) key {
	return key{
		name: name,
		set: func(c *Config, v value) (err error) {
			*field(c), err = parseBool(v.text)
			return err
		},
		show: func(c *Config) any { return *field(c) },
	}
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, wrong("write true or false", "%q is neither true nor false", s)
}

// count is a limit that counts things.
func count(name string, field func(*Limits) *int, low, high int) key {
	return key{
		name: name,
		set: func(c *Config, v value) error {
			n, err := strconv.Atoi(v.text)
			if err != nil {
				return wrong(fmt.Sprintf("write a number from %d to %d", low, high), "%q is not a whole number", v.text)
			}
			if n < low || n > high {
				return wrong("", "%d is not from %d to %d", n, low, high)
			}
			*field(&c.Limits) = n
			return nil
		},
		show: func(c *Config) any { return *field(&c.Limits) },
	}
}

// size is a limit in bytes.
func size(name string, field func(*Limits) *int, low, high int) key {
	return key{
		name: name,
		set: func(c *Config, v value) error {
			n, err := parseBytes(v.text)
			if err != nil {
				return err
			}
			if n < low || n > high {
				return wrong("", "%s is not from %s to %s", v.text, formatBytes(low), formatBytes(high))
			}
			*field(&c.Limits) = n
			return nil
		},
		show: func(c *Config) any { return formatBytes(*field(&c.Limits)) },
	}
}

// wait is a limit in time.
func wait(name string, field func(*Limits) *time.Duration, low, high time.Duration) key {
	return key{
		name: name,
		set: func(c *Config, v value) error {
			d, err := parseDuration(v.text)
			if err != nil {
				return err
			}
			if d < low || d > high {
				return wrong("", "%s is not from %s to %s", v.text, formatDuration(low), formatDuration(high))
			}
			*field(&c.Limits) = d
			return nil
		},
		show: func(c *Config) any { return formatDuration(*field(&c.Limits)) },
	}
}

// rate is a limit of events a second.
func rate(name string, field func(*Limits) *float64, high float64) key {
	return key{
		name: name,
		set: func(c *Config, v value) error {
			r, err := strconv.ParseFloat(v.text, 64)
			if err != nil || !(r > 0 && r <= high) { // the negation catches NaN too
				return wrong("", "%q is not a number a second above 0 and up to %g", v.text, high)
			}
			*field(&c.Limits) = r
			return nil
		},
		show: func(c *Config) any { return *field(&c.Limits) },
	}
}

// later is a key of the documentation that does nothing yet: only its empty
// value is taken, so that nobody relies on what is not there.
func later(name string, k kind) key {
	return key{name: name, kind: k, set: func(_ *Config, v value) error {
		if v.isEmpty() {
			return nil
		}
		return notYet
	}}
}

// notYet is the complaint about whatever later releases bring.
var notYet = wrong("leave it out or empty", "is not supported yet")

// connections is the key of how many connections to the broker publish.
func connections(name string, high int) key {
	return key{
		name: name,
		set: func(c *Config, v value) error {
			n, err := strconv.Atoi(v.text)
			if err != nil || n < 1 || n > high {
				return wrong(fmt.Sprintf("write a number from 1 to %d", high), "%q is not a number from 1 to %d", v.text, high)
			}
			c.Upstream.Connections = n
			return nil
		},
		show: func(c *Config) any { return c.Upstream.Connections },
	}
}

// outboxBytes is the key of the outbox's size.
func outboxBytes(name string, low, high int) key {
	return key{
		name: name,
		set: func(c *Config, v value) error {
			n, err := parseBytes(v.text)
			if err != nil {
				return err
			}
			if n < low || n > high {
				return wrong("", "%s is not from %s to %s", v.text, formatBytes(low), formatBytes(high))
			}
			c.Outbox.MaxBytes = n
			return nil
		},
		show: func(c *Config) any { return formatBytes(c.Outbox.MaxBytes) },
	}
}

// outboxAge is the key of how long a message may wait in the outbox.
func outboxAge(name string, low, high time.Duration) key {
	return key{
		name: name,
		set: func(c *Config, v value) error {
			d, err := parseDuration(v.text)
			if err != nil {
				return err
			}
			if d < low || d > high {
				return wrong("", "%s is not from %s to %s", v.text, formatDuration(low), formatDuration(high))
			}
			c.Outbox.MaxAge = d
			return nil
		},
		show: func(c *Config) any { return formatDuration(c.Outbox.MaxAge) },
	}
}

func notEmpty(s string) (string, error) {
	if s == "" {
		return "", wrong("", "is empty")
	}
	return s, nil
}

// optional lets the empty text pass.
func optional(check rule) rule {
	return func(s string) (string, error) {
		if s == "" {
			return "", nil
		}
		return check(s)
	}
}

// cookieName checks a name as RFC 6265 section 4.1.1 has it: a token.
func cookieName(s string) (string, error) {
	for _, c := range s {
		if c <= ' ' || c >= 0x7F || strings.ContainsRune(`()<>@,;:\"/[]?={}`, c) {
			return "", wrong("", "%q is no name for a cookie", s)
		}
	}
	return s, nil
}

func oneOf(words ...string) rule {
	return func(s string) (string, error) {
		if slices.Contains(words, s) {
			return s, nil
		}
		return "", wrong("", "%q is not one of %s", s, strings.Join(words, ", "))
	}
}
