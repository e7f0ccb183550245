package blackbox_test

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// longestLine is more than any line a client prints: a message of 256 KiB as
// base64 with everything in it escaped.
const longestLine = 8 << 20

// lines collects what a process prints, for waiting on. Safe for concurrent use.
type lines struct {
	mu      sync.Mutex
	all     []string
	changed chan struct{} // closed and replaced with every change
	ended   bool
}

func newLines() *lines { return &lines{changed: make(chan struct{})} }

// collect reads r to its end.
func (l *lines) collect(r io.Reader) {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), longestLine)
	for s.Scan() {
		l.change(func() { l.all = append(l.all, s.Text()) })
	}
	l.change(func() { l.ended = true })
}

func (l *lines) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *lines) snapshot() (all []string, ended bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clip(l.all), l.ended, l.changed
}

// await waits until done says so of the lines so far, or fails the test.
func (l *lines) await(t *testing.T, what string, done func(all []string) bool) []string {
	t.Helper()
	limit := time.After(patience)
	for {
		all, ended, changed := l.snapshot()
		if done(all) {
			return all
		}
		if ended {
			t.Fatalf("%s: the output ended before:\n%s", what, tail(all))
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("%s: not within %v:\n%s", what, patience, tail(all))
		}
	}
}

// tail is the end of all, short enough for a test's output.
func tail(all []string) string {
	from := max(0, len(all)-15)
	out := make([]string, 0, len(all)-from)
	for _, line := range all[from:] {
		if len(line) > 200 {
			line = line[:200] + "…"
		}
		out = append(out, "    "+line)
	}
	return strings.Join(out, "\n")
}

// process is a running program of which stdout and stderr are collected.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	out    *lines
	log    *lines        // stderr
	exited chan struct{} // closed when the program has ended and all it printed was read
	err    error         // how it ended; valid after exited
}

// launch starts a program that ends with the test at the latest.
func launch(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	p, err := startProcess(env, name, args...)
	if err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	t.Cleanup(p.kill)
	return p
}

func startProcess(env []string, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), out: newLines(), log: newLines(), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	stdin, err1 := p.cmd.StdinPipe()
	stdout, err2 := p.cmd.StdoutPipe()
	stderr, err3 := p.cmd.StderrPipe()
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	p.stdin = stdin
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	var readers sync.WaitGroup
	readers.Go(func() { p.out.collect(stdout) })
	readers.Go(func() { p.log.collect(stderr) })
	go func() {
		readers.Wait()
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// kill ends the program as kill -9 does and waits for it.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	<-p.exited
}

// terminate asks the program to end.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("SIGTERM: %v", err)
	}
}

// wait waits for the end and returns the exit code.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("%s is still running after %v", p.cmd.Path, patience)
		return -1
	}
}

// send writes a line to the program's standard input.
func (p *process) send(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		t.Fatalf("writing to %s: %v", p.cmd.Path, err)
	}
}

// command runs a program to its end and returns what it printed on stdout. It
// fails the test unless the program succeeds.
func command(t *testing.T, stdin []byte, name string, args ...string) string {
	t.Helper()
	p := launch(t, nil, name, args...)
	if _, err := p.stdin.Write(stdin); err != nil {
		t.Fatalf("writing to %s: %v", name, err)
	}
	if err := p.stdin.Close(); err != nil {
		t.Fatalf("closing the input of %s: %v", name, err)
	}
	code := p.wait(t)
	out, _, _ := p.out.snapshot()
	log, _, _ := p.log.snapshot()
	if code != 0 {
		t.Fatalf("%s %s: exit code %d\n%s\n%s", name, strings.Join(args, " "), code, tail(out), tail(log))
	}
	return strings.Join(out, "\n")
}
