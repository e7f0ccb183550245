package outbox_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"flyscreen/gateway/internal/outbox"
	"flyscreen/gateway/mqtt"
)

const testMessages = 300

// filled makes an outbox file with messages of different sizes, some of them
// delivered already, and returns it with the payloads that it still owes.
func filled(t *testing.T) (file []byte, owed []string) {
	t.Helper()
	dir := t.TempDir()
	box, b, stop := start(t, dir, nil, nil)
	for i := range testMessages / 2 {
		publish(t, box, "a", "delivered "+strconv.Itoa(i), mqtt.Queued)
	}
	b.connect(false)
	waitFor(t, "delivery", func() bool { queued, _ := counts(t, box); return queued == 0 })
	b.cut(errors.New("test"))
	var wg sync.WaitGroup
	for i := range testMessages {
		payload := fmt.Sprintf("owed %d %s", i, strings.Repeat("x", i*37%6000))
		owed = append(owed, payload)
		wg.Go(func() { publish(t, box, "a", payload, mqtt.Queued) })
	}
	wg.Wait()
	stop()
	file, err := os.ReadFile(filepath.Join(dir, "outbox.db"))
	if err != nil {
		t.Fatal(err)
	}
	return file, owed
}

// reopened returns the payloads that an outbox makes of file.
func reopened(t *testing.T, file []byte) map[string]bool {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "outbox.db"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	box, _, stop := start(t, dir, nil, nil)
	defer stop()
	items, _, _, err := box.List(100 * testMessages)
	if err != nil {
		t.Fatalf("the outbox did not start: %v", err)
	}
	have := map[string]bool{}
	for _, i := range items {
		have[string(i.Message.Payload)] = true
	}
	publish(t, box, "a", "after", mqtt.Queued)
	return have
}

// Whatever byte of the file is flipped: it starts, and only what was flipped is lost.
func TestFlippedBytes(t *testing.T) {
	file, owed := filled(t)
	places := []int{0, 16, 24, 4096, 4096 + 24, len(file) - 1} // both meta pages
	for range 80 {
		places = append(places, rand.IntN(len(file)))
	}
	damaged := 0
	for _, at := range places {
		flipped := bytes.Clone(file)
		flipped[at] ^= 1 << rand.IntN(8)
		have := reopened(t, flipped)
		missing := 0
		for _, payload := range owed {
			if !have[payload] {
				missing++
			}
		}
		if missing > 1 {
			t.Errorf("byte %d of %d: %d messages are lost", at, len(file), missing)
		}
		damaged += missing
	}
	if damaged == 0 {
		t.Error("no flip hit a message: the test is blind")
	}
}

// A file that was cut off: what is before the cut is there.
func TestCutOff(t *testing.T) {
	file, owed := filled(t)
	for range 30 {
		cut := file[:rand.IntN(len(file))]
		have := reopened(t, cut)
		for _, payload := range owed {
			if bytes.Contains(cut, []byte(payload)) && !have[payload] {
				t.Errorf("cut at %d of %d: %.20q is lost though it is there", len(cut), len(file), payload)
			}
		}
	}
	for name, junk := range map[string][]byte{"empty": {}, "zeros": make([]byte, 1<<20), "text": []byte(strings.Repeat("no database ", 10_000))} {
		if have := reopened(t, junk); len(have) != 0 {
			t.Errorf("%s: %d messages", name, len(have))
		}
	}
}

// The damaged file is kept, for whoever wants to look.
func TestDamagedFileIsMovedAside(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "outbox.db"), bytes.Repeat([]byte("junk"), 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	box, _, stop := start(t, dir, nil, func(o *outbox.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	publish(t, box, "a", "1", mqtt.Queued)
	stop()
	if found, err := filepath.Glob(filepath.Join(dir, "outbox.db.damaged-*")); err != nil || len(found) != 1 {
		t.Errorf("%v, %v", found, err)
	}
	if !strings.Contains(log.String(), "moved aside") {
		t.Errorf("the log: %s", &log)
	}
}

// A directory that cannot be written refuses nothing but what it would have to
// keep, and heals by itself.
func TestUnusableDirectoryHeals(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where the directory should be
		t.Fatal(err)
	}
	box, b, _ := start(t, dir, nil, nil)
	if _, err := box.Publish(within(t), message("a", "1")); err == nil || box.Broken() == nil {
		t.Fatalf("%v, %v", err, box.Broken())
	}
	b.connect(false)
	publish(t, box, "a", "2", mqtt.Acknowledged)
	b.cut(errors.New("test"))
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "healing", func() bool {
		d, err := box.Publish(within(t), message("a", "3"))
		return err == nil && d == mqtt.Queued
	})
	if err := box.Broken(); err != nil {
		t.Error(err)
	}
}

// TestMain makes the test binary a process that fills an outbox until it is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("FLYSCREEN_TEST_OUTBOX"); dir != "" {
		fillUntilKilled(dir)
	}
	os.Exit(m.Run())
}

const killWriters = 32

func fillUntilKilled(dir string) {
	b := &broker{}
	box := outbox.New(outbox.Options{Broker: b, Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	b.box = box
	if err := box.Open(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() { _ = box.Run(context.Background()) }()
	var mu sync.Mutex // guards standard output
	run := os.Getenv("FLYSCREEN_TEST_RUN")
	for w := range killWriters {
		go func() {
			for i := 0; ; i++ {
				payload := fmt.Sprintf("%s/%d/%d", run, w, i)
				if d, err := box.Publish(context.Background(), message(fmt.Sprint("t", w), payload)); err == nil && d == mqtt.Queued {
					mu.Lock()
					fmt.Println(payload)
					mu.Unlock()
				}
			}
		}()
	}
	select {}
}

// Nothing that was answered as queued is lost, whenever the process is killed.
func TestKilledAtAnyPoint(t *testing.T) {
	dir := t.TempDir()
	promised := map[string]bool{}
	for run := range 12 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "FLYSCREEN_TEST_OUTBOX="+dir, "FLYSCREEN_TEST_RUN="+strconv.Itoa(run))
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		child.Stderr = os.Stderr
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(limit, func() { _ = child.Process.Kill() })
		enough := rand.IntN(1500)
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			promised[lines.Text()] = true
			if n == enough {
				_ = child.Process.Kill()
			}
		}
		kill.Stop()
		_ = child.Wait()
	}
	box, b, _ := start(t, dir, nil, nil)
	b.connect(false)
	waitFor(t, "delivery", func() bool { queued, _ := counts(t, box); return queued == 0 })
	got := map[string]int{}
	last := map[string]int{}
	for _, one := range b.received() {
		topic, payload, _ := strings.Cut(one, "=")
		got[payload]++
		var run, w, i int
		if _, err := fmt.Sscanf(payload, "%d/%d/%d", &run, &w, &i); err != nil {
			t.Fatal(err)
		}
		if at := run*1_000_000 + i + 1; at <= last[topic] {
			t.Errorf("%s is out of order", one)
		} else {
			last[topic] = at
		}
	}
	lost := 0
	for payload := range promised {
		if got[payload] != 1 {
			lost++
		}
	}
	if lost > 0 || len(promised) < 1000 {
		t.Errorf("%d of %d promised messages are lost or doubled", lost, len(promised))
	}
	t.Logf("%d promised, %d delivered", len(promised), len(got))
}
