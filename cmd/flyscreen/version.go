package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is the release's name, set by -ldflags "-X main.version=1.2.3".
var version string

// versionName is the release's name, or what the build knows of itself.
func versionName() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// newVersion makes the command that says what this binary is.
func newVersion(s streams) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "print version, commit and Go version",
		Example: "  flyscreen version",
		Args:    operands(0, 0, "it takes only flags"),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(s.out, "flyscreen %s %s %s %s/%s\n", versionName(), commit(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// commit is the commit that was built, marked if files were changed since.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "commit-unknown"
	}
	var revision, modified string
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			modified = s.Value
		}
	}
	if revision == "" {
		return "commit-unknown"
	}
	if modified == "true" {
		revision += "+changes"
	}
	return revision
}
