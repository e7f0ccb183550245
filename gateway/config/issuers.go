package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// algorithms that an issuer may list; the value is how long a secret for it must
// be in bytes (RFC 7518 section 3.2), 0 for those with a key pair.
var algorithms = map[string]int{
	"HS256": 32, "HS384": 48, "HS512": 64,
	"RS256": 0, "RS384": 0, "RS512": 0, "PS256": 0, "PS384": 0, "PS512": 0,
	"ES256": 0, "ES384": 0, "ES512": 0, "EdDSA": 0,
}

// issuerMembers in the order of the documentation.
var issuerMembers = []string{"issuer", "audience", "algorithms", "secret", "secret_file", "keys_file", "jwks_url", "oidc"}

// issuers is the key of the list of token issuers.
func issuers(name string) key {
	return key{
		name: name, kind: document,
		set: func(c *Config, v value) error {
			nodes, err := elements(v.node)
			if err != nil {
				return err
			}
			var complaints several
			c.Auth.Issuers = nil
			for i, node := range nodes {
				issuer, err := parseIssuer(node)
				complaints.add(under(fmt.Sprintf("[%d]", i), node, err))
				c.Auth.Issuers = append(c.Auth.Issuers, issuer)
			}
			complaints.add(sameIssuer(c.Auth.Issuers, nodes))
			return complaints.orNil()
		},
		show: func(c *Config) any { return c.Auth.Issuers },
	}
}

// parseIssuer reads one entry; what it returns beside an error only tells later
// checks that there is an entry.
func parseIssuer(node ast.Node) (Issuer, error) {
	members, err := mapping(node, issuerMembers)
	var complaints several
	complaints.add(err)
	var issuer Issuer
	for _, m := range members {
		complaints.add(under("."+m.name, m.node, issuer.set(m)))
	}
	if err == nil {
		complaints.add(issuer.check(members))
	}
	return issuer, complaints.orNil()
}

// set stores one member.
func (i *Issuer) set(m member) (err error) {
	switch m.name {
	case "issuer":
		i.Issuer, err = scalarText(m.node)
	case "audience":
		i.Audience, err = listTexts(m.node)
	case "algorithms":
		i.Algorithms, err = listTexts(m.node)
		if err == nil {
			_, err = each(i.Algorithms, algorithm)
		}
	case "secret":
		var s string
		s, err = scalarText(m.node)
		i.Secret = Secret(s)
	case "secret_file":
		err = withFile(m.node, func(path string) (err error) {
			i.SecretFile = path
			i.Secret, err = readSecret(path)
			return err
		})
	case "keys_file":
		err = withFile(m.node, func(path string) (err error) {
			i.KeysFile = path
			i.Keys, err = readKeys(path)
			return err
		})
	case "jwks_url":
		i.JWKSURL, err = keyURL(m.node)
	case "oidc":
		if i.OIDC, err = keyURL(m.node); i.Issuer == "" {
			i.Issuer = i.OIDC // the provider signs under its URL
		}
	}
	return err
}

// keyURL reads the address of a key server. Whoever can change what comes from
// there can sign any token.
func keyURL(node ast.Node) (string, error) {
	const example = "write https://id.example.com/…"
	s, err := scalarText(node)
	if err != nil || s == "" {
		return "", err
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return "", wrong(example, "%s is not an https URL", quoteURL(s))
	case u.User != nil:
		return "", wrong("leave it out: keys are public", "holds a user name or password, which would show up in logs")
	case u.Fragment != "":
		return "", wrong("leave out what follows #", "has a fragment")
	case u.Scheme == "http" && !isLoopback(net.JoinHostPort(u.Hostname(), "80")):
		return "", wrong(example, "%q is without TLS, so that anybody on the way could put keys of his own in", s)
	}
	return s, nil
}

// withFile calls read with the path in node, unless that is empty.
func withFile(node ast.Node, read func(path string) error) error {
	path, err := scalarText(node)
	if err != nil || path == "" {
		return err
	}
	return read(path)
}

// readKeys reads a keys file; what the keys are good for is judged where tokens
// are checked.
func readKeys(path string) ([]byte, error) {
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	text := strings.TrimSpace(string(b))
	if !strings.HasPrefix(text, "{") && !strings.Contains(text, "-----BEGIN ") {
		return nil, wrong("put a PEM public key or a JWKS document there", "the file %s holds neither", path)
	}
	if strings.Contains(text, "PRIVATE KEY-----") {
		return nil, wrong("export the public key with openssl pkey -pubout", "the file %s holds a private key, which the gateway must not have", path)
	}
	return b, nil
}

func algorithm(s string) (string, error) {
	if _, known := algorithms[s]; !known {
		return "", wrong("write names such as HS256, RS256, PS256, ES256 or EdDSA", "%q is not a signature algorithm that is allowed", s)
	}
	return s, nil
}

// sources are the members of which an issuer has one.
var sources = []string{"secret", "secret_file", "keys_file", "jwks_url", "oidc"}

// check judges what the members say together.
func (i *Issuer) check(members []member) error {
	var given []string
	for _, m := range members {
		if text, err := scalarText(m.node); err == nil && text != "" && slices.Contains(sources, m.name) {
			given = append(given, m.name)
		}
	}
	switch {
	case len(given) == 0:
		return wrong("add oidc, jwks_url, keys_file or secret_file", "has neither a secret nor keys to check tokens with")
	case len(given) > 1:
		return wrong("keep one of them", "has %s at once", strings.Join(given, " and "))
	}
	var complaints several
	if i.OIDC != "" && i.Issuer != i.OIDC {
		complaints.add(wrong("leave issuer out", "the issuer %q is not the provider %q, which signs under its own URL", i.Issuer, i.OIDC))
	}
	for _, name := range i.Algorithms {
		need, known := algorithms[name]
		switch {
		case !known:
		case i.Secret != "" && need == 0:
			complaints.add(wrong("list HS256, HS384 or HS512, or use keys", "the algorithm %s needs keys, and this issuer has a secret", name))
		case given[0] != "secret" && given[0] != "secret_file" && need > 0:
			complaints.add(wrong("take it out of algorithms: a public key is no secret", "the algorithm %s needs a secret, and this issuer has keys", name))
		}
	}
	complaints.add(i.checkLength())
	return complaints.orNil()
}

// checkLength holds the secret to the longest of the listed algorithms.
func (i *Issuer) checkLength() error {
	if i.Secret == "" {
		return nil
	}
	need := algorithms["HS256"]
	for _, name := range i.Algorithms {
		need = max(need, algorithms[name])
	}
	if len(i.Secret) < need {
		return wrong("make one with: openssl rand -hex "+fmt.Sprint(need), "the secret has %d bytes, fewer than %d, and could be guessed", len(i.Secret), need)
	}
	return nil
}

// sameIssuer finds entries that could never be chosen.
func sameIssuer(issuers []Issuer, nodes []ast.Node) error {
	var complaints several
	for i := range issuers {
		for j := range i {
			if issuers[i].Issuer == issuers[j].Issuer {
				complaints.add(under(fmt.Sprintf("[%d]", i), nodes[i],
					wrong("merge the two", "has the same issuer, %q, as entry [%d], which takes all its tokens", issuers[i].Issuer, j)))
				break
			}
		}
	}
	return complaints.orNil()
}
