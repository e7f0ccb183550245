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
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "flyload:", err)
		os.Exit(1)
	}
}

// command is what the flags say.
type command struct {
	settings
	program string
	target  string
	pids    string
}

func parse(args []string, errw io.Writer) (command, error) {
	var c command
	f := flag.NewFlagSet("flyload", flag.ContinueOnError)
	f.SetOutput(errw)
	f.IntVar(&c.streams, "streams", 1000, "open streams")
	f.IntVar(&c.idle, "idle", 0, "also measure the memory of so many idle streams (such as 10000)")
	f.IntVar(&c.runs, "runs", 3, "runs; the table shows medians")
	f.StringVar(&c.only, "only", "", "measure one `part`: sse, ws, batch or post; empty measures all")
	f.IntVar(&c.payload, "payload", 120, "payload `bytes`")
	f.IntVar(&c.publishers, "connections", 64, "HTTP connections that publish")
	f.Float64Var(&c.rate, "rate", 20000, "fixed rate in `deliveries` a second")
	f.DurationVar(&c.p99, "p99", 100*time.Millisecond, "latency bound of the capacity")
	f.DurationVar(&c.fixed, "fixed", 2*time.Second, "length of a step at the fixed rate")
	f.DurationVar(&c.try, "try", time.Second, "length of a step of the capacity search")
	f.DurationVar(&c.settle, "settle", time.Second, "wait before memory is read")
	f.DurationVar(&c.limit, "limit", 165*time.Second, "time for everything but building; what was measured by then is shown")
	f.StringVar(&c.program, "gateway", "", "`program` to measure; empty builds it")
	f.StringVar(&c.target, "target", "", "JSON `file` of another server that runs already")
	f.StringVar(&c.pids, "pids", "", "with -target: its process `ids`, separated by commas")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	switch {
	case f.NArg() > 0:
		return c, fmt.Errorf("%q: it takes only flags", f.Arg(0))
	case c.streams < 1 || c.streams > 15000 || c.idle < 0 || c.idle > 15000:
		return c, errors.New("-streams must be 1 to 15000, -idle 0 to 15000")
	case c.runs < 1 || c.runs > 20 || c.publishers < 1 || c.publishers > 1000 || c.rate < leastRate || c.rate > mostRate:
		return c, fmt.Errorf("-runs must be 1 to 20, -connections 1 to 1000, -rate %d to %.0f", leastRate, mostRate)
	case c.only != "" && !slices.Contains([]string{"sse", "ws", "batch", "post"}, c.only):
		return c, fmt.Errorf("-only %q: must be sse, ws, batch or post", c.only)
	case (c.target == "") != (c.pids == ""):
		return c, errors.New("-target and -pids go together")
	}
	return c, nil
}

var errTimeUp = errors.New("the time is up")

func run(ctx context.Context, args []string, out, errw io.Writer) error {
	c, err := parse(args, errw)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "flyload")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := &bench{settings: c.settings, program: c.program, dir: dir}
	b.note = func(format string, args ...any) { _, _ = fmt.Fprintf(errw, format+"\n", args...) }
	if c.program == "" && c.target == "" {
		if b.program, err = buildGateway(ctx, dir); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.limit, errTimeUp)
	defer cancel()
	b.cores = pinCores()
	debug.SetGCPercent(400) // the client has memory, and less time
	if c.target != "" {
		err = b.other(ctx, c.target, c.pids)
	} else {
		err = b.gatewayRuns(ctx)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // what failed because of that says less
	}
	if len(b.doors)+len(b.posts) > 0 {
		_, writeErr := io.WriteString(out, b.report())
		err = errors.Join(err, writeErr)
	}
	return err
}

func (b *bench) other(ctx context.Context, file, list string) error {
	t, err := readTarget(file)
	if err != nil {
		return err
	}
	var pids []int
	for part := range strings.SplitSeq(list, ",") {
		pid, err := strconv.Atoi(part)
		if err != nil {
			return fmt.Errorf("-pids %q: must be numbers, separated by commas", list)
		}
		pids = append(pids, pid)
	}
	return b.targetRuns(ctx, t, pids)
}
