package config

import (
	"fmt"
	"io"
	"strings"

	"github.com/goccy/go-yaml"
)

// Print writes the whole configuration as a YAML file that Load takes, but for
// secrets, which show as ***.
func (c *Config) Print(w io.Writer) error {
	var b strings.Builder
	var open []string
	for _, k := range keys {
		if k.show == nil {
			continue
		}
		path := strings.Split(k.name, ".")
		sections := path[:len(path)-1]
		for depth, section := range sections {
			if depth < len(open) && open[depth] == section {
				continue
			}
			open = open[:min(depth, len(open))]
			fmt.Fprintf(&b, "%s%s:\n", indent(depth), section)
			open = append(open, section)
		}
		open = open[:len(sections)]
		text, err := flow(k.show(c))
		if err != nil {
			return fmt.Errorf("print %s: %w", k.name, err)
		}
		fmt.Fprintf(&b, "%s%s: %s\n", indent(len(sections)), path[len(path)-1], text)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func indent(depth int) string { return strings.Repeat("  ", depth) }

// flow writes a value on one line.
func flow(v any) (string, error) {
	if list, ok := v.([]string); ok && len(list) == 0 {
		return "[]", nil
	}
	if issuers, ok := v.([]Issuer); ok {
		v = showIssuers(issuers)
	}
	text, err := yaml.MarshalWithOptions(v, yaml.Flow(true))
	return strings.TrimSpace(string(text)), err
}

// showIssuers leaves out what is not set.
func showIssuers(issuers []Issuer) []yaml.MapSlice {
	out := make([]yaml.MapSlice, len(issuers))
	for i, issuer := range issuers {
		entry := yaml.MapSlice{{Key: "issuer", Value: issuer.Issuer}}
		for _, m := range []struct {
			name string
			list []string
		}{{"audience", issuer.Audience}, {"algorithms", issuer.Algorithms}} {
			if len(m.list) > 0 {
				entry = append(entry, yaml.MapItem{Key: m.name, Value: m.list})
			}
		}
		switch {
		case issuer.KeysFile != "":
			entry = append(entry, yaml.MapItem{Key: "keys_file", Value: issuer.KeysFile})
		case issuer.JWKSURL != "":
			entry = append(entry, yaml.MapItem{Key: "jwks_url", Value: issuer.JWKSURL})
		case issuer.OIDC != "":
			entry = append(entry, yaml.MapItem{Key: "oidc", Value: issuer.OIDC})
		default:
			entry = append(entry, yaml.MapItem{Key: "secret", Value: issuer.Secret.String()})
		}
		out[i] = entry
	}
	return out
}
