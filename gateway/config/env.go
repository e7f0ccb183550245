package config

import (
	"regexp"
	"slices"
	"strings"
)

const envPrefix = "FLYSCREEN_"

// clientVariables belong to the commands that talk to a gateway, and say which
// file to read; they are no settings.
var clientVariables = []string{"FLYSCREEN_URL", "FLYSCREEN_TOKEN", "FLYSCREEN_CONFIG"}

// serviceLinks are what Kubernetes puts into the environment of every pod when a
// service is called "flyscreen". Nobody wrote them, so nobody misspelt them.
var serviceLinks = regexp.MustCompile(`^FLYSCREEN_(SERVICE_(HOST|PORT(_.*)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// readEnv notes what the environment says.
func (l *loader) readEnv(env []string) {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = envName(k.name)
	}
	for _, assignment := range env {
		name, text, _ := strings.Cut(assignment, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(clientVariables, name) || serviceLinks.MatchString(name) {
			continue
		}
		i := slices.Index(names, name)
		switch {
		case i < 0:
			l.problem("", name, unknownVariable(name, names))
		case text != "":
			l.giveText(keys[i], text, name)
		}
	}
}

func unknownVariable(name string, known []string) error {
	if near, ok := nearest(name, append(known, clientVariables...)); ok {
		return wrong("did you mean "+near+"?", "is not a known variable")
	}
	return wrong("unset it; http.listen, for example, is FLYSCREEN_HTTP_LISTEN", "is not a known variable")
}
