// Command flyscreen is the gateway between web applications and an MQTT broker,
// with the small tools around it. Data goes to standard output, talk and logs to
// standard error. Exit codes: 0 done, 1 failure, 2 wrong usage, 78 bad
// configuration.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"flyscreen/gateway/config"
)

// Exit codes. 78 is EX_CONFIG of sysexits.h: restarting will not help.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
	exitConfig  = 78
)

// streams is what a command reads, writes and takes its environment from.
type streams struct {
	in       io.Reader
	out, err io.Writer
	env      []string
}

// getenv looks a variable up in the command's environment.
func (s streams) getenv(name string) string {
	for i := len(s.env) - 1; i >= 0; i-- {
		if value, found := strings.CutPrefix(s.env[i], name+"="); found {
			return value
		}
	}
	return ""
}

func main() {
	os.Exit(run(os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Environ()}))
}

// run executes one command line and returns the exit code.
func run(args []string, s streams) int {
	root := newRoot(s)
	started := false // a command's own code began, so its error is not about usage
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	cmd, err := root.ExecuteC()
	if err == nil {
		return exitOK
	}
	var usage *usageError
	var problems *config.Problems
	switch {
	case errors.As(err, &problems):
		for _, p := range problems.List {
			_, _ = fmt.Fprintln(s.err, p)
		}
		return exitConfig
	case !started, errors.As(err, &usage):
		_, _ = fmt.Fprintf(s.err, "%s: %v\nSee %s --help.\n", cmd.CommandPath(), err, cmd.CommandPath())
		return exitUsage
	}
	_, _ = fmt.Fprintf(s.err, "%s: %v\n", cmd.CommandPath(), err)
	return exitFailure
}

// newRoot builds the command tree.
func newRoot(s streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "flyscreen COMMAND",
		Short: "The screen between web apps and your mosquitoes: MQTT over HTTP, SSE and WebSocket",
		Example: `  flyscreen demo                                  see it work, with simulated devices
  flyscreen serve --upstream tcp://broker:1883    stand in front of your broker
  flyscreen token --subject me --sub 'pets/#'     a token for a client
  flyscreen sub 'pets/#'                          watch messages (FLYSCREEN_TOKEN)`,
		Args:          cobra.ArbitraryArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return badUsage("there is no command %q%s", args[0], suggestion(cmd, args[0]))
			}
			cmd.SetOut(s.err)
			_ = cmd.Help()
			return badUsage("a command is missing")
		},
	}
	root.AddCommand(newServe(s), newDemo(s), newToken(s), newKey(s), newPasswd(s), newCheck(s), newPub(s), newSub(s), newOutbox(s), newHealthcheck(s), newVersion(s))
	root.SuggestionsMinimumDistance = 2
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd("completion")
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Short = "print a script that completes commands in your shell"
		}
		c.DisableFlagsInUseLine = true
		c.Flags().SortFlags = false
	}
	root.SetHelpTemplate(helpTemplate)
	return root
}

func suggestion(cmd *cobra.Command, name string) string {
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return ""
}

// helpTemplate is cobra's, without what does not fit a screen.
const helpTemplate = `{{with or .Long .Short}}{{. | trimTrailingWhitespaces}}

{{end}}Usage: {{.UseLine}}
{{if .HasExample}}
{{.Example}}
{{end}}{{if .HasAvailableSubCommands}}
Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}

flyscreen COMMAND --help says more about each.

{{end}}{{if and .HasAvailableLocalFlags .HasParent}}
Flags:
{{.LocalFlags.FlagUsagesWrapped 110 | trimTrailingWhitespaces}}
{{end}}`

// usageError is a mistake in the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func badUsage(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// operands makes the check that there are least to most operands, where most < 0
// is any number. want says in words what is expected.
func operands(least, most int, want string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return badUsage("%s", want)
		case most >= 0 && len(args) > most:
			return badUsage("%q is one word too many: %s", args[most], want)
		}
		return nil
	}
}
