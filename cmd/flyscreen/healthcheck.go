package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flyscreen/gateway/config"
)

// healthTime is how long the gateway may take to answer.
const healthTime = 3 * time.Second

// newHealthcheck makes the command for container health checks.
func newHealthcheck(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "healthcheck [flags]",
		Short: "ask a gateway whether it is ready",
		Long: `Ask /readyz (with --live: /livez) of the gateway on this machine; exit code 0 if it says yes within 3 s,
1 otherwise. The address is that of FLYSCREEN_HTTP_LISTEN, or 127.0.0.1:8080.`,
		Example: `  flyscreen healthcheck
  flyscreen healthcheck --url http://127.0.0.1:9000/readyz`,
		Args: operands(0, 0, "it takes only flags"),
	}
	address := cmd.Flags().String("url", "", "full `URL` to ask")
	live := cmd.Flags().Bool("live", false, "ask whether it runs at all, not whether it is ready")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		target := *address
		client := &http.Client{}
		switch {
		case target == "":
			target = ownURL(s) + "/readyz"
			client.Transport = &http.Transport{
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // this machine's own gateway, by an address that its certificate need not hold
			}
			if *live {
				target = ownURL(s) + "/livez"
			}
		case *live:
			return badUsage("--live and --url exclude each other: the URL says what is asked")
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), healthTime)
		defer cancel()
		return askHealth(ctx, client, target)
	}
	return cmd
}

// ownURL is where the gateway on this machine listens, as far as the environment
// says.
func ownURL(s streams) string {
	listen := s.getenv("FLYSCREEN_HTTP_LISTEN")
	if listen == "" {
		listen = config.Default().HTTP.Listen
	}
	scheme := "http"
	if s.getenv("FLYSCREEN_HTTP_TLS_CERT") != "" {
		scheme = "https"
	}
	return scheme + "://" + onThisMachine(listen)
}

// onThisMachine is where this machine reaches a gateway that listens at address.
func onThisMachine(address string) string {
	if host, port, err := net.SplitHostPort(address); err == nil {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			return net.JoinHostPort("127.0.0.1", port)
		}
	}
	return address
}

// askHealth returns nil if target answers 200.
func askHealth(ctx context.Context, client *http.Client, target string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil || req.URL.Host == "" {
		return badUsage("%q is not a URL: write one such as http://127.0.0.1:8080/readyz", target)
	}
	resp, err := client.Do(req)
	if err != nil {
		return noAnswer(target, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	return fmt.Errorf("%s answers %s: %s", target, resp.Status, strings.TrimSpace(string(text)))
}

// noAnswer words a request that failed, without Go's "Get \"…\":".
func noAnswer(target string, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		if u.Timeout() {
			return fmt.Errorf("%s does not answer in time", target)
		}
		err = u.Err
	}
	return fmt.Errorf("%s does not answer: %w (is the gateway running there?)", target, err)
}
