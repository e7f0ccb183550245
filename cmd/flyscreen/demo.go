package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"flyscreen/auth"
	"flyscreen/gateway"
	"flyscreen/gateway/config"
)

const (
	// demoReady is how long the demo waits for the broker before it prints its
	// lines anyway.
	demoReady = 10 * time.Second
	// demoToken is how long the demo's token is good.
	demoToken = 24 * time.Hour
	// maxPets keeps a slip of the finger from filling the machine.
	maxPets = 1000
)

// newDemo makes the command that shows the gateway at work.
func newDemo(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo [flags]",
		Short: "run the gateway with simulated devices, and print what to try",
		Long: `Run the gateway as serve does, with a few simulated pet trackers that publish to the broker, and print a
link to the console, a token and lines to try. A port that is taken is replaced by a free one.
Without --data-dir nothing is left behind.`,
		Example: `  flyscreen demo
  flyscreen demo --pets 50
  flyscreen demo --upstream tcp://127.0.0.1:1883      the trackers publish to your broker`,
		Args: operands(0, 0, "it takes only flags"),
	}
	pets := cmd.Flags().Int("pets", 6, "number of trackers")
	set := addSettings(cmd, s)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *pets < 0 || *pets > maxPets {
			return badUsage("--pets %d is not from 0 to %d", *pets, maxPets)
		}
		var quiet []string
		if set.file == "" {
			quiet = []string{"FLYSCREEN_LOG_LEVEL=warn"} // the lines to try are what the terminal is for
		}
		cfg, err := set.load(cmd, s, quiet...)
		if err != nil {
			return err
		}
		if cfg.DataDir == config.Default().DataDir {
			dir, err := os.MkdirTemp("", "flyscreen-demo-")
			if err != nil {
				return err
			}
			defer func() { _ = os.RemoveAll(dir) }()
			cfg.DataDir = dir
		}
		return runDemo(cmd.Context(), cfg, *pets, s)
	}
	return cmd
}

// runDemo runs gateway and fleet until a signal.
func runDemo(ctx context.Context, cfg *config.Config, pets int, s streams) error {
	freePort(s.err, "HTTP", &cfg.HTTP.Listen)
	if cfg.Upstream.URL == "" {
		freePort(s.err, "the embedded broker", &cfg.Broker.Listen)
	}
	log := newLogger(s.err, cfg.Log)
	return runGateway(ctx, cfg, log, func(ctx context.Context, g *gateway.Gateway, key []byte) error {
		token, err := mintDemo(cfg, key)
		if err != nil {
			return err
		}
		ready, cancel := context.WithTimeout(ctx, demoReady)
		defer cancel()
		if late := g.WaitReady(ready); late != nil && ctx.Err() == nil {
			log.Warn("the gateway is not ready yet; the lines below work once it is", "broker", g.BrokerURL(), "err", late)
		}
		if err := printDemo(s.out, cfg, g, token, pets); err != nil {
			return err
		}
		f := &fleet{broker: g.BrokerURL(), access: cfg.Upstream, log: log, pets: pets}
		return f.run(ctx)
	})
}

// freePort replaces the port of addr by one that the system chooses, if it is
// taken. Should somebody take it between this look and the start, the start says
// so.
func freePort(say io.Writer, what string, addr *string) {
	l, err := net.Listen("tcp", *addr)
	if err == nil {
		_ = l.Close()
		return
	}
	host, port, splitErr := net.SplitHostPort(*addr)
	if splitErr != nil {
		return // the start will complain
	}
	_, _ = fmt.Fprintf(say, "port %s is taken; %s gets a free one\n", port, what)
	*addr = net.JoinHostPort(host, "0")
}

// mintDemo makes a token for the pets and a bit of room to play, not for
// everything: the broker may be a real one.
func mintDemo(cfg *config.Config, key []byte) (string, error) {
	c := auth.Claims{
		Subject: "demo", TTL: demoToken,
		Sub: []string{"pets/#"}, Pub: []string{"pets/+/commands/#"}, All: []string{"sensors/#", "chat/#"},
	}
	secret, err := signWith(cfg, &c, func() ([]byte, error) { return key, nil })
	if err != nil {
		return "", err
	}
	return auth.Mint(secret, c)
}

// demoText is what the demo prints. The token is in a variable so that the lines
// stay short enough to copy.
var demoText = template.Must(template.New("demo").Parse(`
Flyscreen is running with {{.Pets}} simulated pet trackers. Open the console:

  {{.URL}}/#token={{.Token}}

In another terminal:

  export FLYSCREEN_URL={{.URL}}
  export FLYSCREEN_TOKEN={{.Token}}

  # watch everything that moves
  curl -N -H "Authorization: Bearer $FLYSCREEN_TOKEN" '{{.URL}}/v1/stream?filter=pets/%23'
  # where is rex? (retained state)
  curl -H "Authorization: Bearer $FLYSCREEN_TOKEN" {{.URL}}/v1/topics/pets/rex/location
  # make rex's collar beep; it answers on pets/rex/events
  curl -H "Authorization: Bearer $FLYSCREEN_TOKEN" -d '{"sound":"beep"}' {{.URL}}/v1/topics/pets/rex/commands/sound
  # be a device that only speaks HTTP
  curl -H "Authorization: Bearer $FLYSCREEN_TOKEN" -d '{"temperature":72.5}' {{.URL}}/v1/topics/sensors/temperature

  # the same from the broker's side
  mosquitto_sub {{.Mosquitto}} -t 'sensors/#' -v
  mosquitto_pub {{.Mosquitto}} -t sensors/hall -m '{"humidity":41}'

Ctrl-C ends it. The token is good for {{.Hours}} hours, for pets/#, sensors/# and chat/#.
`))

func printDemo(out io.Writer, cfg *config.Config, g *gateway.Gateway, token string, pets int) error {
	var text strings.Builder
	err := demoText.Execute(&text, map[string]any{
		"Pets": pets, "URL": g.URL(), "Token": token, "Hours": int(demoToken.Hours()),
		"Mosquitto": mosquittoFlags(g.BrokerURL(), cfg.Upstream.Username),
	})
	if err != nil {
		return err
	}
	_, err = io.WriteString(out, text.String())
	return err
}

// mosquittoFlags says to Mosquitto's clients where the broker is. A password is
// left for the person to add.
func mosquittoFlags(broker, user string) string {
	scheme, address, _ := strings.Cut(broker, "://")
	host, port, err := net.SplitHostPort(strings.TrimRight(address, "/"))
	if err != nil {
		return "-L " + broker
	}
	flags := "-h " + host + " -p " + port
	if scheme == "mqtts" || scheme == "ssl" {
		flags += " --tls-use-os-certs"
	}
	if user != "" {
		flags += " -u " + user + " -P …"
	}
	return flags
}
