package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"flyscreen/auth"
)

// newKey makes the command with those that make API keys.
func newKey(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key COMMAND",
		Short: "make an API key for a client",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(s.err)
			_ = cmd.Help()
			return badUsage("a command is missing: write flyscreen key new")
		},
		Args: operands(0, 0, "write flyscreen key new"),
	}
	cmd.AddCommand(newKeyNew(s))
	return cmd
}

func newKeyNew(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "new --subject NAME [--sub FILTER | --pub FILTER | --all FILTER]... [flags]",
		Short: "print a new API key, once, and the line for auth.api_keys_file",
		Long: `Print a new API key and, below it, the line for the file that auth.api_keys_file names. The line holds
only a hash: the key is shown once and cannot be found out again. With --file the line is added there.
What auth.acl_file says of the name counts besides the filters here, which may hold ${sub} for it.`,
		Example: `  flyscreen key new --subject tracker-7 --pub 'pets/7/#' --file api-keys
  flyscreen key new --subject partner --sub 'pets/+/location' --ttl 2160h`,
		Args: operands(0, 0, "it takes only flags"),
	}
	var k auth.APIKey
	var ttl time.Duration
	var file string
	f := cmd.Flags()
	f.StringVar(&k.Subject, "subject", "", "`name` of who the key is for")
	f.StringArrayVar(&k.Sub, "sub", nil, "`filter` to subscribe to (repeatable)")
	f.StringArrayVar(&k.Pub, "pub", nil, "`filter` to publish to (repeatable)")
	f.StringArrayVar(&k.All, "all", nil, "`filter` for both (repeatable)")
	f.DurationVar(&ttl, "ttl", 0, "how long it is good; 0 is without end")
	f.StringVar(&file, "file", "", "`file` to add the line to, instead of printing it")
	cmd.RunE = func(*cobra.Command, []string) error {
		switch {
		case k.Subject == "":
			return badUsage("who is the key for? add --subject NAME")
		case ttl < 0:
			return badUsage("--ttl %s is over already", ttl)
		case ttl > 0:
			k.Expires = time.Now().Add(ttl)
		}
		key, line, err := auth.NewAPIKey(k)
		if err != nil {
			return err
		}
		if file != "" {
			if err := appendLine(file, line); err != nil {
				return err
			}
			line = ""
		}
		_, _ = fmt.Fprintln(s.err, "the key, shown this once:")
		if _, err := fmt.Fprintln(s.out, key); err != nil || line == "" {
			return err
		}
		_, _ = fmt.Fprintln(s.err, "the line for auth.api_keys_file:")
		_, err = fmt.Fprintln(s.out, line)
		return err
	}
	return cmd
}

// appendLine adds a line to a file, which it makes if it is not there yet.
func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			line = "\n" + line
		}
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}
