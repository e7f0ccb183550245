package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"flyscreen/gateway"
	"flyscreen/gateway/config"
)

// stopTime is how long everything may take after the first signal.
const stopTime = 30 * time.Second

// newServe makes the command that runs the gateway.
func newServe(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve [flags]",
		Short: "run the gateway",
		Long: `Run the gateway until SIGTERM or SIGINT; a second signal ends it at once. SIGHUP reads the files of
keys, passwords and rules anew, as a change of them does by itself. Without --upstream it
brings its own broker, and without an issuer it checks tokens with a key of its own; both are for
this machine only. Flags win over FLYSCREEN_… variables, those over the file.`,
		Example: `  flyscreen serve --upstream mqtts://broker:8883 --config flyscreen.yaml
  flyscreen serve --listen 127.0.0.1:9000 --set limits.streams=1000
  FLYSCREEN_UPSTREAM_URL=tcp://broker:1883 flyscreen serve`,
		Args: operands(0, 0, "it takes only flags"),
	}
	set := addSettings(cmd, s)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := set.load(cmd, s)
		if err != nil {
			return err
		}
		tuneMemory()
		return runGateway(cmd.Context(), cfg, newLogger(s.err, cfg.Log), nil)
	}
	return cmd
}

// runGateway runs a gateway until a signal or until it fails. beside, if not nil,
// runs while the gateway accepts connections, with a context that ends before the
// gateway stops; its error ends the gateway too.
func runGateway(ctx context.Context, cfg *config.Config, log *slog.Logger, beside func(context.Context, *gateway.Gateway, []byte) error) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)

	g, key, err := newGateway(cfg, log)
	if err != nil {
		return err
	}
	if err := g.Start(ctx); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- g.Wait() }()

	besideCtx, stopBeside := context.WithCancel(ctx)
	besideEnded := make(chan error, 1)
	go func() {
		if beside != nil {
			if err := beside(besideCtx, g, key); err != nil {
				besideEnded <- err
				return
			}
		}
		<-besideCtx.Done()
		besideEnded <- nil
	}()

	for running := true; running; {
		running = false
		select {
		case <-hangups:
			g.Reload()
			running = true
		case sig := <-signals:
			log.Info("stopping; a second signal ends the process at once", "signal", sig.String())
		case err = <-ended:
			ended <- nil
		case err = <-besideEnded:
			besideEnded <- nil
		}
	}
	stopped := make(chan error, 1)
	go func() {
		stopBeside()
		besideErr := <-besideEnded
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		stopErr := g.Stop(stopCtx)
		stopped <- errors.Join(besideErr, stopErr, <-ended)
	}()
	select {
	case stopErr := <-stopped:
		return errors.Join(err, stopErr)
	case <-signals:
		return errors.New("ended by a second signal, without a clean stop")
	}
}

// tuneMemory lets the collector run a little more often than Go's default: most of
// the memory is idle streams, which cost it little, and half of the garbage between
// two runs is spared. Whoever sets GOGC knows better.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// newGateway builds a gateway. What it complains of is the configuration.
func newGateway(cfg *config.Config, log *slog.Logger) (*gateway.Gateway, []byte, error) {
	var key []byte
	if cfg.UsesDevKey() {
		var created bool
		var err error
		if key, created, err = config.DevKey(cfg.DataDir); err != nil {
			return nil, nil, err
		}
		log.Info("no issuer is configured: tokens are checked with the development key", "data_dir", cfg.DataDir, "created", created)
	}
	g, err := gateway.New(cfg, gateway.Options{Logger: log, Version: versionName(), DevKey: key})
	if err != nil {
		return nil, nil, configProblem(err)
	}
	return g, key, nil
}

// configProblem makes what only the built gateway can find problems of the
// configuration like any other.
func configProblem(err error) error {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	problems := &config.Problems{}
	for _, e := range all {
		problems.List = append(problems.List, config.Problem{Reason: e.Error()})
	}
	return problems
}
