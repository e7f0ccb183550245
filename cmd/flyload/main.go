//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := start(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "flyload:", err)
		os.Exit(1)
	}
}

// start is the load run, or one of the servers that it starts as processes.
func start(args []string) error {
	if len(args) == 3 && args[0] == "floor" {
		return serveFloor(args[1], args[2])
	}
	if len(args) == 3 && args[0] == "mochi" {
		return serveMochi(args[1], args[2])
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return run(ctx, args, os.Stdout, os.Stderr)
}

var errTimeUp = errors.New("the time is up")

func run(ctx context.Context, args []string, out, errw io.Writer) error {
	c, err := parse(args, errw)
	if err != nil {
		return err
	}
	b := &bench{settings: c.settings, env: c.env, loads: c.loads, found: map[string]step{}}
	b.note = func(format string, args ...any) { _, _ = fmt.Fprintf(errw, format+"\n", args...) }
	if b.dir, err = os.MkdirTemp("", "flyload"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	results, err := openResults(c.out)
	if err != nil {
		return err
	}
	defer func() { _ = results.Close() }()
	b.write = func(r record) error { return r.write(results) }
	if b.lanes, err = c.chosen(ctx, b.dir); err != nil {
		return err
	}
	if err := raiseFileLimit(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.limit, errTimeUp)
	defer cancel()
	if b.cores, err = pinCores(c.nice); err != nil {
		return err
	}
	runtime.GOMAXPROCS(max(4, runtime.NumCPU())) // publishers sleep in the kernel
	debug.SetGCPercent(400)                      // the client has memory, and less time
	err = b.all(ctx)
	if len(b.records) > 0 {
		_, writeErr := io.WriteString(out, strings.Join(facts(b), "\n")+"\n\n"+report(b.records)+isolation(b.records))
		err = errors.Join(err, writeErr)
	}
	return err
}

// openResults opens the file that records are appended to; they vanish without
// one.
func openResults(path string) (io.WriteCloser, error) {
	if path == "" {
		path = os.DevNull
	}
	return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // results are no secret
}

// short makes everything shorter, for a look.
func (s *settings) short() {
	s.fixed, s.try, s.settle, s.bisect = time.Second, 600*time.Millisecond, time.Second, 1
	s.stallFor = 15 * time.Second
}
