package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"flyscreen/gateway/mqtt"
)

// maxLine bounds one line of the stream, in bytes: the largest payload as the
// longest JSON text ("\u0000" is six bytes for one), and some for the rest.
const maxLine = 6*maxPayload + 1<<20

// subscription is what the flags of sub say.
type subscription struct {
	count            int
	format           string
	qos              int
	snapshot, strict bool
}

// newSub makes the command that prints messages from a gateway.
func newSub(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sub FILTER... [flags]",
		Short: "print messages from a gateway",
		Long: `Print the messages that match the filters, one JSON object a line: first the retained ones, then what
comes in. What the gateway says about the stream goes to standard error. Exit code 0 after --count
messages or Ctrl-C, 1 when the stream ends.`,
		Example: `  flyscreen sub 'pets/#'
  flyscreen sub 'pets/+/location' --count 1 --format payload
  flyscreen sub '+/status' 'alerts/#' --snapshot=false | jq .payload`,
		Args: operands(1, -1, "it takes at least one FILTER, such as 'pets/#'"),
	}
	var sub subscription
	f := cmd.Flags()
	f.IntVarP(&sub.count, "count", "n", 0, "end after so many messages; 0 is never")
	f.StringVar(&sub.format, "format", "json", "json: the message object; payload: the payload alone and a line break")
	f.IntVarP(&sub.qos, "qos", "q", 1, "highest QoS to deliver with: 0, 1 or 2")
	f.BoolVar(&sub.snapshot, "snapshot", true, "begin with the retained messages")
	f.BoolVar(&sub.strict, "strict", false, "fail if the token does not cover the filters in full")
	c := addClient(cmd, s)
	cmd.RunE = func(cmd *cobra.Command, filters []string) error {
		if err := sub.check(filters); err != nil {
			return err
		}
		ctx, cancel := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer cancel()
		err := sub.follow(ctx, c, filters, s)
		if ctx.Err() != nil {
			return nil // asked to end
		}
		return err
	}
	return cmd
}

func (sub *subscription) check(filters []string) error {
	for _, f := range filters {
		if _, err := mqtt.ParseFilter(f, mqtt.Limits{}); err != nil {
			return badUsage("the filter %q: %v", f, err)
		}
	}
	switch {
	case sub.count < 0:
		return badUsage("--count %d is negative", sub.count)
	case sub.format != "json" && sub.format != "payload":
		return badUsage("--format %q is not json or payload", sub.format)
	case sub.qos < 0 || sub.qos > 2:
		return badUsage("--qos %d is not 0, 1 or 2", sub.qos)
	}
	return nil
}

// follow prints the stream until it ends.
func (sub *subscription) follow(ctx context.Context, c *client, filters []string, s streams) error {
	query := url.Values{"filter": filters, "qos": {strconv.Itoa(sub.qos)}, "snapshot": {strconv.FormatBool(sub.snapshot)}}
	if sub.strict {
		query.Set("strict", "true")
	}
	// url.Values writes a space as "+", which in this query is the wildcard.
	encoded := bytes.ReplaceAll([]byte(query.Encode()), []byte("+"), []byte("%20"))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/v1/stream?"+string(encoded), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/x-ndjson")
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return sub.print(resp.Body, s)
}

// event is what sub looks at in a line of the stream.
type event struct {
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload"`
	Text    *string         `json:"text"`
	Base64  []byte          `json:"base64"`
	Code    int             `json:"code"`
	Reason  string          `json:"reason"`
}

func (sub *subscription) print(body io.Reader, s streams) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	seen := 0
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) == 0 {
			continue // keeps the connection alive
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return fmt.Errorf("the gateway sent a line that is not JSON: %w", err)
		}
		switch e.Type {
		case "message":
			if err := sub.printMessage(s.out, line, e); err != nil {
				return err
			}
			if seen++; seen == sub.count {
				return nil
			}
		case "end":
			return fmt.Errorf("the gateway ended the stream: %s (code %d)", e.Reason, e.Code)
		default:
			_, _ = fmt.Fprintf(s.err, "%s\n", line)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the connection broke off: %w", err)
	}
	return errors.New("the connection ended without a reason")
}

func (sub *subscription) printMessage(out io.Writer, line []byte, e event) error {
	if sub.format == "payload" {
		switch {
		case e.Payload != nil:
			line = e.Payload
		case e.Text != nil:
			line = []byte(*e.Text)
		default:
			line = e.Base64
		}
	}
	// One write, so that a reader never sees half a line.
	_, err := out.Write(append(bytes.Clone(line), '\n'))
	return err
}
