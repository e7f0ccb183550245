package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"flyscreen/gateway"
)

// newCheck makes the command that checks a configuration without running it.
func newCheck(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [flags]",
		Short: "check the configuration and list all problems",
		Long: `Check file, environment and flags as serve would read them, and the keys and certificates they name.
Nothing is started and nothing is written. Exit code 78 and one line a problem, if there are any.`,
		Example: `  flyscreen check --config flyscreen.yaml
  flyscreen check --config flyscreen.yaml --print     what serve would run by, secrets as ***
  flyscreen check --print                             every setting with its default`,
		Args: operands(0, 0, "it takes only flags"),
	}
	set := addSettings(cmd, s)
	show := cmd.Flags().Bool("print", false, "print the resulting configuration")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := set.load(cmd, s)
		if err != nil {
			return err
		}
		var key []byte
		if cfg.UsesDevKey() {
			key = make([]byte, 64) // stands for the key that serve makes
		}
		if _, err := gateway.New(cfg, gateway.Options{Logger: slog.New(slog.DiscardHandler), Version: versionName(), DevKey: key}); err != nil {
			return configProblem(err)
		}
		if *show {
			return cfg.Print(s.out)
		}
		_, err = fmt.Fprintln(s.out, "the configuration is fine")
		return err
	}
	return cmd
}
