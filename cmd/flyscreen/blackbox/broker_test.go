package blackbox_test

import (
	"bytes"
	"encoding/hex"
	"strconv"
	"strings"
	"testing"
)

// mosquittoPub publishes straight to the broker with mosquitto_pub; options are
// its own, such as "-r" and "-q", "1".
func (s *site) mosquittoPub(t *testing.T, topic string, payload []byte, options ...string) {
	t.Helper()
	input := "-s" // the whole of standard input
	if len(payload) == 0 {
		input = "-n"
	}
	args := append([]string{"-h", "127.0.0.1", "-p", s.mqttPort, "-t", topic, input}, options...)
	command(t, payload, "mosquitto_pub", args...)
}

// received is one message that mosquitto_sub printed.
type received struct {
	topic   string
	qos     int
	payload []byte
}

// listener is a mosquitto_sub.
type listener struct{ process *process }

// mosquittoSub subscribes straight at the broker and waits until it is
// subscribed.
func (s *site) mosquittoSub(t *testing.T, filter string) *listener {
	t.Helper()
	// -d tells of the SUBACK; the format keeps messages apart from what it tells and any bytes on one line.
	l := &listener{launch(t, nil, "stdbuf", "-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", s.mqttPort, "-t", filter, "-q", "2", "-d",
		"-F", "MESSAGE %q %x %t")}
	l.process.out.await(t, "mosquitto_sub is subscribed", func(all []string) bool {
		for _, line := range all {
			if strings.HasPrefix(line, "Subscribed") {
				return true
			}
		}
		return false
	})
	return l
}

// messages waits for n messages and returns all that came.
func (l *listener) messages(t *testing.T, n int) []received {
	t.Helper()
	all := l.process.out.await(t, "mosquitto_sub: "+strconv.Itoa(n)+" messages", func(all []string) bool {
		return strings.Count("\n"+strings.Join(all, "\n"), "\nMESSAGE ") >= n
	})
	var out []received
	for _, line := range all {
		fields := strings.SplitN(line, " ", 4)
		if fields[0] != "MESSAGE" {
			continue
		}
		payload, err := hex.DecodeString(fields[2])
		if err != nil {
			t.Fatalf("mosquitto_sub: %q: %v", line, err)
		}
		out = append(out, received{fields[3], int(fields[1][0] - '0'), payload})
	}
	return out
}

func (r received) is(topic string, payload []byte) bool {
	return r.topic == topic && bytes.Equal(r.payload, payload)
}
