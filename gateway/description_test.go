package gateway_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"flyscreen"
	"flyscreen/gateway"

	"github.com/goccy/go-yaml"
)

// Every route is described, and everything described is a route. The other half,
// that answers are as described, is held over the traffic of the black-box tests.
func TestRoutesAndDescriptionNameTheSame(t *testing.T) {
	var description struct {
		Paths map[string]map[string]any
	}
	if err := yaml.Unmarshal(flyscreen.OpenAPI, &description); err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	for path, operations := range description.Paths {
		for method := range operations {
			switch method {
			case "get", "head", "post", "put", "delete", "patch", "options":
				described[strings.ToUpper(method)+" "+spell(path)] = true
			}
		}
	}
	routed := map[string]bool{}
	for _, r := range gateway.Routes(t) {
		method, path, _ := strings.Cut(r, " ")
		routed[method+" "+spell(path)] = true
	}
	for _, r := range slices.Sorted(maps.Keys(routed)) {
		if !described[r] {
			t.Errorf("not described: %s", r)
		}
	}
	for _, d := range slices.Sorted(maps.Keys(described)) {
		if !routed[d] {
			t.Errorf("described, but no route: %s", d)
		}
	}
}

// spell gives the router's and the description's ways to write a parameter, and
// the page's files, one form.
func spell(path string) string {
	if strings.HasPrefix(path, "/console/") {
		return "/console/{file}"
	}
	if head, found := strings.CutSuffix(path, "/*"); found {
		return head + "/{topic}"
	}
	levels := strings.Split(path, "/")
	for i, level := range levels {
		if parameter, is := strings.CutPrefix(level, ":"); is {
			levels[i] = "{" + parameter + "}"
		}
	}
	return strings.Join(levels, "/")
}
