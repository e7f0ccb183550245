//go:build linux

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

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

// verdict counts the good steps and tells what was wrong with the first bad one.
func verdict(steps []step) string {
	good, why := 0, ""
	for _, s := range steps {
		if s.bad == "" {
			good++
		}
		why = cmp.Or(why, s.bad)
	}
	if why != "" {
		why = ": " + why
	}
	return fmt.Sprintf("%d/%d%s", good, len(steps), why)
}

// last is the latest run, for people who watch.
func (d *doorResult) last() string {
	fixed, capacity := d.fixed[len(d.fixed)-1], d.capacity[len(d.capacity)-1]
	return fmt.Sprintf("%.2f µs a delivery at %.0f/s, capacity %.0f/s", fixed.perDelivery(), fixed.asked, capacity.rate)
}

// report is the tables; every figure is the median of the runs.
func (b *bench) report() string {
	var out strings.Builder
	for _, line := range facts(b.cores) {
		fmt.Fprintln(&out, line)
	}
	fmt.Fprintf(&out, "load     %d streams of one topic, %d-byte JSON payloads; medians of %d runs, or of as many as the time allowed (last column)\n", b.streams, b.payload, b.runs)

	if len(b.doors) > 0 {
		b.reportDoors(&out)
	}
	if len(b.posts) > 0 {
		b.reportPosts(&out)
	}
	for _, d := range b.large {
		fmt.Fprintf(&out, "\n%d idle streams, %s: %.1f KiB each\n", d.streams, d.name, d.idle())
	}
	return out.String()
}

func (b *bench) reportDoors(out *strings.Builder) {
	fmt.Fprintf(out, "\nidle, then at %.0f deliveries/s\n\n", b.rate)
	rows := []string{"door\tKiB per idle stream\tCPU µs per delivery\tp50 ms\tp99 ms\tp99.9 ms\tclient CPU %\tothers' CPU %\tgood runs"}
	for _, d := range b.doors {
		if len(d.fixed) == 0 {
			continue
		}
		rows = append(rows, fmt.Sprintf("%s\t%.1f\t%.2f\t%s\t%s", d.name, d.idle(),
			median(d.fixed, (*step).perDelivery), latencies(d.fixed), quality(d.fixed)))
	}
	out.WriteString(table(rows))

	fmt.Fprintf(out, "\ncapacity: the highest rate with nothing lost and p99 below %v\n\n", b.p99)
	rows = []string{"door\tdeliveries/s\tCPU µs per delivery\tp50 ms\tp99 ms\tp99.9 ms\tdeliveries per read\tclient CPU %\tothers' CPU %\tgood runs"}
	for _, d := range b.doors {
		if len(d.capacity) == 0 {
			continue
		}
		rows = append(rows, fmt.Sprintf("%s\t%.0f\t%.2f\t%s\t%.1f\t%s", d.name,
			median(d.capacity, func(s *step) float64 { return s.rate }), median(d.capacity, (*step).perDelivery),
			latencies(d.capacity), median(d.capacity, (*step).perRead), quality(d.capacity)))
	}
	out.WriteString(table(rows))
}

func (b *bench) reportPosts(out *strings.Builder) {
	fmt.Fprintf(out, "\nHTTP POST, QoS 1, %d kept-alive connections, each publish counted at one stream\n\n", b.publishers)
	answers := func(q float64) float64 {
		return median(b.posts, func(s *step) float64 { return ms(s.answers.quantile(q)) })
	}
	out.WriteString(table([]string{
		"requests/s\tCPU µs per request\tp50 ms\tp99 ms\tp99.9 ms\tclient CPU %\tothers' CPU %\tgood runs",
		fmt.Sprintf("%.0f\t%.1f\t%.1f\t%.1f\t%.1f\t%s", median(b.posts, func(s *step) float64 { return s.answered }),
			median(b.posts, (*step).perPublish), answers(0.5), answers(0.99), answers(0.999), quality(b.posts)),
	}))
}

func (d *doorResult) idle() float64 {
	return median(d.memory, func(kb *float64) float64 { return *kb })
}

func latencies(steps []step) string {
	of := func(what func(*step) time.Duration) float64 {
		return median(steps, func(s *step) float64 { return ms(what(s)) })
	}
	return fmt.Sprintf("%.1f\t%.1f\t%.1f", of(func(s *step) time.Duration { return s.p50 }),
		of(func(s *step) time.Duration { return s.p99 }), of(func(s *step) time.Duration { return s.p999 }))
}

// quality is how far to trust the figures.
func quality(steps []step) string {
	return fmt.Sprintf("%.0f\t%.0f\t%s", 100*median(steps, func(s *step) float64 { return s.client }),
		100*median(steps, func(s *step) float64 { return s.others }), verdict(steps))
}

// table aligns rows of cells that tabs separate.
func table(rows []string) string {
	var out strings.Builder
	t := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = t.Write([]byte(strings.Join(rows, "\t\n") + "\t\n")) // a Builder takes everything
	_ = t.Flush()
	return out.String()
}
