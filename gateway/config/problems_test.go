package config_test

import (
	"fmt"
	"strings"
	"testing"

	"flyscreen/gateway/config"
)

// TestProblems gives each rule a value that breaks it beside one that does not.
// Both stand on the second line of a file.
func TestProblems(t *testing.T) {
	issuer := "auth: {issuers: [{secret: " + secret32 + "}]}\n"
	keys := write(t, "keys.json", `{"keys":[]}`)
	private := write(t, "private.pem", "-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n")
	garbage := write(t, "garbage", "hello")
	empty := write(t, "empty", "\n")
	cases := []struct{ first, bad, key, says, good string }{
		{"", "http: {listen: 8080}", "http.listen", `"8080" is not an address`, "http: {listen: 127.0.0.1:8080}"},
		{"", "http: {listen: 127.0.0.1:65536}", "http.listen", `"65536" is not a port`, "http: {listen: 127.0.0.1:65535}"},
		{"", "http: {listen: 'http://127.0.0.1:80'}", "http.listen", "is not an address", "http: {listen: '[::1]:80'}"},
		{"", "http: {listen: ':8080'}", "http.listen", "no issuer is configured", "http: {listen: 'localhost:8080'}"},
		{"", "http: {listen: '0.0.0.0:8080'}", "http.listen", "no issuer is configured", "http: {listen: '127.9.9.9:8080'}"},
		{issuer, "http: {listen: nonsense}", "http.listen", "is not an address", "http: {listen: '0.0.0.0:8080'}"},
		{"", "http: {admin_listen: 127.0.0.1:8080}", "http.admin_listen", "same address", "http: {admin_listen: 127.0.0.1:8081}"},
		{"", "http: {allowed_origins: ['*']}", "http.allowed_origins", "every web page", "http: {allowed_origins: ['https://*.example.com']}"},
		{"", "http: {allowed_origins: ['null']}", "http.allowed_origins", "every web page", "http: {allowed_origins: ['http://null']}"},
		{"", "http: {allowed_origins: ['https://a.example/']}", "http.allowed_origins", "write https://a.example)", "http: {allowed_origins: ['https://a.example']}"},
		{"", "http: {allowed_origins: ['https://a.example/x']}", "http.allowed_origins", "more than scheme, host and port", "http: {allowed_origins: ['https://a.example:8443']}"},
		{"", "http: {allowed_origins: [a.example]}", "http.allowed_origins", "is not a web origin", "http: {allowed_origins: ['http://a.example']}"},
		{"", "http: {allowed_origins: ['https://a.*.example']}", "http.allowed_origins", "not the first label", "http: {allowed_origins: ['https://*.a.example']}"},
		{"", "http: {allowed_origins: ['https://*.com']}", "http.allowed_origins", "not the first label before a domain", "http: {allowed_origins: ['https://*.example.com']}"},
		{"", "http: {allowed_origins: ['http://*.example.com']}", "http.allowed_origins", "without https", "http: {allowed_origins: ['http://x.example.com']}"},
		{"", "http: {allowed_origins: ['https://a.example:443']}", "http.allowed_origins", "default port", "http: {allowed_origins: ['https://a.example:80']}"},
		{"", "http: {allowed_origins: ['https://a.example:99999']}", "http.allowed_origins", "no port that exists", "http: {allowed_origins: ['https://a.example:9999']}"},
		{"", "http: {allowed_origins: ['https://b\u00fccher.example']}", "http.allowed_origins", "letters that browsers encode", "http: {allowed_origins: ['https://xn--bcher-kva.example']}"},
		{"", "http: {allowed_origins: ['https://u@a.example']}", "http.allowed_origins", "more than scheme, host and port", "http: {allowed_origins: ['https://A.example']}"},
		{"", "http: {allowed_origins: https://a.example}", "http.allowed_origins", "is not a list", "http: {allowed_origins: [https://a.example]}"},
		{"", "http: {trusted_proxies: [proxy]}", "http.trusted_proxies", "is not an address range", "http: {trusted_proxies: ['2001:db8::/32']}"},
		{"", "http: {trusted_proxies: [0.0.0.0/0]}", "http.trusted_proxies", "trusts everybody", "http: {trusted_proxies: [10.0.0.0/8]}"},
		{"", "http: {tls: {cert: x}}", "http.tls.cert", "has no key", "http: {tls: {cert: ''}}"},
		{"", "http: {tls: {key: x}}", "http.tls.key", "has no certificate", "http: {tls: {key: ''}}"},
		{"", "http: {tls: {client_ca: x}}", "http.tls.client_ca", "no effect without TLS", "http: {tls: {client_ca: ''}}"},

		{"", "upstream: {url: 'http://x:1883'}", "upstream.url", `scheme "http" is not one of tcp, mqtt, mqtts, ssl, ws, wss (write tcp://host:1883)`, "upstream: {url: 'tcp://x:1883'}"},
		{"", "upstream: {url: 'broker:1883'}", "upstream.url", "has no scheme (write tcp://broker:1883)", "upstream: {url: 'ssl://broker'}"},
		{"", "upstream: {url: 'tcp://u:geheim@x'}", "upstream.url", "user name or password", "upstream: {url: 'tcp://x'}"},
		{"", "upstream: {url: 'tcp://'}", "upstream.url", "has no host", "upstream: {url: 'mqtt://x'}"},
		{"", "upstream: {url: 'tcp://x:0'}", "upstream.url", "is not a port", "upstream: {url: 'tcp://x:1'}"},
		{"", "upstream: {url: 'tcp://x/mqtt'}", "upstream.url", "has a path", "upstream: {url: 'wss://x/mqtt'}"},
		{"", "upstream: {connections: 17}", "upstream.connections", "not a number from 1 to 16", "upstream: {connections: 16}"},
		{"", "upstream: {url: 'tcp://x', profile: rabbit}", "upstream.profile", `"rabbit" is not one of mosquitto, emqx`, "upstream: {url: 'tcp://x', profile: emqx}"},
		{"", "upstream: {profile: emqx}", "upstream.profile", "the embedded one runs", "upstream: {profile: ''}"},
		{"", "upstream: {url: 'tcp://x', profile: azure-iot-hub}", "upstream.profile", "fixed topics", "upstream: {url: 'tcp://x', profile: nats}"},
		{"", "{upstream: {url: 'tcp://x', profile: aws-iot}, limits: {topic_bytes: 256, topic_levels: 8}}", "upstream.profile", "128KiB at most", "{upstream: {url: 'tcp://x', profile: aws-iot}, limits: {payload_bytes: 128KiB, topic_bytes: 256, topic_levels: 8}}"},
		{"", "upstream: {password: x}", "upstream.password", "no user name", "upstream: {password: x, username: u}"},
		{"", "upstream: {username: u, password_file: /nowhere/x}", "upstream.password_file", "does not exist", "upstream: {username: u, password_file: " + garbage + "}"},
		{"", "upstream: {username: u, password_file: " + empty + "}", "upstream.password_file", "is empty", "upstream: {username: u, password_file: ''}"},
		{"", "upstream: {client_id: \"a\\0\"}", "upstream.client_id", "control characters", "upstream: {client_id: a}"},
		{"", "upstream: {client_id: " + strings.Repeat("a", 201) + "}", "upstream.client_id", "has 201 bytes", "upstream: {client_id: " + strings.Repeat("a", 200) + "}"},
		{"", "upstream: {dollar_topics: [aws/]}", "upstream.dollar_topics", `does not begin with "$"`, "upstream: {dollar_topics: [$aws/]}"},
		{"", "upstream: {dollar_topics: [$aws]}", "upstream.dollar_topics", `does not end with "/"`, "upstream: {dollar_topics: [$aws/things/]}"},
		{"", "upstream: {dollar_topics: ['$aws/#']}", "upstream.dollar_topics", "wildcard", "upstream: {dollar_topics: [$aws/]}"},
		{"", "upstream: {url: 'tcp://x', tls: {ca: x}}", "upstream.tls.ca", "does not use TLS", "upstream: {url: 'tcp://x', tls: {ca: ''}}"},
		{"", "upstream: {url: 'ssl://x', tls: {ca: /nowhere/ca}}", "upstream.tls.ca", "does not exist", "upstream: {url: 'ssl://x', tls: {server_name: y}}"},
		{"", "upstream: {url: 'ssl://x', tls: {ca: " + garbage + "}}", "upstream.tls.ca", "holds no certificate", "upstream: {url: 'ssl://x', tls: {alpn: [mqtt]}}"},

		{"", "broker: {listen: '0.0.0.0:1883'}", "broker.listen", "no access control", "broker: {listen: '[::1]:1883'}"},
		{"", "broker: {listen: '127.0.0.1:8080'}", "broker.listen", "already taken by HTTP", "broker: {listen: '127.0.0.1:8081'}"},

		{"", "auth: {issuers: {issuer: a}}", "auth.issuers", "is not a list", "auth: {issuers: []}"},
		{"", "auth: {issuers: [a]}", "auth.issuers[0]", "is not a mapping", "auth: {issuers: [{secret: " + secret32 + "}]}"},
		{"", "auth: {issuers: [{issuer: a}]}", "auth.issuers[0]", "neither a secret nor keys", "auth: {issuers: [{issuer: a, keys_file: " + keys + "}]}"},
		{"", "auth: {issuers: [{secret: " + secret32 + ", keys_file: " + keys + "}]}", "auth.issuers[0]", "secret and keys_file at once", "auth: {issuers: [{secret: " + secret32 + "}]}"},
		{"", "auth: {issuers: [{secret: " + secret32[1:] + "}]}", "auth.issuers[0]", "has 31 bytes, fewer than 32", "auth: {issuers: [{secret: " + secret32 + "}]}"},
		{"", "auth: {issuers: [{algorithms: [HS512], secret: " + secret64[1:] + "}]}", "auth.issuers[0]", "fewer than 64", "auth: {issuers: [{algorithms: [HS512], secret: " + secret64 + "}]}"},
		{"", "auth: {issuers: [{algorithms: [none], secret: " + secret32 + "}]}", "auth.issuers[0].algorithms", `"none" is not`, "auth: {issuers: [{algorithms: [HS256], secret: " + secret32 + "}]}"},
		{"", "auth: {issuers: [{algorithms: [RS256], secret: " + secret32 + "}]}", "auth.issuers[0]", "needs keys", "auth: {issuers: [{algorithms: [RS256], keys_file: " + keys + "}]}"},
		{"", "auth: {issuers: [{algorithms: [HS256], keys_file: " + keys + "}]}", "auth.issuers[0]", "needs a secret", "auth: {issuers: [{algorithms: [EdDSA], keys_file: " + keys + "}]}"},
		{"", "auth: {issuers: [{keys_file: /nowhere/k}]}", "auth.issuers[0].keys_file", "does not exist", "auth: {issuers: [{keys_file: " + keys + "}]}"},
		{"", "auth: {issuers: [{keys_file: " + garbage + "}]}", "auth.issuers[0].keys_file", "holds neither", "auth: {issuers: [{keys_file: " + keys + "}]}"},
		{"", "auth: {issuers: [{keys_file: " + private + "}]}", "auth.issuers[0].keys_file", "private key", "auth: {issuers: [{keys_file: " + keys + "}]}"},
		{"", "auth: {issuers: [{secret_file: " + empty + "}]}", "auth.issuers[0].secret_file", "is empty", "auth: {issuers: [{secret: " + secret32 + "}]}"},
		{"", "auth: {issuers: [{jwks_url: 'http://x/k'}]}", "auth.issuers[0].jwks_url", "without TLS", "auth: {issuers: [{jwks_url: 'https://x/k'}]}"},
		{"", "auth: {issuers: [{jwks_url: 'http://127.0.0.1.x/k'}]}", "auth.issuers[0].jwks_url", "without TLS", "auth: {issuers: [{jwks_url: 'http://127.0.0.1/k'}]}"},
		{"", "auth: {issuers: [{jwks_url: x/k}]}", "auth.issuers[0].jwks_url", "is not an https URL", "auth: {issuers: [{jwks_url: '', secret: " + secret32 + "}]}"},
		{"", "auth: {issuers: [{jwks_url: 'https://u:geheim@x/k'}]}", "auth.issuers[0].jwks_url", "user name or password", "auth: {issuers: [{jwks_url: 'http://localhost:1/k?x=y'}]}"},
		{"", "auth: {issuers: [{jwks_url: 'https://x/#k'}]}", "auth.issuers[0].jwks_url", "has a fragment", "auth: {issuers: [{jwks_url: 'http://[::1]:1/k'}]}"},
		{"", "auth: {issuers: [{jwks_url: 'https://x', secret: " + secret32 + "}]}", "auth.issuers[0]", "jwks_url and secret at once", "auth: {issuers: [{jwks_url: 'https://x'}]}"},
		{"", "auth: {issuers: [{jwks_url: 'https://x', algorithms: [HS256]}]}", "auth.issuers[0]", "needs a secret", "auth: {issuers: [{jwks_url: 'https://x', algorithms: [RS256]}]}"},
		{"", "auth: {issuers: [{oidc: 'http://x'}]}", "auth.issuers[0].oidc", "without TLS", "auth: {issuers: [{oidc: 'https://x'}]}"},
		{"", "auth: {issuers: [{oidc: 'https://x', issuer: 'https://y'}]}", "auth.issuers[0]", "signs under its own URL", "auth: {issuers: [{oidc: 'https://x', issuer: 'https://x'}]}"},
		{"", "auth: {issuers: [{oidc: 'https://x'}, {issuer: 'https://x', secret: " + secret32 + "}]}", "auth.issuers[1]", "same issuer", "auth: {issuers: [{oidc: 'https://x'}, {secret: " + secret32 + "}]}"},
		{"", "auth: {issuers: [{secret: " + secret32 + "}, {secret: " + secret32 + "}]}", "auth.issuers[1]", "same issuer", "auth: {issuers: [{secret: " + secret32 + "}, {issuer: b, secret: " + secret32 + "}]}"},
		{"", "auth: {issuers: [{secrets: x, secret: " + secret32 + "}]}", "auth.issuers[0].secrets", "did you mean secret?", "auth: {issuers: [{secret: " + secret32 + "}]}"},
		{"", "auth: {anonymous: {pub: ['a/#/b']}}", "auth.anonymous.pub", `"#" must be the last level`, "auth: {anonymous: {pub: ['a/b/#']}}"},
		{"", "auth: {anonymous: {sub: ['$share/g/a']}}", "auth.anonymous.sub", "shared subscription", "auth: {anonymous: {sub: ['$SYS/a']}}"},
		{"", "auth: {anonymous: {sub: [" + strings.Repeat("a", 1025) + "]}}", "auth.anonymous.sub", "more than 1024", "auth: {anonymous: {sub: [" + strings.Repeat("a", 1024) + "]}}"},
		{"", "auth: {api_keys_file: /nowhere/x}", "auth.api_keys_file", "does not exist", "auth: {api_keys_file: " + empty + "}"},
		{"", "auth: {passwords_file: /nowhere/x}", "auth.passwords_file", "does not exist", "auth: {passwords_file: " + empty + "}"},
		{"", "auth: {passwords_file: " + empty + ", acl_file: /}", "auth.acl_file", "is a directory", "auth: {passwords_file: " + empty + ", acl_file: " + empty + "}"},
		{"", "auth: {acl_file: " + empty + "}", "auth.acl_file", "has no effect", "auth: {acl_file: ~}"},
		{"auth: {api_keys_file: " + empty + "}\n", "http: {listen: ''}", "http.listen", "is not an address", "http: {listen: '0.0.0.0:8080'}"},
		{"", "auth: {cookie: 'a b'}", "auth.cookie", "is no name for a cookie", "auth: {cookie: __Host-token}"},
		{"", "auth: {allow_token_in_query: yes}", "auth.allow_token_in_query", "neither true nor false", "auth: {allow_token_in_query: true}"},

		{"", "outbox: {enabled: maybe}", "outbox.enabled", "neither true nor false", "outbox: {enabled: false}"},
		{"", "outbox: {max_bytes: lots}", "outbox.max_bytes", "is not a size", "outbox: {max_bytes: 256MiB}"},
		{"", "outbox: {max_age: 24}", "outbox.max_age", "is not a duration", "outbox: {max_age: 24h}"},
		{"", "routes: [{path: /x}]", "routes", "not supported yet", "routes: []"},
		{"", "routes: {path: /x}", "routes", "is not a list", "routes: "},

		{"", "limits: {streams: 0}", "limits.streams", "0 is not from 1", "limits: {streams: 1}"},
		{"", "limits: {streams: many}", "limits.streams", "is not a whole number", "limits: {streams: 5000}"},
		{"", "limits: {streams: [1]}", "limits.streams", "is not a single value", "limits: {streams: '1'}"},
		{"", "limits: {payload_bytes: 17MiB}", "limits.payload_bytes", "is not from 1 to 16MiB", "limits: {payload_bytes: 64KiB}"},
		{"", "limits: {payload_bytes: 64KB}", "limits.payload_bytes", "is not a size", "limits: {payload_bytes: 64 KiB}"},
		{"", "limits: {payload_bytes: -1}", "limits.payload_bytes", "is not a size", "limits: {payload_bytes: 65536B}"},
		{"", "limits: {payload_bytes: 99999999999999GiB}", "limits.payload_bytes", "is not a size", "limits: {payload_bytes: 1KiB}"},
		{"", "limits: {payload_bytes: 2MiB}", "limits.payload_bytes", "cannot hold one payload", "limits: {payload_bytes: 2MiB, queue_bytes: 2MiB}"},
		{"", "limits: {publish_rate: 0}", "limits.publish_rate", "is not a number a second", "limits: {publish_rate: 0.1}"},
		{"", "limits: {publish_rate: .nan}", "limits.publish_rate", "is not a number a second", "limits: {publish_rate: 1e3}"},
		{"", "limits: {write_timeout: 10}", "limits.write_timeout", "is not a duration", "limits: {write_timeout: 10s}"},
		{"", "limits: {write_timeout: -1s}", "limits.write_timeout", "is not from 1s to 5m", "limits: {write_timeout: 5m}"},
		{"", "limits: {upstream_keep_alive: 1500ms}", "limits.upstream_keep_alive", "whole seconds", "limits: {upstream_keep_alive: 2000ms}"},
		{"", "limits: {upstream_backoff_min: 6s}", "limits.upstream_backoff_min", "longer than the longest", "limits: {upstream_backoff_min: 5s}"},
		{"", "limits: {connection_filters: 15}", "limits.connection_filters", "may hold only 15", "limits: {connection_filters: 16}"},

		{"", "log: {level: verbose}", "log.level", "is not one of debug, info, warn, error", "log: {level: warn}"},
		{"", "log: {format: xml}", "log.format", "is not one of text, json", "log: {format: json}"},
		{"", "data_dir: ''", "data_dir", "is empty", "data_dir: x"},

		{"", "http: {listne: x}", "http.listne", "did you mean listen?", "http: {}"},
		{"", "http: {zzzzzzzzzzzz: x}", "http.zzzzzzzzzzzz", "the keys here are listen, admin_listen", "http:"},
		{"", "htttp: {}", "htttp", "did you mean http?", "http: {}"},
		{"", "http: [x]", "http", "is not a mapping", "http: ~"},
		{"", "http: {listen: 127.0.0.1:1, listen: 127.0.0.1:2}", "http.listen", "given twice", "http: {listen: 127.0.0.1:1}"},
		{"", "http: &a {listen: *a}", "http.listen", "alias", "http: &a {listen: 127.0.0.1:1}"},
		{"", "http: {<<: {listen: 127.0.0.1:1}}", "http", "alias or merge key", "http: {listen: 127.0.0.1:1}"},
		{"", "http: {listen: 'x", "", "is not valid YAML", "http: {}"},
		{"", "---\nhttp: {}\n---\nhttp: {}", "", "more than one YAML document", "---\nhttp: {}\n"},
	}
	for _, c := range cases {
		t.Run(c.bad, func(t *testing.T) {
			first := c.first
			if first == "" {
				first = "# a comment\n"
			}
			path := write(t, "f.yaml", first+c.good)
			if got := problems(t, config.Sources{File: path}); got != nil {
				t.Errorf("the control %q has the problems %v", c.good, got)
			}
			path = write(t, "f.yaml", first+c.bad)
			got := problems(t, config.Sources{File: path})
			if len(got) != 1 {
				t.Fatalf("got %d problems, want one: %v", len(got), got)
			}
			p := got[0]
			if p.Key != c.key || p.File != path || p.Line < 2 || !strings.Contains(p.String(), c.says) {
				t.Errorf("got %q\nwant key %q on line 2 or later, saying %q", p, c.key, c.says)
			}
			if strings.Contains(p.Reason+p.Fix, "geheim") || strings.Contains(p.Reason+p.Fix, secret32) {
				t.Errorf("%q gives a secret away", p)
			}
		})
	}
}

