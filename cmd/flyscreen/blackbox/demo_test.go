package blackbox_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// demoLink is the line that a person opens.
var demoLink = regexp.MustCompile(`(http://127\.0\.0\.1:\d+)/#token=(\S+)`)

// flyscreen demo, end to end: what it prints works, and something moves.
func TestDemo(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			s := &site{mqttPort: freePort(t)}
			args := []string{"demo", "--pets", "3", "--listen", "127.0.0.1:" + freePort(t), "--data-dir", t.TempDir()}
			if kind == "mosquitto" {
				s.startMosquitto(t)
				args = append(args, "--upstream", "tcp://127.0.0.1:"+s.mqttPort)
			} else {
				args = append(args, "--broker-listen", "127.0.0.1:"+s.mqttPort)
			}
			s.gateway = launch(t, nil, suite.binary, args...)
			t.Cleanup(func() { s.report(t) })
			out := strings.Join(s.gateway.out.await(t, "the demo prints its link and the lines to try", func(all []string) bool {
				text := strings.Join(all, "\n")
				return demoLink.MatchString(text) && strings.Contains(text, "Ctrl-C ends it") // the last line
			}), "\n")
			found := demoLink.FindStringSubmatch(out)
			s.url = found[1]
			token := found[2]

			for _, door := range doors {
				st := s.follow(t, door, token, "pets/#")
				all := st.await(t, "pets that move", func(all []event) bool { return moves(all) })
				if count(all, "message") < 3 {
					t.Errorf("%s: %d messages", door, count(all, "message"))
				}
			}
			sub := s.mosquittoSub(t, "pets/+/location")
			var at struct{ Lat, Lng float64 }
			if r := sub.messages(t, 3)[0]; json.Unmarshal(r.payload, &at) != nil || at.Lat == 0 || at.Lng == 0 {
				t.Errorf("mosquitto_sub: %s %s", r.topic, r.payload)
			}

			// The lines to try, as they are printed. curl -N has no end of its own, so it is the one stream above.
			tried := 0
			for _, line := range strings.Split(out, "\n") {
				line = strings.TrimSpace(line)
				if !strings.HasPrefix(line, "curl ") || strings.HasPrefix(line, "curl -N") {
					continue
				}
				tried++
				script := "export FLYSCREEN_URL=" + s.url + " FLYSCREEN_TOKEN=" + token + "; " + strings.Replace(line, "curl ", "curl -sSf ", 1)
				command(t, nil, "bash", "-c", script)
			}
			if tried < 2 {
				t.Errorf("%d lines to try in:\n%s", tried, out)
			}
			outside := s.do(t, http.MethodPost, "/v1/topics/elsewhere", token, []byte("x"))
			wantProblem(t, "outside of the demo's grants", outside, http.StatusForbidden, "not-authorized")

			if kind == "embedded" {
				browse(t, found[0], "pets/#").wantGood(t)
			}
			s.gateway.terminate(t)
			if code := s.gateway.wait(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// moves reports whether one pet was seen at two places.
func moves(all []event) bool {
	places := map[string]string{}
	for _, e := range all {
		if !strings.HasSuffix(e.Topic, "/location") {
			continue
		}
		if before, known := places[e.Topic]; known && before != string(e.Payload) {
			return true
		}
		places[e.Topic] = string(e.Payload)
	}
	return false
}
