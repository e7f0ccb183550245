package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// Sources is where a configuration comes from. Flags beat Env beats File beats
// the built-in defaults, key by key.
type Sources struct {
	// File is the path of a YAML file; "" is none.
	File string
	// Env holds NAME=value as os.Environ gives them; only names that begin with
	// FLYSCREEN_ count, and an empty value is as good as none.
	Env []string
	// Flags maps keys to what the command line says. Several values of one key
	// are separated by commas.
	Flags map[string]string
}

// commandLine is the place of what came in Sources.Flags.
const commandLine = "command line"

// value is what one source says about a key, and where.
type value struct {
	text string   // of a scalar
	list []string // of a list
	node ast.Node // of a document
	file string
	line int
}

func (v value) isEmpty() bool {
	nodes, err := elements(v.node)
	return v.text == "" && len(v.list) == 0 && len(nodes) == 0 && err == nil
}

// loader gathers values and problems. given holds for each key the value of the
// strongest source.
type loader struct {
	given    map[string]value
	problems []Problem
}

// Load reads and checks a configuration. The error is a *Problems with all that
// is wrong. Load writes nothing; files that the configuration names are read.
func Load(s Sources) (*Config, error) {
	l := &loader{given: map[string]value{}}
	l.readFile(s.File)
	l.readEnv(s.Env)
	l.readFlags(s.Flags)
	c := Default()
	for _, k := range keys {
		if v, ok := l.given[k.name]; ok {
			l.complain(k.name, k.set(c, v))
		}
	}
	l.check(c)
	if len(l.problems) > 0 {
		slices.SortStableFunc(l.problems, func(a, b Problem) int {
			return cmp.Or(cmp.Compare(rank(a, s.File), rank(b, s.File)), cmp.Compare(a.Line, b.Line))
		})
		return nil, &Problems{List: l.problems}
	}
	return c, nil
}

// rank sorts problems by source.
func rank(p Problem, file string) int {
	switch p.File {
	case "":
		return 3
	case file:
		return 0
	case commandLine:
		return 2
	}
	return 1
}

// complain turns err into problems of key, placed where its value stands.
func (l *loader) complain(key string, err error) {
	var all several
	all.add(err)
	at := l.given[key]
	for _, e := range all {
		c := asComplaint(e)
		p := Problem{Key: key + c.sub, Reason: c.reason, Fix: c.fix, File: at.file, Line: at.line}
		if c.line > 0 && at.line > 0 {
			p.Line = c.line
		}
		l.problems = append(l.problems, p)
	}
}

// give notes a key's value. A secret and the file that holds it are one setting:
// the stronger source's way of saying it wins.
func (l *loader) give(key string, v value) {
	for _, pair := range secretPairs {
		if key != pair[0] && key != pair[1] {
			continue
		}
		other := pair[0]
		if key == other {
			other = pair[1]
		}
		if o, ok := l.given[other]; ok && rankOf(o) != rankOf(v) {
			delete(l.given, other)
		}
	}
	l.given[key] = v
}

// secretPairs are the keys that say the same thing in two ways.
var secretPairs = [][2]string{{"upstream.password", "upstream.password_file"}}

// rankOf tells sources apart.
func rankOf(v value) string {
	if strings.HasPrefix(v.file, envPrefix) && v.line == 0 {
		return envPrefix
	}
	return v.file
}

// readFile takes a YAML file apart into keys.
func (l *loader) readFile(path string) {
	if path == "" {
		return
	}
	fail := func(err error) {
		c := asComplaint(err)
		l.problems = append(l.problems, Problem{Reason: c.reason, Fix: c.fix, File: path, Line: c.line})
	}
	text, err := readFile(path)
	if err != nil {
		c := asComplaint(err)
		l.problems = append(l.problems, Problem{Key: "--config", Reason: c.reason, Fix: c.fix, File: commandLine})
		return
	}
	root, err := parseYAML(text)
	if err != nil {
		fail(err)
		return
	}
	if root != nil {
		l.readSection("", member{node: root, line: 1}, path)
	}
}

// readSection notes the keys below a section; name is "" for the whole file.
func (l *loader) readSection(name string, section member, path string) {
	prefix := name
	if name != "" {
		prefix += "."
	}
	report := func(err error, key string) {
		var all several
		all.add(under("", section.node, err))
		for _, e := range all {
			c := asComplaint(e)
			l.problems = append(l.problems, Problem{Key: strings.TrimPrefix(key+c.sub, "."), Reason: c.reason, Fix: c.fix, File: path, Line: c.line})
		}
	}
	members, err := mapping(section.node, children(name))
	report(err, name)
	for _, m := range members {
		key := prefix + m.name
		if k, ok := byName(key); ok {
			v, err := fileValue(k, m)
			v.file, v.line = path, m.line
			if err != nil {
				report(under("", m.node, err), key)
				continue
			}
			l.give(key, v)
		} else {
			l.readSection(key, m, path)
		}
	}
}

// fileValue reads a node in the shape that the key wants.
func fileValue(k key, m member) (v value, err error) {
	switch k.kind {
	case scalar:
		v.text, err = scalarText(m.node)
	case list:
		v.list, err = listTexts(m.node)
	case document:
		v.node = m.node
		_, err = elements(m.node)
	}
	return v, err
}

// children lists the names that may stand directly below a section, in order.
func children(section string) []string {
	var names []string
	for _, k := range keys {
		rest := k.name
		if section != "" {
			var below bool
			if rest, below = strings.CutPrefix(k.name, section+"."); !below {
				continue
			}
		}
		name, _, _ := strings.Cut(rest, ".")
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// textValue reads what the environment or a flag says.
func textValue(k key, text string) (v value, err error) {
	switch k.kind {
	case scalar:
		v.text = text
	case list:
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				v.list = append(v.list, part)
			}
		}
	case document:
		if v.node, err = parseYAML([]byte(text)); err == nil {
			_, err = elements(v.node)
		}
	}
	return v, err
}

// readFlags notes what the command line says.
func (l *loader) readFlags(flags map[string]string) {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	for _, name := range sorted(flags) {
		k, ok := byName(name)
		if !ok {
			l.problem(name, commandLine, unknownKey(name, names))
			continue
		}
		l.giveText(k, flags[name], commandLine)
	}
}

// giveText notes a key's value that came as text.
func (l *loader) giveText(k key, text, from string) {
	v, err := textValue(k, text)
	v.file = from
	if err != nil {
		l.problem(k.name, from, err)
		return
	}
	l.give(k.name, v)
}

// problem notes a complaint from a source without lines.
func (l *loader) problem(key, file string, err error) {
	c := asComplaint(err)
	l.problems = append(l.problems, Problem{Key: key, Reason: c.reason, Fix: c.fix, File: file})
}

// unknownKey is unknown for whole names, of which there are too many to list.
func unknownKey(name string, known []string) error {
	if near, ok := nearest(name, known); ok {
		return wrong("did you mean "+near+"?", "is not a known key")
	}
	return wrong(fmt.Sprintf("see flyscreen check --print for all %d", len(known)), "is not a known key")
}

func sorted(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
