//go:build linux

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// line is a record for people who watch.
func (r record) line() string {
	return fmt.Sprintf("%s %s %s, run %d: %.0f/s, %.2f µs each, p99 %.1f ms, %.1f KB a stream %s",
		r.Scenario, r.Target, r.Step, r.Run, r.PerSecond, r.CPU, r.P99, r.PerStream, r.Bad)
}

// median of what of says about each entry of list; of an even number the mean of
// the middle two; zero for none.
func median[T any](list []T, of func(*T) float64) float64 {
	if len(list) == 0 {
		return 0
	}
	values := make([]float64, len(list))
	for i := range list {
		values[i] = of(&list[i])
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// row is the runs of one step.
type row struct {
	scenario, target, step string
	runs                   []record
}

// rows groups records by scenario, step and target, in the order in which they
// came, with all targets of a step together.
func rows(records []record) (list []row) {
	for _, r := range records {
		i := slices.IndexFunc(list, func(w row) bool {
			return w.scenario == r.Scenario && w.target == r.Target && w.step == r.Step
		})
		if i < 0 {
			i = len(list)
			list = append(list, row{scenario: r.Scenario, target: r.Target, step: r.Step})
		}
		list[i].runs = append(list[i].runs, r)
	}
	order := map[string]int{}
	for _, w := range list {
		if key := w.scenario + " " + w.step; order[key] == 0 {
			order[key] = len(order) + 1
		}
	}
	scenarios := func(name string) int {
		return slices.IndexFunc(loads, func(l load) bool { return l.name == name })
	}
	slices.SortStableFunc(list, func(a, b row) int {
		return cmp.Or(scenarios(a.scenario)-scenarios(b.scenario), order[a.scenario+" "+a.step]-order[b.scenario+" "+b.step])
	})
	return list
}

const columns = "scenario\tstep\ttarget\teach/s\tCPU µs each\t× floor\tp50 ms\tp99 ms\tp99.9 ms\tallocs each\tKB/stream\tRSS MB\tclient %\tothers %\tgood runs"

// report is the table; every figure is the median of the runs.
func report(records []record) string {
	all := rows(records)
	var lines []string
	for i, w := range all {
		if i > 0 && (all[i-1].scenario != w.scenario || all[i-1].step != w.step) {
			lines = append(lines, strings.Repeat("\t", strings.Count(columns, "\t")))
		}
		lines = append(lines, w.line(floorOf(all, w)))
	}
	return table(append([]string{columns}, lines...))
}

// floorOf is the floor's CPU time for the same step; 0 without one.
func floorOf(all []row, w row) float64 {
	for _, f := range all {
		if f.target == "floor" && f.scenario == w.scenario && f.step == w.step {
			return median(f.runs, func(r *record) float64 { return r.CPU })
		}
	}
	return 0
}

// isolation says for each target of the stall scenario what the streams that read
// paid for those that did not.
func isolation(records []record) string {
	var out strings.Builder
	all := rows(records)
	for _, w := range all {
		if w.scenario != "stall" || w.step == baseline {
			continue
		}
		p99 := func(r *record) float64 { return r.P99 }
		for _, base := range all {
			if base.scenario == w.scenario && base.target == w.target && base.step == baseline {
				_, _ = fmt.Fprintf(&out, "stall    %s: p99 of the others is %.2f x the baseline; the stalled had %.0f messages left out, and %.0f of them were ended; RSS %.0f -> %.0f MB\n",
					w.target, median(w.runs, p99)/max(median(base.runs, p99), 1e-9), median(w.runs, func(r *record) float64 { return r.Dropped }), median(w.runs, func(r *record) float64 { return r.Ended }),
					median(base.runs, func(r *record) float64 { return r.Memory }), median(w.runs, func(r *record) float64 { return r.Memory }))
			}
		}
	}
	if out.Len() > 0 {
		return "\n" + out.String()
	}
	return ""
}

func (w row) line(floor float64) string {
	m := func(of func(*record) float64) float64 { return median(w.runs, of) }
	// cell leaves out what was not measured.
	cell := func(format string, v float64, measured bool) string {
		if !measured {
			return "–"
		}
		return fmt.Sprintf(format, v)
	}
	cpu, p99 := m(func(r *record) float64 { return r.CPU }), m(func(r *record) float64 { return r.P99 })
	allocs, memory := m(func(r *record) float64 { return r.Allocs }), m(func(r *record) float64 { return r.PerStream })
	return strings.Join([]string{
		w.scenario, w.step, w.target,
		fmt.Sprintf("%.0f", m(func(r *record) float64 { return r.PerSecond })),
		fmt.Sprintf("%.2f", cpu),
		cell("%.2f", cpu/max(floor, 1e-9), floor > 0),
		cell("%.1f", m(func(r *record) float64 { return r.P50 }), p99 > 0),
		cell("%.1f", p99, p99 > 0),
		cell("%.1f", m(func(r *record) float64 { return r.P999 }), p99 > 0),
		cell("%.3f", allocs, allocs >= 0),
		cell("%.1f", memory, memory > 0),
		fmt.Sprintf("%.0f", m(func(r *record) float64 { return r.Memory })),
		fmt.Sprintf("%.0f", 100*m(func(r *record) float64 { return r.Client })),
		fmt.Sprintf("%.0f", 100*m(func(r *record) float64 { return r.Others })),
		verdict(w.runs),
	}, "\t")
}

// verdict counts the good runs and tells what was wrong with the first bad one.
func verdict(runs []record) string {
	good, why := 0, ""
	for _, r := range runs {
		if r.Bad == "" {
			good++
		}
		why = cmp.Or(why, r.Bad)
	}
	if why != "" {
		why = ": " + why
	}
	return fmt.Sprintf("%d/%d%s", good, len(runs), why)
}

// table aligns rows of cells that tabs separate.
func table(rows []string) string {
	var out strings.Builder
	t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	_, _ = t.Write([]byte(strings.Join(rows, "\n") + "\n")) // a Builder takes everything
	_ = t.Flush()
	return out.String()
}