func TestAllProblemsAtOnceInOrder(t *testing.T) {
	path := write(t, "f.yaml", "log: {level: x}\nfoo: 1\nhttp:\n  listen: y\n  allowed_origins:\n    - https://ok.example\n    - '*'\n    - z\n")
	got := problems(t, config.Sources{
		File:  path,
		Env:   []string{"PATH=/bin", "FLYSCREEN_UPSTREAM_URL=w", "FLYSCREEN_LOG_FORMT=json"},
		Flags: map[string]string{"limits.streams": "0", "limits.stream": "1"},
	})
	var lines []string
	for _, p := range got {
		lines = append(lines, fmt.Sprintf("%s:%d %s", strings.Replace(p.File, path, "f", 1), p.Line, p.Key))
	}
	want := []string{
		"f:1 log.level", "f:2 foo", "f:4 http.listen", "f:5 http.allowed_origins", "f:5 http.allowed_origins",
		"FLYSCREEN_LOG_FORMT:0 ", "FLYSCREEN_UPSTREAM_URL:0 upstream.url", "command line:0 limits.stream", "command line:0 limits.streams",
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}

func TestFileThatCannotBeRead(t *testing.T) {
	for _, path := range []string{"/nowhere/flyscreen.yaml", t.TempDir(), write(t, "big.yaml", strings.Repeat("#", 1<<20+1))} {
		got := problems(t, config.Sources{File: path})
		if len(got) != 1 || !strings.Contains(got[0].String(), path) {
			t.Errorf("%s: got %v", path, got)
		}
	}
	load(t, config.Sources{File: write(t, "empty.yaml", "")})
	load(t, config.Sources{File: write(t, "comment.yaml", "# nothing but this\n")})
}

func TestEnvironment(t *testing.T) {
	cases := []struct{ bad, says, good string }{
		{"FLYSCREEN_HTTP_LISTE=127.0.0.1:1", "did you mean FLYSCREEN_HTTP_LISTEN?", "FLYSCREEN_HTTP_LISTEN=127.0.0.1:1"},
		{"FLYSCREEN_SERVICE=x", "is not a known variable", "FLYSCREEN_SERVICE_HOST=10.0.0.1"},
		{"FLYSCREEN_PORTS=x", "is not a known variable", "FLYSCREEN_PORT=tcp://10.0.0.1:8080"},
		{"FLYSCREEN_PORT_X_TCP=x", "is not a known variable", "FLYSCREEN_PORT_8080_TCP_ADDR=10.0.0.1"},
		{"FLYSCREEN_TOKENS=x", "did you mean FLYSCREEN_TOKEN?", "FLYSCREEN_TOKEN=x"},
		{"FLYSCREEN_HTTP_LISTEN=x", "FLYSCREEN_HTTP_LISTEN: http.listen: ", "FLYSCREEN_HTTP_LISTEN="},
		{"FLYSCREEN_HTTP_ALLOWED_ORIGINS=https://a.example,b", `"b" is not a web origin`, "FLYSCREEN_HTTP_ALLOWED_ORIGINS= https://a.example , https://b.example,"},
		{"FLYSCREEN_AUTH_ISSUERS=[{", "is not valid YAML", `FLYSCREEN_AUTH_ISSUERS=[{"issuer":"a","secret":"` + secret32 + `"}]`},
		{"FLYSCREEN_AUTH_ISSUERS=- issuer: a", "auth.issuers[0]: has neither", "FLYSCREEN_AUTH_ISSUERS=- issuer: a\n  secret: " + secret32},
		{"FLYSCREEN_ROUTES=[{path: /x}]", "not supported yet", "FLYSCREEN_ROUTES=[]"},
	}
	for _, c := range cases {
		if got := problems(t, config.Sources{Env: []string{c.good}}); got != nil {
			t.Errorf("the control %q has the problems %v", c.good, got)
		}
		if got := problems(t, config.Sources{Env: []string{c.bad}}); len(got) != 1 || !strings.Contains(got[0].String(), c.says) {
			t.Errorf("%q: got %v, want one that says %q", c.bad, got, c.says)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("http: {listen: 127.0.0.1:1}", "[{issuer: a}]")
	f.Add("a: &a [*a]\n? {b: c}\n: d", "!!binary x")
	f.Add("- |\n x\n---\n<<: *x", "{}")
	f.Fuzz(func(t *testing.T, file, issuers string) {
		path := t.TempDir() + "/f.yaml"
		if err := writeFile(path, file); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(config.Sources{File: path, Env: []string{"FLYSCREEN_AUTH_ISSUERS=" + issuers}})
		if (c == nil) == (err == nil) {
			t.Errorf("got %v and %v", c, err)
		}
	})
}
