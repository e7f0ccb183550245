package gateway_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// vocabulary is what every room may speak.
var vocabulary = []string{"gateway/mqtt", "gateway/fault", "gateway/wire"}

// borders says for each package of the module which others it may import. A
// package that is not here may not exist, and a new one brings its line.
var borders = map[string][]string{
	// Vocabulary: no I/O, and nothing from above.
	"gateway/mqtt":  nil,
	"gateway/fault": nil,
	"gateway/wire":  {"gateway/mqtt", "gateway/fault"},

	// Who are you, what may you.
	"auth": vocabulary,

	// Engines. None knows another, but stream, which joins hub and auth.
	"gateway/internal/broker":   vocabulary,
	"gateway/internal/upstream": vocabulary,
	"gateway/internal/hub":      vocabulary,
	"gateway/internal/stream":   with(vocabulary, "auth", "gateway/internal/hub"),
	"gateway/internal/publish":  with(vocabulary, "auth", "gateway/internal/audit"),
	"gateway/internal/audit":    with(vocabulary, "auth"),
	"gateway/internal/line":     nil,
	"gateway/internal/outbox":   vocabulary,

	// Doors. None knows another.
	"gateway/internal/api": with(door, "gateway/internal/outbox"),
	"gateway/internal/sse": with(door, "gateway/internal/line"),
	"gateway/internal/ws":  with(door, "gateway/internal/line"),

	// What holds the rooms together. Only these read the configuration.
	"gateway/config": {"gateway/mqtt"},
	"gateway": with(door, "", "web", "gateway/config", "gateway/internal/broker", "gateway/internal/upstream", "gateway/internal/outbox",
		"gateway/internal/api", "gateway/internal/sse", "gateway/internal/ws"),
	"gateway/gatewaytest": {"auth", "gateway", "gateway/config"},
	"cmd/flyscreen":       with(vocabulary, "auth", "gateway", "gateway/config"),

	// On their own: the description of the API, the page, the tools of the tests.
	"":                              nil,
	"web":                           nil,
	"cmd/flyload":                   nil,
	"cmd/flyscreen/blackbox":        nil,
	"cmd/flyscreen/faults":          nil,
	"gateway/gatewaytest/mosquitto": nil,
}

var door = with(vocabulary, "auth", "gateway/internal/audit", "gateway/internal/stream", "gateway/internal/hub", "gateway/internal/publish")

// homes says for each foreign module where it may be imported, so that one room
// has to change when it does.
var homes = map[string][]string{
	"github.com/labstack/echo/v4":         {"gateway", "gateway/internal/api"},
	"github.com/coder/websocket":          {"gateway/internal/ws", "gateway/internal/upstream"}, // the latter dials ws://
	"github.com/eclipse/paho.mqtt.golang": {"gateway/internal/upstream", "cmd/flyscreen"},       // the latter plays the demo's devices
	"github.com/golang-jwt/jwt/v5":        {"auth"},
	"github.com/mochi-mqtt/server/v2":     {"gateway/internal/broker", "cmd/flyload"}, // the latter measures it as a peer
	"github.com/goccy/go-yaml":            {"gateway/config"},
	"github.com/spf13/cobra":              {"cmd/flyscreen"},
	"golang.org/x/term":                   {"cmd/flyscreen"},
	"golang.org/x/time":                   {"gateway/internal/publish", "gateway/internal/upstream", "gateway/internal/audit"},
	"github.com/prometheus/client_golang": {"auth", "gateway", "gateway/internal/broker", "gateway/internal/upstream", "gateway/internal/hub", "gateway/internal/stream", "gateway/internal/publish", "gateway/internal/outbox"},
	"go.etcd.io/bbolt":                    {"gateway/internal/outbox"},
}

// TestBorders reads the imports of every source file that is not a test. It
// parses them itself: the test cache does not see what "go list" reads, so a test
// that runs it may stay green.
func TestBorders(t *testing.T) {
	found := map[string]bool{}
	for file, imports := range sources(t, "..") {
		dir := path.Dir(file)
		if dir == "." {
			dir = ""
		}
		found[dir] = true
		allowed, known := borders[dir]
		if !known {
			t.Errorf("%s: the package %q has no line in the table of borders", file, dir)
			continue
		}
		for _, name := range imports {
			if complaint := judge(dir, allowed, name); complaint != "" {
				t.Errorf("%s imports %s: %s", file, name, complaint)
			}
		}
	}
	for dir := range borders {
		if !found[dir] {
			t.Errorf("the table of borders names the package %q, which has no source files", dir)
		}
	}
}

// judge says what is wrong with an import by the package in dir; "" is nothing.
func judge(dir string, allowed []string, name string) string {
	if local, ours := strings.CutPrefix(name+"/", "flyscreen/"); ours {
		if !slices.Contains(allowed, strings.TrimSuffix(local, "/")) {
			return "that is beyond this package's borders"
		}
		return ""
	}
	if first, _, _ := strings.Cut(name, "/"); !strings.Contains(first, ".") {
		return "" // the standard library
	}
	for module, rooms := range homes {
		if name == module || strings.HasPrefix(name, module+"/") {
			if !slices.Contains(rooms, dir) {
				return "the library's home is " + strings.Join(rooms, ", ")
			}
			return ""
		}
	}
	return "the library has no line in the table of homes"
}

// TestBordersCanFail shows each kind of complaint beside an import that is fine.
func TestBordersCanFail(t *testing.T) {
	for _, c := range []struct{ dir, good, bad string }{
		{"gateway/internal/ws", "flyscreen/gateway/internal/stream", "flyscreen/gateway/internal/sse"},
		{"gateway/internal/hub", "flyscreen/gateway/mqtt", "flyscreen/gateway/internal/upstream"},
		{"gateway/internal/hub", "context", "flyscreen"},
		{"gateway/internal/upstream", "github.com/eclipse/paho.mqtt.golang/packets", "github.com/mochi-mqtt/server/v2"},
		{"gateway/config", "github.com/goccy/go-yaml/ast", "gopkg.in/yaml.v3"},
	} {
		if complaint := judge(c.dir, borders[c.dir], c.good); complaint != "" {
			t.Errorf("%s may not import %s: %s", c.dir, c.good, complaint)
		}
		if judge(c.dir, borders[c.dir], c.bad) == "" {
			t.Errorf("%s may import %s", c.dir, c.bad)
		}
	}
}

// sources returns the imports of every Go file below root that is not a test, by
// the file's path from there.
func sources(t *testing.T, root string) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		local, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if base := entry.Name(); local != "." && (strings.HasPrefix(base, ".") || base == "node_modules" || base == "testdata") {
				return fs.SkipDir // not part of the module: go build passes them by, too
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		imports := []string{}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports = append(imports, imported)
		}
		all[filepath.ToSlash(local)] = imports
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func with(some []string, more ...string) []string { return slices.Concat(some, more) }
