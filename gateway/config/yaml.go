package config

import (
	"errors"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// parseYAML parses one document. A nil node is an empty document.
func parseYAML(text []byte) (ast.Node, error) {
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	var syntax *yaml.SyntaxError
	switch {
	case errors.As(err, &syntax):
		c := &complaint{reason: "is not valid YAML: " + syntax.Message, fix: "check the indentation, colons and quotes there"}
		if syntax.Token != nil && syntax.Token.Position != nil {
			c.line = syntax.Token.Position.Line
		}
		return nil, c
	case err != nil:
		return nil, wrong("", "is not valid YAML: %v", err)
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil || doc.Body.Type() == ast.CommentType || doc.Body.Type() == ast.NullType:
		case body != nil:
			return nil, &complaint{reason: "holds more than one YAML document", fix: "leave out the lines with ---", line: line(doc.Body)}
		default:
			body = doc.Body
		}
	}
	return body, nil
}

// member is one entry of a mapping.
type member struct {
	name string
	node ast.Node
	line int
}

// mapping reads node as a mapping and checks its names, if known is not nil.
// Members that are null count as left out. What it returns beside an error are
// the members that are fine.
func mapping(node ast.Node, known []string) ([]member, error) {
	var entries []*ast.MappingValueNode
	switch n := bare(node).(type) {
	case *ast.MappingNode:
		entries = n.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{n}
	case *ast.NullNode, nil:
		return nil, nil
	default:
		return nil, wrong("write names with values under it", "is not a mapping")
	}
	var members []member
	var complaints several
	for _, entry := range entries {
		m, err := readMember(entry)
		switch {
		case err != nil:
			complaints.add(err)
		case slices.ContainsFunc(members, func(o member) bool { return o.name == m.name }):
			complaints.add(under("."+m.name, entry.Key, wrong("keep one of the two", "is given twice")))
		case known != nil && !slices.Contains(known, m.name):
			complaints.add(under("."+m.name, entry.Key, unknown(m.name, known)))
		case m.node != nil:
			members = append(members, m)
		}
	}
	return members, complaints.orNil()
}

func readMember(entry *ast.MappingValueNode) (member, error) {
	if entry.Key.IsMergeKey() {
		return member{}, under("", entry.Key, noAlias)
	}
	name, err := scalarText(entry.Key)
	if err != nil {
		return member{}, under("", entry.Key, err)
	}
	m := member{name: name, node: entry.Value, line: line(entry.Key)}
	if m.node != nil && m.node.Type() == ast.NullType {
		m.node = nil
	}
	return m, nil
}

// unknown is the complaint about a name that is not one of known.
func unknown(name string, known []string) error {
	if near, ok := nearest(name, known); ok {
		return wrong("did you mean "+near+"?", "is not a known key")
	}
	return wrong("the keys here are "+strings.Join(known, ", "), "is not a known key")
}

// noAlias keeps values where they are read; it also rules out documents that
// grow without bound when they are expanded.
var noAlias = wrong("write the value out", "uses a YAML alias or merge key, which configuration files may not")

// bare takes a node out of its anchor or tag.
func bare(node ast.Node) ast.Node {
	for {
		switch n := node.(type) {
		case *ast.AnchorNode:
			node = n.Value
		case *ast.TagNode:
			node = n.Value
		default:
			return node
		}
	}
}

// elements reads node as a list. No node is an empty list.
func elements(node ast.Node) ([]ast.Node, error) {
	switch n := bare(node).(type) {
	case *ast.SequenceNode:
		return n.Values, nil
	case *ast.NullNode, nil:
		return nil, nil
	}
	return nil, wrong("write it as [a, b] or as lines that begin with -", "is not a list")
}

// scalarText reads node as one value, as it is written.
func scalarText(node ast.Node) (string, error) {
	switch n := bare(node).(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.LiteralNode:
		return n.Value.Value, nil
	case *ast.NullNode, nil:
		return "", nil
	case *ast.AliasNode:
		return "", noAlias
	case *ast.MappingKeyNode:
		return scalarText(n.Value)
	case *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode:
		return "", wrong("", "is not a single value")
	}
	return node.GetToken().Value, nil
}

// listTexts reads node as a list of single values.
func listTexts(node ast.Node) ([]string, error) {
	nodes, err := elements(node)
	if err != nil {
		return nil, err
	}
	return each(nodes, scalarText)
}

// line is where a node stands, counted from 1.
func line(node ast.Node) int {
	if node == nil || node.GetToken() == nil || node.GetToken().Position == nil {
		return 0
	}
	return node.GetToken().Position.Line
}
