package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flyscreen/auth"
	"flyscreen/gateway/config"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
)

// newToken makes the command that signs tokens.
func newToken(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token --subject NAME (--sub FILTER | --pub FILTER | --all FILTER)... [flags]",
		Short: "sign a token for a client",
		Long: `Print a token (JWT, HS256), signed with the secret of a configured issuer or, without an issuer, with
the development key in the data directory. Filters may hold ${sub} for the subject.`,
		Example: `  flyscreen token --subject dash --sub 'pets/#' --pub 'pets/+/commands/#' --ttl 1h
  flyscreen token --subject bob --all 'chat/${sub}/#' --config flyscreen.yaml --issuer https://id.example.com
  export FLYSCREEN_TOKEN=$(flyscreen token --subject me --all '#')`,
		Args: operands(0, 0, "it takes only flags"),
	}
	var c auth.Claims
	var secretFile string
	f := cmd.Flags()
	f.StringVar(&c.Subject, "subject", "", "`name` of who the token is for (sub)")
	f.StringArrayVar(&c.Sub, "sub", nil, "`filter` to subscribe to (repeatable)")
	f.StringArrayVar(&c.Pub, "pub", nil, "`filter` to publish to (repeatable)")
	f.StringArrayVar(&c.All, "all", nil, "`filter` for both (repeatable)")
	f.DurationVar(&c.TTL, "ttl", time.Hour, "how long it is good")
	f.StringVar(&c.Issuer, "issuer", "", "`name` of the issuer (iss) whose secret signs")
	f.StringArrayVar(&c.Audience, "audience", nil, "`name` of a recipient (aud, repeatable)")
	f.StringVar(&secretFile, "secret-file", "", "`file` with the secret, instead of a configuration")
	set := addSettings(cmd, s, "data_dir")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkClaims(c); err != nil {
			return err
		}
		secret, err := tokenSecret(cmd, s, set, secretFile, &c)
		if err != nil {
			return err
		}
		token, err := auth.Mint(secret, c)
		var refusal *fault.Error // its code is for clients; this is the person who writes the token
		if errors.As(err, &refusal) {
			return errors.New(refusal.Detail)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(s.out, token)
		return err
	}
	return cmd
}

// checkClaims finds what no gateway would accept, or what gives nothing.
func checkClaims(c auth.Claims) error {
	switch {
	case c.Subject == "":
		return badUsage("who is the token for? add --subject NAME")
	case len(c.Sub)+len(c.Pub)+len(c.All) == 0:
		return badUsage("the token would allow nothing: add --sub, --pub or --all with a filter such as 'pets/#'")
	case c.TTL < time.Second:
		return badUsage("--ttl %s is too short: write one such as 1h", c.TTL)
	}
	for _, flag := range []struct {
		name    string
		filters []string
	}{{"--sub", c.Sub}, {"--pub", c.Pub}, {"--all", c.All}} {
		for _, filter := range flag.filters {
			if _, err := mqtt.ParseFilter(filter, mqtt.Limits{}); err != nil {
				return badUsage("%s %q is not a topic filter: %v", flag.name, filter, err)
			}
			if strings.HasPrefix(filter, "$share/") {
				return badUsage("%s %q is a shared subscription, which cannot be granted", flag.name, filter)
			}
		}
	}
	return nil
}

// tokenSecret finds the secret to sign with and completes issuer and audience as
// that issuer wants them.
func tokenSecret(cmd *cobra.Command, s streams, set *settings, file string, c *auth.Claims) ([]byte, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("--secret-file: %w", err)
		}
		return []byte(strings.TrimRight(string(b), "\r\n")), nil
	}
	cfg, err := set.load(cmd, s)
	if err != nil {
		return nil, err
	}
	return signWith(cfg, c, func() ([]byte, error) { return devKey(cfg, s.err) })
}

// signWith picks the secret from a configuration; development makes the
// development key when it is wanted.
func signWith(cfg *config.Config, c *auth.Claims, development func() ([]byte, error)) ([]byte, error) {
	if cfg.UsesDevKey() {
		return development()
	}
	i := slices.IndexFunc(cfg.Auth.Issuers, func(i config.Issuer) bool {
		return i.Secret != "" && (c.Issuer == "" || c.Issuer == i.Issuer || i.Issuer == "")
	})
	if i < 0 {
		return nil, fmt.Errorf("no configured issuer%s has a secret to sign with: with public keys, only the holder of the private key can sign", named(c.Issuer))
	}
	issuer := cfg.Auth.Issuers[i]
	if len(issuer.Algorithms) > 0 && !slices.Contains(issuer.Algorithms, "HS256") {
		return nil, fmt.Errorf("the issuer%s accepts %s, and this command signs with HS256 only", named(issuer.Issuer), strings.Join(issuer.Algorithms, ", "))
	}
	if c.Issuer == "" {
		c.Issuer = issuer.Issuer
	}
	if len(c.Audience) == 0 && len(issuer.Audience) > 0 {
		c.Audience = issuer.Audience[:1]
	}
	return []byte(issuer.Secret), nil
}

func named(issuer string) string {
	if issuer == "" {
		return ""
	}
	return fmt.Sprintf(" %q", issuer)
}
