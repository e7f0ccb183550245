package main

import (
	"encoding/base64"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"flyscreen": main})
}

// patience is how long await and grow try; only a broken program needs it.
const patience = 60 * time.Second

// TestScripts runs the program as people do: testdata/script holds command lines
// and what they must answer.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", "atexit_sleep_ms=0") // or each call takes a second more with -race
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     exits,
			"await":     await,
			"freeport":  freeports,
			"screen":    screen,
			"claims":    claims,
			"exported":  exported,
			"terminate": terminate,
		},
	})
}

// exits CODE COMMAND... runs a command that must end with that exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// await COMMAND... repeats a command until it succeeds.
func await(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(patience); ; {
		err := ts.Exec(args[0], args[1:]...)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("still failing after %s: %v", patience, err)
		}
		time.Sleep(20 * time.Millisecond) // between tries; the condition decides
	}
}

// freeport NAME... sets variables to addresses whose ports are free.
func freeports(ts *testscript.TestScript, _ bool, names []string) {
	for _, name := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		defer func() { _ = l.Close() }() // not before all are chosen, or two could be the same
		ts.Setenv(name, l.Addr().String())
	}
}

// screen FILE checks that a text fits a terminal of 80 to 110 columns.
func screen(ts *testscript.TestScript, _ bool, args []string) {
	lines := strings.Split(strings.TrimRight(ts.ReadFile(args[0]), "\n"), "\n")
	if len(lines) > 26 || len(lines) < 4 {
		ts.Fatalf("the text has %d lines, want 4 to 26", len(lines))
	}
	for _, line := range lines {
		if len([]rune(line)) > 112 {
			ts.Fatalf("the line is too long: %s", line)
		}
	}
}

// claims FILE OUT writes the claims of the token in FILE.
func claims(ts *testscript.TestScript, _ bool, args []string) {
	parts := strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), ".")
	if len(parts) != 3 {
		ts.Fatalf("%d parts, want 3", len(parts))
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), text, 0o600))
}

// exported FILE waits for lines "export NAME=value" in a file that a program is
// writing, and sets those variables.
func exported(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Clean(path))
		if err == nil && strings.Contains(string(text), "Ctrl-C") { // its last line
			for line := range strings.Lines(string(text)) {
				if assignment, ok := strings.CutPrefix(strings.TrimSpace(line), "export "); ok {
					name, value, _ := strings.Cut(assignment, "=")
					ts.Setenv(name, value)
				}
			}
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("nothing exported in %s after %s", path, patience)
		}
	}
}

// terminate ARGUMENT sends SIGTERM, which kill does not know, to the background
// command that has this argument.
func terminate(ts *testscript.TestScript, _ bool, args []string) {
	for _, cmd := range ts.BackgroundCmds() {
		if slices.Contains(cmd.Args, args[0]) {
			ts.Check(cmd.Process.Signal(syscall.SIGTERM))
			return
		}
	}
	ts.Fatalf("no background command has the argument %q", args[0])
}
