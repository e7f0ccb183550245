package blackbox_test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"flyscreen"
)

// SIGTERM: not ready, no new streams, the open ones are told to come back, and
// the exit is clean.
func TestTermination(t *testing.T) {
	onBoth(t, map[string]any{"limits.drain_timeout": "3s"}, func(t *testing.T, s *site) {
		token := everything(t)
		streams := map[string]*stream{}
		for _, door := range doors {
			streams[door] = s.followLive(t, door, token, "#")
		}
		s.gateway.terminate(t)
		for door, st := range streams {
			all := st.await(t, "the end", func(all []event) bool { return count(all, "end") > 0 })
			end := pick(all, "end")[0]
			if !end.Reconnect || end.Code != 1001 && end.Code != 1012 || end.AfterMS == nil {
				t.Errorf("%s: %s", door, end.object)
			}
			if last := all[len(all)-1]; last.Type != "end" && last.Type != "closed" {
				t.Errorf("%s: after the end came %s", door, last.object)
			}
		}
		all := streams["ws"].await(t, "closed", func(all []event) bool { return count(all, "closed") > 0 })
		if c := pick(all, "closed")[0]; c.Code != 1001 && c.Code != 1012 {
			t.Errorf("ws: closed with %d %s", c.Code, c.Reason)
		}
		if code := s.gateway.wait(t); code != 0 {
			log, _, _ := s.gateway.log.snapshot()
			t.Errorf("exit code %d\n%s", code, tail(log))
		}
		if s.mosquitto != nil {
			s.mosquittoPub(t, "still", []byte("here")) // the broker is not ours to stop
		}
	})
}

// healthcheck says by its exit code what /readyz says.
func TestHealthcheck(t *testing.T) {
	s := boot(t, "embedded", nil)
	command(t, nil, suite.binary, "healthcheck", "--url", s.url+"/readyz")
	s.gateway.terminate(t)
	s.gateway.wait(t)
	if code := launch(t, nil, suite.binary, "healthcheck", "--url", s.url+"/readyz").wait(t); code != 1 {
		t.Errorf("healthcheck of a gateway that is gone: exit code %d, want 1", code)
	}
}

// The description is served as it is in the repository, and is what these tests
// hold the answers against; the page and its files are served with their guards.
func TestDescriptionAndPage(t *testing.T) {
	s := boot(t, "embedded", nil)
	if a := s.do(t, http.MethodGet, "/openapi.yaml", "", nil); !bytes.Equal(a.body, flyscreen.OpenAPI) || a.header.Get("Content-Type") != "application/yaml" {
		t.Errorf("/openapi.yaml: %d %s, %d bytes of %d", a.status, a.header.Get("Content-Type"), len(a.body), len(flyscreen.OpenAPI))
	}
	page := s.do(t, http.MethodGet, "/", "", nil)
	if page.status != http.StatusOK || !strings.Contains(string(page.body), "<title>Flyscreen</title>") {
		t.Errorf("/: %d %s", page.status, short(page.body))
	}
	paths := []string{"/"}
	for _, part := range strings.Split(string(page.body), `"`) {
		if strings.HasPrefix(part, "console/") && !slices.Contains(paths, "/"+part) {
			paths = append(paths, "/"+part)
		}
	}
	if len(paths) < 4 {
		t.Errorf("the page refers to %q only", paths)
	}
	for _, path := range paths {
		a := s.do(t, http.MethodGet, path, "", nil)
		policy := a.header.Get("Content-Security-Policy")
		if a.status != http.StatusOK || strings.Contains(policy, "unsafe") || !strings.Contains(policy, "default-src 'none'") {
			t.Errorf("%s: %d, policy %q", path, a.status, policy)
		}
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			if again := s.do(t, method, path, "", nil, "If-None-Match", a.header.Get("ETag")); again.status != http.StatusNotModified {
				t.Errorf("%s %s with its ETag: %d", method, path, again.status)
			}
			if again := s.do(t, method, path, "", nil); again.status != http.StatusOK {
				t.Errorf("%s %s: %d", method, path, again.status)
			}
		}
	}
	wantProblem(t, "no such file", s.do(t, http.MethodGet, "/console/none.js", "", nil), http.StatusNotFound, "not-found")
	if a := s.do(t, http.MethodHead, "/console/none.js", "", nil); a.status != http.StatusNotFound {
		t.Errorf("HEAD of no such file: %d", a.status)
	}
}

