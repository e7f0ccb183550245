package faults_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"flyscreen/gateway/gatewaytest/mosquitto"
)

// A full disk, and one that cannot be written, are told with 503 and heal by
// themselves; what was promised before arrives.
func TestDiskFullAndReadOnly(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Fatalf("a small tmpfs, which needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	broker := mosquitto.Start(t)
	r := record(t, "127.0.0.1:"+broker.Port)
	g := startGateway(t, r.url(), dir)
	g.awaitReady()
	broker.Kill()
	eventually(t, "the link is down", func() bool { return g.status("/readyz") == http.StatusServiceUnavailable })

	p := &promises{kept: map[string]bool{}, statuses: map[int]int{}}
	next := 0
	post := func(size int) (status int, answer string) {
		payload := strconv.Itoa(next)
		status, answer = g.do(http.MethodPost, "/v1/topics/disk", strings.Repeat("0", max(0, size-len(payload)))+payload)
		if status == http.StatusAccepted {
			p.kept["disk "+strings.Repeat("0", max(0, size-len(payload)))+payload] = true
			next++
		}
		p.statuses[status]++
		return status, answer
	}
	for range 20 {
		post(100)
	}
	ballast := filepath.Join(dir, "ballast")
	_ = os.WriteFile(ballast, make([]byte, 3<<20), 0o600) // as much as goes
	eventually(t, "503 because the disk is full", func() bool { status, _ := post(50_000); return status == http.StatusServiceUnavailable })
	if status, answer := post(50_000); status != http.StatusServiceUnavailable || !strings.Contains(answer, "disk") {
		t.Errorf("on a full disk: %d %s", status, answer)
	}
	if s := g.metric("flyscreen_outbox_writable"); s != 0 {
		t.Errorf("flyscreen_outbox_writable is %v", s)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "202 when there is room again", func() bool { status, _ := post(100); return status == http.StatusAccepted })

	// A file that is open for writing keeps its system from becoming read-only, so the
	// gateway starts on one that is.
	g.kill()
	if err := syscall.Mount("none", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	g.start()
	eventually(t, "it listens", func() bool { return g.status("/livez") == http.StatusOK })
	if status, answer := post(100); status != http.StatusServiceUnavailable || !strings.Contains(answer, "disk") {
		t.Errorf("on a read-only disk: %d %s", status, answer)
	}
	if err := syscall.Mount("none", dir, "", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "202 when it can be written again", func() bool { status, _ := post(100); return status == http.StatusAccepted })
	broker.Start()
	g.awaitEmpty()
	p.judge(t, r.acknowledged(), 0)
}
