package main

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"flyscreen/gateway/config"
)

// settings are the flags that say how a gateway is configured.
type settings struct {
	file  string
	texts map[string]*string   // by key, for keys with one value
	lists map[string]*[]string // by key, for keys with several
	sets  []string
}

// addSettings gives cmd --config, the flags of the named keys (all that have one
// if none is named), and --set for the rest.
func addSettings(cmd *cobra.Command, s streams, names ...string) *settings {
	set := &settings{texts: map[string]*string{}, lists: map[string]*[]string{}}
	f := cmd.Flags()
	f.StringVar(&set.file, "config", s.getenv("FLYSCREEN_CONFIG"), "configuration `file` (FLYSCREEN_CONFIG)")
	for _, k := range config.Keys() {
		switch {
		case k.Flag == "" || len(names) > 0 && !slices.Contains(names, k.Name):
		case k.List:
			set.lists[k.Name] = f.StringArray(k.Flag, nil, k.Usage)
		default:
			set.texts[k.Name] = f.String(k.Flag, "", k.Usage)
		}
	}
	f.StringArrayVar(&set.sets, "set", nil, "any other setting as `key=value` (repeatable)")
	return set
}

// flags gathers what was given on the command line, by key.
func (set *settings) flags(cmd *cobra.Command) (map[string]string, error) {
	given := map[string]string{}
	for _, k := range config.Keys() {
		if k.Flag == "" || !cmd.Flags().Changed(k.Flag) {
			continue
		}
		if text, ok := set.texts[k.Name]; ok {
			given[k.Name] = *text
		} else {
			given[k.Name] = strings.Join(*set.lists[k.Name], ",")
		}
	}
	for _, assignment := range set.sets {
		key, text, ok := strings.Cut(assignment, "=")
		if !ok {
			return nil, badUsage("--set %q has no \"=\": write --set key=value, such as --set limits.streams=1000", assignment)
		}
		if _, twice := given[key]; twice {
			return nil, badUsage("%s is given twice on the command line", key)
		}
		given[key] = text
	}
	return given, nil
}

// load reads and checks the configuration. before holds environment variables
// that the real ones override.
func (set *settings) load(cmd *cobra.Command, s streams, before ...string) (*config.Config, error) {
	flags, err := set.flags(cmd)
	if err != nil {
		return nil, err
	}
	return config.Load(config.Sources{File: set.file, Env: append(before, s.env...), Flags: flags})
}

// newLogger makes the gateway's logger.
func newLogger(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // checked by config
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// devKey returns the development key if the configuration uses it, and says so
// when it had to make one.
func devKey(cfg *config.Config, say io.Writer) ([]byte, error) {
	if !cfg.UsesDevKey() {
		return nil, nil
	}
	key, created, err := config.DevKey(cfg.DataDir)
	if created {
		_, _ = fmt.Fprintf(say, "made a development key in %s: no issuer is configured\n", cfg.DataDir)
	}
	return key, err
}