// The methods that the description does not name are refused on every path.
func TestUndescribedMethods(t *testing.T) {
	s := boot(t, "embedded", nil)
	token := everything(t)
	for path, item := range suite.document.model.Paths.PathItems.FromOldest() {
		target := strings.NewReplacer("{topic}", "a", "{file}", "console.js").Replace(path)
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			if item.GetOperations().GetOrZero(strings.ToLower(method)) != nil {
				continue
			}
			a := s.do(t, method, target, token, nil)
			if method == http.MethodHead {
				if a.status != http.StatusMethodNotAllowed {
					t.Errorf("HEAD %s: %d", path, a.status)
				}
				continue
			}
			wantProblem(t, method+" "+path, a, http.StatusMethodNotAllowed, "method-not-allowed")
		}
	}
}

// With an admin listener the metrics are there and no longer here.
func TestAdminListener(t *testing.T) {
	port := freePort(t)
	s := boot(t, "embedded", map[string]any{"http.admin_listen": "127.0.0.1:" + port})
	wantProblem(t, "/metrics on the main listener", s.do(t, http.MethodGet, "/metrics", "", nil), http.StatusNotFound, "not-found")
	s.url = "http://127.0.0.1:" + port
	if n := s.metric(t, "flyscreen_upstream_up"); n < 1 {
		t.Errorf("flyscreen_upstream_up adds up to %v", n)
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if a := s.do(t, http.MethodGet, path, "", nil); a.status != http.StatusOK {
			t.Errorf("%s on the admin listener: %d", path, a.status)
		}
	}
	// What is described for the main listener does not hold here: the plain client asks.
	res, err := http.Get(s.url + "/v1/topics?filter=a")
	if err != nil {
		t.Fatal(err)
	}
	wantProblem(t, "the API on the admin listener", read(t, res), http.StatusNotFound, "not-found")
}

// A gateway that would stand open on a public address does not start; on
// loopback it makes itself a key.
func TestStartWithoutIssuer(t *testing.T) {
	dir := t.TempDir()
	refused := launch(t, nil, suite.binary, "serve", "--config", configFile(t, map[string]any{"data_dir": dir, "http.listen": "0.0.0.0:" + freePort(t)}))
	if code := refused.wait(t); code != 78 {
		t.Errorf("exit code %d, want 78", code)
	}
	s := &site{mqttPort: freePort(t)}
	port := freePort(t)
	s.url = "http://127.0.0.1:" + port
	config := configFile(t, map[string]any{"data_dir": dir, "http.listen": "127.0.0.1:" + port, "broker.listen": "127.0.0.1:" + s.mqttPort})
	s.gateway = launch(t, nil, suite.binary, "serve", "--config", config)
	t.Cleanup(func() { s.report(t) })
	s.awaitReady(t)
	token := command(t, nil, suite.binary, "token", "--config", config, "--subject", "dev", "--all", "#")
	s.publish(t, token, "dev", []byte("x"))
	if files, err := os.ReadDir(dir); err != nil || len(files) == 0 {
		t.Errorf("no key in data_dir: %v", err)
	}
	wantProblem(t, "another's token", s.do(t, http.MethodPost, "/v1/topics/dev", everything(t), []byte("x")), http.StatusUnauthorized, "token-invalid")
}

// The upgrade as the description has it, seen with a plain HTTP client.
func TestUpgrade(t *testing.T) {
	s := boot(t, "embedded", nil)
	r, err := http.NewRequest(http.MethodGet, s.url+"/v1/ws?batch=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Authorization": "Bearer " + everything(t), "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "other, flyscreen.v1",
	} {
		r.Header.Set(name, value)
	}
	res, err := suite.document.client(t).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-WebSocket-Protocol") != "flyscreen.v1" {
		body, _ := io.ReadAll(io.LimitReader(res.Body, 1000)) // for the message only
		t.Errorf("upgrade: %d %v %s", res.StatusCode, res.Header, body)
	}
}
