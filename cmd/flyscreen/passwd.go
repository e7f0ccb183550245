package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"flyscreen/auth"
)

// newPasswd makes the command that writes password files.
func newPasswd(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "passwd [flags] USER",
		Short: "make or change a line of a password file",
		Long: `Read a password from the terminal or from standard input and print the line for the file that
auth.passwords_file names, or, with --file, put it there. The file's format is mosquitto_passwd's.
If Mosquitto reads the same file give fewer --iterations: it checks passwords on its only thread.`,
		Example: `  flyscreen passwd --file passwords alice
  flyscreen passwd --file passwords --delete alice
  openssl rand -hex 16 | tee secret | flyscreen passwd alice >> passwords`,
		Args: operands(1, 1, "name one user"),
	}
	var file string
	var iterations int
	var remove bool
	f := cmd.Flags()
	f.StringVar(&file, "file", "", "`file` to change; it is made if it is not there")
	f.IntVar(&iterations, "iterations", auth.PasswordIterations, "how much `work` a guess costs")
	f.BoolVar(&remove, "delete", false, "take the user out of the file")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		user := args[0]
		if remove && file == "" {
			return badUsage("which file is the user in? add --file FILE")
		}
		if remove {
			return replaceUser(file, user, "")
		}
		secret, err := readPassword(s)
		if err != nil {
			return err
		}
		line, err := auth.NewPassword(user, secret, iterations)
		if err != nil {
			return err
		}
		if file != "" {
			return replaceUser(file, user, line)
		}
		_, err = fmt.Fprintln(s.out, line)
		return err
	}
	return cmd
}

// readPassword asks twice at a terminal, without showing what is typed, and else
// reads one line.
func readPassword(s streams) (string, error) {
	in, isFile := s.in.(*os.File)
	if !isFile || !term.IsTerminal(int(in.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(s.in, 128<<10)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
	}
	var typed [2][]byte
	for i, ask := range []string{"password: ", "once more: "} {
		_, _ = fmt.Fprint(s.err, ask)
		var err error
		typed[i], err = term.ReadPassword(int(in.Fd()))
		_, _ = fmt.Fprintln(s.err)
		if err != nil {
			return "", err
		}
	}
	if !bytes.Equal(typed[0], typed[1]) {
		return "", errors.New("the two passwords differ")
	}
	return string(typed[0]), nil
}

// replaceUser puts line in place of the user's, or at the end; an empty one takes
// the user out. The file is changed as a whole, so that a gateway that reads it
// meanwhile sees the old one or the new one.
func replaceUser(path, user, line string) error {
	old, err := os.ReadFile(path)
	mode := fs.FileMode(0o600)
	if err != nil && (!errors.Is(err, fs.ErrNotExist) || line == "") {
		return err
	}
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	var text strings.Builder
	found := false
	for old := range strings.Lines(string(old)) {
		if name, _, ok := strings.Cut(old, ":"); !ok || name != user {
			text.WriteString(strings.TrimSuffix(old, "\n") + "\n")
			continue
		}
		if !found && line != "" {
			text.WriteString(line + "\n")
		}
		found = true
	}
	switch {
	case line == "" && !found:
		return fmt.Errorf("there is no user %q in %s", user, path)
	case line != "" && !found:
		text.WriteString(line + "\n")
	}
	return writeWhole(path, text.String(), mode)
}

// writeWhole replaces a file by one that is complete.
func writeWhole(path, text string, mode fs.FileMode) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone after the rename
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
