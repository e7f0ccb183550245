//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// profiles says where profiles of the gateway go; empty directories: none are
// taken. A CPU profile costs the gateway some percent.
type profiles struct {
	cpu, memory string
}

func (p profiles) wanted() bool { return p.cpu != "" || p.memory != "" }

// during begins a CPU profile of s for that time; wait ends when it is written. It
// does nothing for servers that are not gateways.
func (p profiles) during(ctx context.Context, s *server, name string, d time.Duration) (wait func() error) {
	if p.cpu == "" || s.page == "" {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() {
		seconds := max(1, int(d.Seconds()))
		done <- s.save(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds), filepath.Join(p.cpu, name+".cpu.pprof"))
	}()
	return func() error { return <-done }
}

// after saves what s has allocated and what it holds.
func (p profiles) after(ctx context.Context, s *server, name string) error {
	if p.memory == "" || s.page == "" {
		return nil
	}
	return errors.Join(
		s.save(ctx, "/debug/pprof/allocs", filepath.Join(p.memory, name+".allocs.pprof")),
		s.save(ctx, "/debug/pprof/heap?gc=1", filepath.Join(p.memory, name+".heap.pprof")))
}

func (s *server) get(ctx context.Context, path string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.page+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		_ = answer.Body.Close()
		return nil, fmt.Errorf("%s answered %s", path, answer.Status)
	}
	return answer.Body, nil
}

func (s *server) save(ctx context.Context, path, file string) error {
	body, err := s.get(ctx, path)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, body)
	return errors.Join(err, out.Close())
}

// metric is the sum of a metric's series; 0 when there are none.
func (s *server) metric(ctx context.Context, name string) (sum float64, err error) {
	body, err := s.get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	defer func() { _ = body.Close() }()
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		line := lines.Text()
		rest, found := strings.CutPrefix(line, name)
		if !found || !strings.HasPrefix(rest, " ") && !strings.HasPrefix(rest, "{") {
			continue
		}
		n, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, lines.Err()
}

// countMallocs begins to count the allocations of a gateway; count tells them
// without what asking cost, or -1 for other servers.
func (s *server) countMallocs(ctx context.Context) (count func() (float64, error), err error) {
	if s.page == "" {
		return func() (float64, error) { return -1, nil }, nil
	}
	const name = "go_memstats_mallocs_total"
	var n [2]float64
	for i := range n {
		if n[i], err = s.metric(ctx, name); err != nil {
			return nil, err
		}
	}
	return func() (float64, error) {
		now, err := s.metric(ctx, name)
		return max(0, now-n[1]-(n[1]-n[0])), err
	}, nil
}
