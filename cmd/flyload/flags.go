//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// command is what the flags say.
type command struct {
	settings
	env
	loads     []load
	scenarios string
	targets   string
	gateway   string
	target    string
	pids      string
	out       string
	nice      int
	limit     time.Duration
}

func parse(args []string, errw io.Writer) (command, error) {
	var c command
	quick := false
	f := flag.NewFlagSet("flyload", flag.ContinueOnError)
	f.SetOutput(errw)
	f.StringVar(&c.scenarios, "scenarios", "", "measure only these `names`, separated by commas (default all but idle1 and connect1)")
	f.StringVar(&c.targets, "targets", "", "measure only these `names`, separated by commas; a group is fly (the gateway's) or peers")
	f.IntVar(&c.runs, "runs", 3, "runs; the table shows medians")
	f.BoolVar(&quick, "quick", false, "short steps, for a look; the figures are rougher")
	f.StringVar(&c.steps, "steps", "", "in the fan-out scenarios only `fixed` or capacity")
	f.Float64Var(&c.rate, "rate", 0, "fixed rate in `deliveries` a second, instead of the scenario's")
	f.StringVar(&c.gateway, "gateway", "", "`program` to measure instead of building it; a=PATH,b=PATH compares several")
	f.Func("set", "a further setting `key=value` of the gateway (repeatable)", func(s string) error { c.set = append(c.set, s); return nil })
	f.StringVar(&c.out, "out", "", "append each measurement to this `file` as a line of JSON")
	f.StringVar(&c.profiles.cpu, "cpuprofile", "", "`directory` for CPU profiles of the gateway at the fixed rate; they cost some percent")
	f.StringVar(&c.profiles.memory, "memprofile", "", "`directory` for allocation and heap profiles of the gateway")
	f.DurationVar(&c.fixed, "fixed", 3*time.Second, "length of a step at the fixed rate")
	f.DurationVar(&c.try, "try", 2*time.Second, "length of a step of the capacity search")
	f.DurationVar(&c.settle, "settle", 5*time.Second, "wait before memory is read")
	f.Float64Var(&c.quiet, "quiet", 0.15, "repeat a step, up to twice, when other processes took more than this `share` of the machine; 0 never does")
	f.IntVar(&c.nice, "nice", 0, "`priority` of client and servers, such as -10 (root only)")
	f.DurationVar(&c.limit, "limit", 3*time.Hour, "time for everything but building; what was measured by then is shown")
	f.StringVar(&c.target, "target", "", "JSON `file` of another server that runs already")
	f.StringVar(&c.pids, "pids", "", "with -target: its process `ids`, separated by commas")
	f.Usage = func() { usageText(f) }
	if err := f.Parse(args); err != nil {
		return c, err
	}
	c.bisect, c.stallFor = 2, 20*time.Second
	if quick {
		c.short()
	}
	return c, errors.Join(c.check(f), c.choose())
}

func usageText(f *flag.FlagSet) {
	w := f.Output()
	_, _ = fmt.Fprintln(w, "flyload measures the gateway beside what else could do its work.\n\nscenarios:")
	for _, l := range loads {
		_, _ = fmt.Fprintf(w, "  %-10s %s\n", l.name, l.about)
	}
	_, _ = fmt.Fprintln(w, "targets:")
	for _, n := range lanes([]named{{}}) {
		_, _ = fmt.Fprintf(w, "  %-13s %s\n", n.name, n.about)
	}
	_, _ = fmt.Fprintln(w, "flags:")
	f.PrintDefaults()
}

func (c *command) check(f *flag.FlagSet) error {
	switch {
	case f.NArg() > 0:
		return fmt.Errorf("%q: it takes only flags", f.Arg(0))
	case c.runs < 1 || c.runs > 100:
		return errors.New("-runs must be 1 to 100")
	case c.rate != 0 && (c.rate < leastRate || c.rate > mostRate):
		return fmt.Errorf("-rate must be %d to %.0f", leastRate, mostRate)
	case !slices.Contains([]string{"", "fixed", "capacity"}, c.steps):
		return fmt.Errorf("-steps %q: must be fixed or capacity", c.steps)
	case c.quiet < 0 || c.quiet > 1:
		return errors.New("-quiet must be 0 to 1")
	case (c.target == "") != (c.pids == ""):
		return errors.New("-target and -pids go together")
	}
	var err error
	for _, dir := range []*string{&c.profiles.cpu, &c.profiles.memory} {
		if *dir != "" && err == nil {
			*dir, err = filepath.Abs(*dir)
		}
	}
	return err
}

// choose finds the scenarios.
func (c *command) choose() error {
	wanted := split(c.scenarios)
	for _, name := range wanted {
		if !slices.ContainsFunc(loads, func(l load) bool { return l.name == name }) {
			return fmt.Errorf("-scenarios: there is no %q; -help lists them", name)
		}
	}
	for _, l := range loads {
		if len(wanted) > 0 && !slices.Contains(wanted, l.name) || len(wanted) == 0 && strings.HasSuffix(l.name, "1") {
			continue
		}
		if l.payload == 0 {
			l.payload = defaultPayload
		}
		if c.rate > 0 && l.rate > 0 {
			l.rate = c.rate
		}
		c.loads = append(c.loads, l)
	}
	return nil
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// chosen are the lanes; it builds the gateway in dir if one of its lanes is wanted
// and no program is named.
func (c *command) chosen(ctx context.Context, dir string) (list []lane, err error) {
	if c.target != "" {
		n, err := runningLane(c.target, c.pids)
		return []lane{n}, err
	}
	gateways, err := c.gateways()
	if err != nil {
		return nil, err
	}
	wanted := split(c.targets)
	for _, name := range wanted {
		if !slices.ContainsFunc(lanes(gateways), func(n lane) bool { return n.is(name) }) {
			return nil, fmt.Errorf("-targets: there is no %q; -help lists them", name)
		}
	}
	pick := func(n lane) bool {
		return len(wanted) == 0 || slices.ContainsFunc(wanted, n.is)
	}
	if gateways[0].path == "" && slices.ContainsFunc(lanes(gateways), func(n lane) bool { return n.is("fly") && pick(n) }) {
		if gateways[0].path, err = buildGateway(ctx, dir); err != nil {
			return nil, err
		}
	}
	for _, n := range lanes(gateways) {
		if pick(n) {
			n.named = slices.ContainsFunc(wanted, func(name string) bool { return n.is(name) && name != "fly" && name != "peers" })
			list = append(list, n)
		}
	}
	return list, nil
}

// gateways reads -gateway; without it there is one that has no path yet.
func (c *command) gateways() (list []named, err error) {
	if c.gateway == "" {
		return []named{{}}, nil
	}
	for _, part := range split(c.gateway) {
		name, path, found := strings.Cut(part, "=")
		if !found {
			name, path = "", part
		}
		if path, err = filepath.Abs(path); err != nil {
			return nil, err
		}
		list = append(list, named{name, path})
	}
	return list, nil
}
