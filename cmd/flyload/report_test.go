//go:build linux

package main

import (
	"io"
	"slices"
	"strings"
	"testing"
)

func contains(text string, parts ...string) bool {
	return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(text, p) })
}

// cells are the table's line of a step at a target, by column.
func cells(t *testing.T, table, scenario, step, target string) map[string]string {
	t.Helper()
	lines := strings.Split(table, "\n")
	names := strings.Split(columns, "\t")
	for _, line := range lines[1:] {
		// Cells are two spaces apart; a name holds one at most.
		fields := slices.DeleteFunc(strings.Split(line, "  "), func(s string) bool { return s == "" })
		for i := range fields {
			fields[i] = strings.TrimSpace(fields[i])
		}
		if len(fields) == len(names) && fields[0] == scenario && fields[1] == step && fields[2] == target {
			all := map[string]string{}
			for i, name := range names {
				all[name] = fields[i]
			}
			return all
		}
	}
	t.Fatalf("no line of %s %s %s in\n%s", scenario, step, target, table)
	return nil
}

func TestTable(t *testing.T) {
	one := func(target, step string, cpu, p99 float64, bad string) record {
		return record{Scenario: "f1000", Target: target, Step: step, PerSecond: 20000, CPU: cpu, P99: p99, Allocs: -1, Bad: bad}
	}
	got := report([]record{
		one("ws", "fixed", 30, 3, ""), one("ws", "capacity", 8, 90, ""), one("floor", "fixed", 10, 2, ""),
		one("ws", "fixed", 11, 1, ""), one("ws", "fixed", 12, 2, "7 of 9 deliveries missing"),
		{Scenario: "idle", Target: "ws", Step: "open", PerStream: 9.5, Allocs: 12},
	})
	for _, want := range []struct{ scenario, step, target, column, cell string }{
		{"f1000", "fixed", "ws", "CPU µs each", "12.00"}, // the median of 30, 11 and 12
		{"f1000", "fixed", "ws", "× floor", "1.20"},
		{"f1000", "fixed", "ws", "p99 ms", "2.0"},
		{"f1000", "fixed", "ws", "good runs", "2/3: 7 of 9 deliveries missing"},
		{"f1000", "fixed", "ws", "allocs each", "–"},
		{"f1000", "fixed", "floor", "× floor", "1.00"},
		{"f1000", "capacity", "ws", "× floor", "–"}, // the floor has no such step
		{"idle", "open", "ws", "KB/stream", "9.5"},
		{"idle", "open", "ws", "p99 ms", "–"},
		{"idle", "open", "ws", "allocs each", "12.000"},
	} {
		if cell := cells(t, got, want.scenario, want.step, want.target)[want.column]; cell != want.cell {
			t.Errorf("%s %s %s: %s is %q, want %q", want.scenario, want.step, want.target, want.column, cell, want.cell)
		}
	}
	if strings.Index(got, "floor     20000") > strings.Index(got, "capacity") {
		t.Errorf("the targets of a step do not stand together:\n%s", got)
	}
}

func TestIsolation(t *testing.T) {
	got := isolation([]record{
		{Scenario: "stall", Target: "ws", Step: baseline, P99: 10, Memory: 100},
		{Scenario: "stall", Target: "ws", Step: "200 stalled", P99: 14, Memory: 150, Dropped: 77, Ended: 3},
	})
	if !contains(got, "ws", "1.40 x", "77 messages", "3 of them", "100 -> 150 MB") {
		t.Errorf("it says %q", got)
	}
	if got := isolation([]record{{Scenario: "f100", Target: "ws", Step: "fixed", P99: 10}}); got != "" {
		t.Errorf("without the scenario it says %q", got)
	}
}

func TestFlags(t *testing.T) {
	for args, want := range map[string]string{
		"":                                 "",
		"-scenarios f100,idle1 -quick":     "",
		"-scenarios f99":                   `there is no "f99"`,
		"-runs 0":                          "-runs",
		"-steps both":                      "-steps",
		"-rate 1":                          "-rate",
		"-target x.json":                   "go together",
		"-gateway /bin/true -targets fly":  "",
		"-gateway /bin/true -targets nats": `there is no "nats"`,
	} {
		c, err := parse(strings.Fields(args), io.Discard)
		if err == nil && c.gateway != "" { // without one it would build it
			_, err = c.chosen(t.Context(), t.TempDir())
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

func TestWhoIsMeasuredWhere(t *testing.T) {
	find := func(name string) load {
		return loads[slices.IndexFunc(loads, func(l load) bool { return l.name == name })]
	}
	for _, test := range []struct{ args, scenario, want string }{
		{"-gateway /g", "f1000", "sse ws batch floor nchan-ws nchan-sse mosquitto mochi"},
		{"-gateway /g", "t1000", "sse ws batch ws+mosquitto floor nchan-ws nchan-sse mosquitto mochi"},
		{"-gateway /g", "idle", "sse ws batch nchan-ws nchan-sse mosquitto mochi"},
		{"-gateway /g", "publish", "ws nchan-ws"},
		{"-gateway a=/g,b=/h -targets ws,floor", "f100", "ws@a ws@b floor"},
		{"-gateway a=/g,b=/h -targets ws@b,peers", "t1000", "ws@b floor nchan-ws nchan-sse mosquitto mochi"},
		{"-gateway /g -targets ws+mosquitto", "f100", "ws+mosquitto"},
		{"-gateway /g -targets fly", "stall", "sse ws batch"},
	} {
		c, err := parse(strings.Fields(test.args), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		all, err := c.chosen(t.Context(), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, n := range all {
			if n.measures(find(test.scenario)) {
				names = append(names, n.name)
			}
		}
		if got := strings.Join(names, " "); got != test.want {
			t.Errorf("%s, %s: %s, want %s", test.args, test.scenario, got, test.want)
		}
	}
}
