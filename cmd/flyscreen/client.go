package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"flyscreen/gateway/wire"
)

// client is the connection of pub and sub to a gateway.
type client struct {
	base  string
	token string
}

// addClient gives cmd --url and --token.
func addClient(cmd *cobra.Command, s streams) *client {
	c := &client{}
	base := s.getenv("FLYSCREEN_URL")
	if base == "" {
		base = "http://127.0.0.1:8080"
	}
	f := cmd.Flags()
	f.StringVar(&c.base, "url", base, "`URL` of the gateway (FLYSCREEN_URL)")
	f.StringVar(&c.token, "token", "", "`token`; better in FLYSCREEN_TOKEN, since command lines are seen by others")
	pre := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if c.token == "" {
			c.token = s.getenv("FLYSCREEN_TOKEN") // not the flag's default, which --help would show
		}
		u, err := url.Parse(c.base)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return badUsage("--url %q is not the URL of a gateway: write one such as http://127.0.0.1:8080", c.base)
		}
		c.base = strings.TrimRight(c.base, "/")
		if pre != nil {
			return pre(cmd, args)
		}
		return nil
	}
	return c
}

// do sends a request; any answer but a 2xx is an error in words.
func (c *client) do(req *http.Request) (*http.Response, error) {
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	// A redirect would carry the token elsewhere; a gateway never sends one.
	h := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := h.Do(req)
	if err != nil {
		return nil, noAnswer(c.base, err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	return nil, c.refusal(resp)
}

// refusal words an answer that is not a 2xx.
func (c *client) refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var p wire.Problem
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), wire.ProblemType) || json.Unmarshal(text, &p) != nil {
		return fmt.Errorf("%s answers %s, not like a gateway: check --url", c.base, resp.Status)
	}
	hint := ""
	switch {
	case resp.StatusCode == http.StatusUnauthorized && c.token == "":
		hint = " (set FLYSCREEN_TOKEN; flyscreen token makes one)"
	case resp.StatusCode == http.StatusUnauthorized:
		hint = " (get a new token)"
	case resp.Header.Get("Retry-After") != "":
		hint = " (try again in " + resp.Header.Get("Retry-After") + " s)"
	}
	return fmt.Errorf("%d %s: %s%s", resp.StatusCode, p.Title, p.Detail, hint)
}
