package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flyscreen/gateway/mqtt"
)

const (
	// pubTime is how long one publish may take, the gateway's own deadline
	// included.
	pubTime = 60 * time.Second
	// maxPayload is more than any gateway can be configured to take, in bytes.
	maxPayload = 16 << 20
)

// publish is what the flags of pub say.
type publish struct {
	data, file    string
	qos           int
	retain, clear bool
}

// newPub makes the command that publishes one message through a gateway.
func newPub(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pub TOPIC [--data TEXT | --file FILE] [flags]",
		Short: "publish a message through a gateway",
		Long: `Publish one message; the payload is --data, a file, or standard input. Prints what the gateway
says about the delivery: "acknowledged" means that the broker has it.`,
		Example: `  flyscreen pub pets/rex/commands/sound --data '{"sound":"beep"}'
  flyscreen pub sensors/hall/config --retain --file config.json
  date | flyscreen pub clock/now --qos 0`,
		Args: operands(1, 1, "it takes one TOPIC"),
	}
	var p publish
	f := cmd.Flags()
	f.StringVarP(&p.data, "data", "d", "", "payload as `text`")
	f.StringVarP(&p.file, "file", "f", "", "payload from a `file`, - is standard input")
	f.IntVarP(&p.qos, "qos", "q", 1, "0 at most once, 1 at least once, 2 exactly once")
	f.BoolVarP(&p.retain, "retain", "r", false, "keep the message as the topic's state")
	f.BoolVar(&p.clear, "clear", false, "clear the topic's state; takes no payload")
	c := addClient(cmd, s)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := p.check(cmd, args[0]); err != nil {
			return err
		}
		payload, err := p.payload(cmd, s)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), pubTime)
		defer cancel()
		return p.send(ctx, c, args[0], payload, s.out)
	}
	return cmd
}

func (p *publish) check(cmd *cobra.Command, topic string) error {
	if _, err := mqtt.ParseTopic(topic, mqtt.Limits{}); err != nil {
		return badUsage("the topic %q: %v", topic, err)
	}
	sources := 0
	for _, flag := range []string{"data", "file", "clear"} {
		if cmd.Flags().Changed(flag) {
			sources++
		}
	}
	switch {
	case p.qos < 0 || p.qos > 2:
		return badUsage("--qos %d is not 0, 1 or 2", p.qos)
	case sources > 1:
		return badUsage("only one of --data, --file and --clear can be the payload")
	case p.clear && p.retain:
		return badUsage("--clear and --retain exclude each other")
	}
	return nil
}

// payload reads what is to be sent.
func (p *publish) payload(cmd *cobra.Command, s streams) ([]byte, error) {
	if p.clear {
		return nil, nil
	}
	if cmd.Flags().Changed("data") {
		return []byte(p.data), nil
	}
	in := s.in
	if p.file != "" && p.file != "-" {
		f, err := os.Open(p.file)
		if err != nil {
			return nil, fmt.Errorf("--file: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	} else if isTerminal(in) {
		_, _ = fmt.Fprintln(s.err, "reading the payload from the terminal; Ctrl-D ends it, --data gives it on the command line")
	}
	b, err := io.ReadAll(io.LimitReader(in, maxPayload+1))
	if err != nil {
		return nil, fmt.Errorf("read the payload: %w", err)
	}
	if len(b) > maxPayload {
		return nil, fmt.Errorf("the payload has more than %d bytes, which no gateway takes", maxPayload)
	}
	return b, nil
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// send publishes and prints the answer.
func (p *publish) send(ctx context.Context, c *client, topic string, payload []byte, out io.Writer) error {
	method := http.MethodPost
	switch {
	case p.clear:
		method = http.MethodDelete
	case p.retain:
		method = http.MethodPut
	}
	target := c.base + "/v1/topics/" + escapeTopic(topic) + "?qos=" + strconv.Itoa(p.qos)
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(payload))
	if err != nil {
		return err
	}
	if !p.clear {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("the gateway accepted the message (%s), and its answer broke off: %w", resp.Status, err)
	}
	_, err = fmt.Fprintln(out, strings.TrimSpace(string(answer)))
	return err
}

// escapeTopic writes a topic as the path of a URL: levels stay levels, and
// whatever a URL would read as something else is encoded.
func escapeTopic(topic string) string {
	levels := strings.Split(topic, "/")
	for i, level := range levels {
		levels[i] = url.PathEscape(level)
	}
	return strings.Join(levels, "/")
}
