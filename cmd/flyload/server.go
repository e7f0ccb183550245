//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startTime = 15 * time.Second
	stopTime  = 10 * time.Second
)

// server is a running server under test.
type server struct {
	target  target
	parts   []*process // its processes; the first one is measured
	helpers []*process // processes in the path that are not measured, such as a broker
	workers []int      // processes that the first one started
	// page is host:port of a gateway's HTTP, for its metrics and profiles; empty
	// for other servers.
	page string
}

// awaited returns s when its first process is ready, or stops it.
func awaited(ctx context.Context, s *server, ready func() bool) (*server, error) {
	if err := s.parts[0].await(ctx, ready); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// pids are the processes that are measured.
func (s *server) pids() (list []int) {
	for _, p := range s.parts {
		list = append(list, p.pid())
	}
	return append(list, s.workers...)
}

// helperPids are the processes whose CPU time is neither the server's nor noise.
func (s *server) helperPids() (list []int) {
	for _, p := range s.helpers {
		list = append(list, p.pid())
	}
	return list
}

// stop ends all processes and waits for them.
func (s *server) stop() error {
	var errs []error
	for _, p := range append(s.parts, s.helpers...) {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// process is one that this tool started; its output goes to a file.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when err is there
	err   error
}

// launch starts a program on the core (empty: any) with its output in dir.
func launch(dir, core, name string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the program has its own descriptor
	if core != "" {
		args = append([]string{"taskset", "-c", core}, args...) // it becomes the program: same pid
	}
	p.cmd = exec.Command(args[0], args[1:]...) //nolint:gosec // our own arguments
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // however this tool ends
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// await calls ready until it says yes; the program's end and the time limit are
// errors that tell the end of its log.
func (p *process) await(ctx context.Context, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for !ready() {
		select {
		case <-p.ended:
			return fmt.Errorf("starting %s: it ended at once: %w\n%s", p.name, p.err, p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("starting %s: %w\n%s", p.name, context.Cause(ctx), p.lastWords())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

func (p *process) lastWords() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-1000):])
}

// stop ends the process and waits for it.
func (p *process) stop() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended early: %w\n%s", p.name, p.err, p.lastWords())
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTime):
		_ = p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("%s did not stop within %v", p.name, stopTime)
	}
}

// children are the processes that p has started.
func (p *process) children() (list []int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.pid(), p.pid()))
	if err != nil {
		return nil, err
	}
	for _, field := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		list = append(list, pid)
	}
	return list, nil
}

// freeAddress is a loopback address that nobody listens on, outside the range
// from which the kernel gives ports to clients.
func freeAddress() (string, error) {
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000)) //nolint:gosec // no secret
		l, err := net.Listen("tcp", address)
		if err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no free port between 20000 and 32000")
}

// freeAddresses are n different ones.
func freeAddresses(n int) (list []string, err error) {
	seen := map[string]bool{}
	for len(list) < n {
		address, err := freeAddress()
		if err != nil {
			return nil, err
		}
		if !seen[address] {
			seen[address] = true
			list = append(list, address)
		}
	}
	return list, nil
}

// listens reports whether somebody takes connections at all addresses.
func listens(addresses ...string) func() bool {
	return func() bool {
		for _, address := range addresses {
			c, err := net.DialTimeout("tcp", address, time.Second)
			if err != nil {
				return false
			}
			_ = c.Close()
		}
		return true
	}
}
