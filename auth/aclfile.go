package auth

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"flyscreen/gateway/mqtt"
)

// aclFile is a Mosquitto ACL file (mosquitto.conf, acl_file): who may do what, of
// those whose credential says nothing about it itself. It is not changed after
// reading.
type aclFile struct {
	nobody   Grants             // before the first user: clients without a name
	users    map[string]*Grants // by name
	patterns []aclRule          // for everybody
	notes    []string           // what was left out because it has no meaning here
}

// aclRule is one line: what it grants or denies.
type aclRule struct {
	pub, sub, deny bool
	filter         string // with %u in a pattern
}

// nameMark stands for the user's name in a pattern; clientMark for the MQTT
// client's, which there is none of here.
const (
	nameMark   = "%u"
	clientMark = "%c"
)

// readACL reads the content of an ACL file. An error names its line.
func readACL(text []byte) (*aclFile, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("the ACL file is not valid UTF-8")
	}
	f := &aclFile{users: map[string]*Grants{}}
	into := &f.nobody
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxKeysBytes)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		var err error
		switch word {
		case "user":
			into, err = f.user(rest)
		case "topic":
			err = addTopic(into, rest)
		case "pattern":
			err = f.addPattern(n, rest)
		default:
			err = fmt.Errorf("%.40q is neither user, topic nor pattern", word)
		}
		if err != nil {
			return nil, fmt.Errorf("the ACL file, line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("the ACL file: %w", err)
	}
	return f, nil
}

// user returns the rules of a name; one name may have several sections.
func (f *aclFile) user(name string) (*Grants, error) {
	if err := checkSubject(name); err != nil {
		return nil, fmt.Errorf("the user's name %w", err)
	}
	if f.users[name] == nil {
		f.users[name] = &Grants{}
	}
	return f.users[name], nil
}

func addTopic(into *Grants, text string) error {
	rule, err := parseACLRule(text)
	if err != nil {
		return err
	}
	grants, err := rule.grants()
	if err != nil {
		return err
	}
	into.Pub, into.Sub, into.Deny = append(into.Pub, grants.Pub...), append(into.Sub, grants.Sub...), append(into.Deny, grants.Deny...)
	return nil
}

func (f *aclFile) addPattern(line int, text string) error {
	rule, err := parseACLRule(text)
	if err != nil {
		return err
	}
	if strings.Contains(rule.filter, clientMark) {
		if rule.deny {
			return errors.New("denies by %c, the MQTT client's identifier, which clients of this gateway do not have; write the rule with %u")
		}
		f.notes = append(f.notes, fmt.Sprintf("line %d: a pattern with %%c grants nothing, because clients of this gateway have no MQTT client identifier", line))
		return nil
	}
	example := rule
	example.filter = strings.ReplaceAll(rule.filter, nameMark, "name")
	if _, err := example.grants(); err != nil {
		return err
	}
	f.patterns = append(f.patterns, rule)
	return nil
}

// parseACLRule reads what follows "topic" or "pattern": a filter, or an access and
// a filter. A filter may hold spaces only behind an access.
func parseACLRule(text string) (aclRule, error) {
	access, filter, two := strings.Cut(text, " ")
	filter = strings.TrimSpace(filter)
	if !two {
		if text == "" {
			return aclRule{}, errors.New("names no topic")
		}
		return aclRule{pub: true, sub: true, filter: text}, nil
	}
	rule := aclRule{filter: filter}
	switch access {
	case "read":
		rule.sub = true
	case "write":
		rule.pub = true
	case "readwrite":
		rule.pub, rule.sub = true, true
	case "deny":
		rule.deny = true
	default:
		return aclRule{}, fmt.Errorf("%.40q is not read, write, readwrite or deny", access)
	}
	return rule, nil
}

// grants turns a rule whose filter is complete into a list of one.
func (r aclRule) grants() (g Grants, err error) {
	f, err := parseGrant(r.filter, mqtt.Limits{})
	if err != nil {
		return Grants{}, fmt.Errorf("the topic %q %w", r.filter, err)
	}
	one := []mqtt.Filter{f}
	if r.pub {
		g.Pub = one
	}
	if r.sub {
		g.Sub = one
	}
	if r.deny {
		g.Deny = one
	}
	return g, nil
}

// grants returns the rules for a name: its own and the patterns'. A name that
// would change the shape of a pattern is refused, because a rule that cannot be
// applied may be one that denies.
func (f *aclFile) grants(name string) (Grants, error) {
	var all Grants
	if own := f.users[name]; own != nil {
		all = *own
	}
	for _, rule := range f.patterns {
		if strings.Contains(rule.filter, nameMark) {
			if err := checkValue(name); err != nil {
				return Grants{}, err
			}
			if strings.HasPrefix(rule.filter, nameMark) && name[0] == '$' {
				return Grants{}, errors.New(`begins with "$"`)
			}
			rule.filter = strings.ReplaceAll(rule.filter, nameMark, name)
		}
		grants, err := rule.grants()
		if err != nil {
			return Grants{}, err
		}
		all = all.plus(grants)
	}
	return all, nil
}

// forNobody returns the rules for clients without a name, to which patterns
// without a name apply too.
func (f *aclFile) forNobody() Grants {
	all := f.nobody
	for _, rule := range f.patterns {
		if strings.Contains(rule.filter, nameMark) {
			continue
		}
		if grants, err := rule.grants(); err == nil { // checked by readACL
			all = all.plus(grants)
		}
	}
	return all
}

// setACL reads and stores the file.
func (a *Authenticator) setACL(text []byte) error {
	f, err := readACL(text)
	if err != nil {
		return err
	}
	for _, note := range slices.Compact(f.notes) {
		a.log.Warn("a rule of the ACL file is left out", "rule", note)
	}
	a.acl.Store(f)
	return nil
}
