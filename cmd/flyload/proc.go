//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// ticksPerSecond is the unit of times in /proc (USER_HZ), 100 on every Linux.
const ticksPerSecond = 100

// usage is a reading of the machine's counters.
type usage struct {
	at      time.Time
	server  float64 // user and system seconds of the server's processes
	machine float64 // busy seconds of all cores
	own     float64 // user and system seconds of this process
	helpers float64 // of processes in the path that are not measured
}

func readUsage(pids, helpers []int) (usage, error) {
	u := usage{at: time.Now(), own: ownCPU()}
	for _, pid := range pids {
		seconds, err := processCPU(pid)
		if err != nil {
			return u, fmt.Errorf("the server is gone: %w", err)
		}
		u.server += seconds
	}
	for _, pid := range helpers {
		seconds, err := processCPU(pid)
		if err != nil {
			return u, fmt.Errorf("the broker is gone: %w", err)
		}
		u.helpers += seconds
	}
	var err error
	u.machine, err = machineCPU()
	return u, err
}

// processCPU is the user and system time of a process with all its threads, also
// those that have ended, in seconds. The clock counts nanoseconds, where /proc counts
// hundredths of a second.
func processCPU(pid int) (float64, error) {
	// clock_getcpuclockid(3): the bits of the pid, inverted, and the scheduler's clock.
	const schedulerClock = 2
	clock := int32(^pid)<<3 | schedulerClock //nolint:gosec // a pid has 22 bits
	var t syscall.Timespec
	_, _, err := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&t)), 0) //nolint:gosec // how package syscall passes a structure
	if err != 0 {
		return 0, fmt.Errorf("process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()).Seconds(), nil
}

// machineCPU is the busy time of all cores: all but idle, iowait, and the guest
// times, which are counted in the others.
func machineCPU() (seconds float64, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, field := range strings.Fields(line)[1:] {
		if i != 3 && i != 4 && i < 8 {
			seconds += ticks(field)
		}
	}
	return seconds, nil
}

func ticks(field string) float64 {
	n, _ := strconv.ParseFloat(field, 64) // the kernel writes numbers
	return n / ticksPerSecond
}

func ownCPU() float64 {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // fails only for a bad argument
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}

// memoryKB is the resident memory of pids in KiB.
func memoryKB(pids []int) (kb float64) {
	for _, pid := range pids {
		n, _ := strconv.ParseFloat(strings.TrimSuffix(procField(fmt.Sprintf("/proc/%d/status", pid), "VmRSS"), " kB"), 64)
		kb += n
	}
	return kb
}

// procField finds "name: value" in a file of /proc; "" if it is not there.
func procField(path, name string) string {
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// cores is how server and client are kept apart; empty strings: they are not.
type cores struct{ server, client string }

// pinCores binds this process, with all its threads, to the last of its cores and
// tells which core is the server's. Without taskset or a second core nothing is
// bound. A priority other than 0 is for this process and those that it starts.
func pinCores(priority int) (cores, error) {
	if priority != 0 {
		if err := prioritize(priority); err != nil {
			return cores{}, err
		}
	}
	taskset, missing := exec.LookPath("taskset")
	allowed := cpuList(procField("/proc/self/status", "Cpus_allowed_list"))
	if missing != nil || len(allowed) < 2 {
		return cores{}, nil //nolint:nilerr // the table's head says that nothing is bound
	}
	c := cores{server: strconv.Itoa(allowed[0]), client: strconv.Itoa(allowed[len(allowed)-1])}
	out, err := exec.Command(taskset, "-a", "-c", "-p", c.client, strconv.Itoa(os.Getpid())).CombinedOutput() //nolint:gosec // our own arguments
	if err != nil {
		return cores{}, fmt.Errorf("taskset: %w: %s", err, out)
	}
	return c, nil
}

// prioritize sets the priority of all threads of this process; children inherit
// that of the thread that makes them.
func prioritize(priority int) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, id, priority); err != nil {
			return fmt.Errorf("-nice %d: %w", priority, err)
		}
	}
	return nil
}

// cpuList reads a list such as "0-3,8".
func cpuList(s string) (list []int) {
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		for n := first; err1 == nil && err2 == nil && n <= last; n++ {
			list = append(list, n)
		}
	}
	return list
}

// facts describes the machine, a line each.
func facts(b *bench) []string {
	c := b.cores
	pinned := "server and client share all cores"
	if c.server != "" {
		pinned = fmt.Sprintf("server pinned to core %s, client to core %s", c.server, c.client)
	}
	memory, _ := strconv.Atoi(strings.TrimSuffix(procField("/proc/meminfo", "MemTotal"), " kB"))
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	load, _ := os.ReadFile("/proc/loadavg")
	now, _, _ := strings.Cut(string(load), " ")
	return []string{
		"peers    " + strings.Join(versions(b.lanes), ", "),
		fmt.Sprintf("machine  %s, %d cores, %.1f GiB; %s", procField("/proc/cpuinfo", "model name"), runtime.NumCPU(), float64(memory)/(1<<20), pinned),
		fmt.Sprintf("system   Linux %s, %s, load average %s at the end", strings.TrimSpace(string(kernel)), runtime.Version(), now),
		fmt.Sprintf("load     %d-byte JSON payloads but in stall; medians of %d runs, or of as many as the time allowed", defaultPayload, b.runs),
		"date     " + time.Now().UTC().Format("2006-01-02 15:04 UTC"),
	}
}
