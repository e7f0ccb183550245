package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"flyscreen/gateway"
	"flyscreen/gateway/config"
	"flyscreen/gateway/wire"
)

// outboxTime bounds one of the commands.
const outboxTime = 30 * time.Second

// outboxAccess is the outbox of a running gateway, or the file of one that does not run.
type outboxAccess interface {
	List(ctx context.Context, limit int) (wire.OutboxList, error)
	Show(ctx context.Context, id uint64) (wire.OutboxMessage, []byte, error)
	Drop(ctx context.Context, id uint64) error
	Retry(ctx context.Context, id uint64) error
	Close() error
}

// newOutbox makes the commands that look into the outbox.
func newOutbox(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "outbox COMMAND",
		Short: "look at messages that wait for the broker, or are in quarantine",
		Long: `Look at the messages that wait for the broker, and at those in quarantine because the broker ended the
connection for them. While a gateway runs it is asked, at its admin address on this machine; otherwise
the file in its data directory is read. Both are found by the gateway's configuration.`,
		Example: `  flyscreen outbox ls
  flyscreen outbox show 17 > payload
  flyscreen outbox retry 17`,
		RunE: func(*cobra.Command, []string) error { return badUsage("choose one of ls, show, drop and retry") },
	}
	limit := 0
	ls := outboxCommand(s, "ls [flags]", "list the messages, the quarantined ones first", "flyscreen outbox ls --limit 10", false,
		func(ctx context.Context, box outboxAccess, _ uint64) error {
			all, err := box.List(ctx, limit)
			if err != nil {
				return err
			}
			return printOutbox(s.out, all)
		})
	ls.Flags().IntVar(&limit, "limit", 100, "list at most this `many`")
	cmd.AddCommand(ls,
		outboxCommand(s, "show ID [flags]", "print a message's payload, and on standard error the rest", "flyscreen outbox show 17 > payload", true,
			func(ctx context.Context, box outboxAccess, id uint64) error {
				m, payload, err := box.Show(ctx, id)
				if err != nil {
					return err
				}
				_, _ = fmt.Fprintf(s.err, "%s: qos %d, retain %t, accepted %s, %s %s\n", m.Topic, m.QoS, m.Retain, m.Accepted.Format(time.RFC3339), m.State, m.Reason)
				_, err = s.out.Write(payload)
				return err
			}),
		outboxCommand(s, "drop ID [flags]", "delete a message; it is not delivered any more", "flyscreen outbox drop 17", true,
			func(ctx context.Context, box outboxAccess, id uint64) error { return box.Drop(ctx, id) }),
		outboxCommand(s, "retry ID [flags]", "take a message out of quarantine and deliver it", "flyscreen outbox retry 17", true,
			func(ctx context.Context, box outboxAccess, id uint64) error { return box.Retry(ctx, id) }))
	return cmd
}

// outboxCommand makes one of the commands; act gets the message's id where the
// command wants one.
func outboxCommand(s streams, use, short, example string, wantsID bool, act func(context.Context, outboxAccess, uint64) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Example: "  " + example, Args: operands(0, 0, "it takes only flags"), DisableFlagsInUseLine: true}
	if wantsID {
		cmd.Args = operands(1, 1, "give the id of a message, as ls shows it")
	}
	set := addSettings(cmd, s, "data_dir", "http.listen")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id := uint64(0)
		if wantsID {
			var err error
			if id, err = strconv.ParseUint(args[0], 10, 64); err != nil {
				return badUsage("%q is not an id: it is a number, as ls shows it", args[0])
			}
		}
		cfg, err := set.load(cmd, s)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), outboxTime)
		defer cancel()
		box, err := openOutbox(cfg)
		if err != nil {
			return err
		}
		err = act(ctx, box, id)
		if closeErr := box.Close(); err == nil {
			err = closeErr
		}
		return err
	}
	return cmd
}

// openOutbox finds the outbox: in its file, or, where a gateway holds that, there.
func openOutbox(cfg *config.Config) (outboxAccess, error) {
	file, err := gateway.OpenOutbox(cfg, slog.New(slog.DiscardHandler))
	if err == nil {
		return outboxFile{file}, nil
	}
	address := cfg.HTTP.AdminListen
	scheme := "http"
	if address == "" {
		address = cfg.HTTP.Listen
		if cfg.HTTP.TLS.Cert != "" {
			scheme = "https"
		}
	}
	return newOutboxRemote(scheme+"://"+onThisMachine(address), err), nil
}

// outboxFile is the file; its calls take no time worth a context.
type outboxFile struct{ *gateway.OutboxFile }

func (f outboxFile) List(_ context.Context, limit int) (wire.OutboxList, error) {
	return f.OutboxFile.List(limit)
}

func (f outboxFile) Show(_ context.Context, id uint64) (wire.OutboxMessage, []byte, error) {
	return f.OutboxFile.Show(id)
}

func printOutbox(w io.Writer, all wire.OutboxList) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "ID\tSTATE\tACCEPTED\tQOS\tBYTES\tTOPIC\tREASON") // Flush tells
	for _, m := range all.Messages {
		_, _ = fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%d\t%s\t%s\n", m.ID, m.State, m.Accepted.Format(time.RFC3339), m.QoS, m.Bytes, m.Topic, m.Reason)
	}
	_, _ = fmt.Fprintf(t, "%d queued, %d quarantined\n", all.Queued, all.Quarantined)
	return t.Flush()
}
