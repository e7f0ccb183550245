package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

var update = flag.Bool("update", false, "write the golden files anew")

// noon is when everything in the golden files happens; in another zone, because
// the outside is told UTC.
var noon = time.Date(2026, 11, 22, 13, 0, 0, 123_999_999, time.FixedZone("UTC+3", 3*60*60))

// shape is one line of a golden file: what it is, and its JSON.
type shape struct {
	name string
	json []byte
}

// golden compares shapes with the file of that name, each on its own line.
func golden(t *testing.T, name string, shapes []shape) {
	t.Helper()
	var got bytes.Buffer
	for _, s := range shapes {
		if !json.Valid(s.json) || bytes.ContainsAny(s.json, "\r\n") {
			t.Errorf("%s: %q is not JSON on one line", s.name, s.json)
		}
		fmt.Fprintf(&got, "%s: %s\n", s.name, s.json)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wantLines, gotLines := strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")
	for i := range max(len(wantLines), len(gotLines)) {
		var w, g string
		if i < len(wantLines) {
			w = wantLines[i]
		}
		if i < len(gotLines) {
			g = gotLines[i]
		}
		if w != g {
			t.Errorf("%s line %d, which third parties depend on:\n got %s\nwant %s", path, i+1, g, w)
		}
	}
}

func TestMessageShapes(t *testing.T) {
	message := func(payload string, change ...func(*mqtt.Message)) []byte {
		m := mqtt.Message{Topic: "pets/123/location", Payload: []byte(payload), QoS: 1, Time: noon}
		cursor := "k3f8-1029"
		for _, c := range change {
			c(&m)
			cursor = ""
		}
		return wire.AppendMessage(nil, m, cursor)
	}
	golden(t, "messages.golden", []shape{
		{"json", message(`{"lat":52.5, "lng":13.4}`)},
		{"json with line breaks", message("{\r\n  \"lat\": 52.5\n}\n")},
		{"json null", message(`null`)},
		{"json string with html", message(`"<b>&amp;</b>"`)},
		{"text", message("warm & <dry>\tyes")},
		{"text with line breaks", message("a\nb\r\nc\rd")},
		{"text with NUL and DEL", message("a\x00b\x7f")},
		{"text with U+2028", message("a\u2028b\u2029c")},
		{"text with a byte order mark", message("\uFEFF{}")},
		{"base64", message("\xff\xfe\x00")},
		{"base64 of nearly json", message("{\"a\":\"\xff\"}")},
		{"empty", message("")},
		{"snapshot", message("42", func(m *mqtt.Message) { m.Retain, m.QoS = true, 0 })},
		{"odd topic", message("1", func(m *mqtt.Message) { m.Topic = "a\"b\\c/\xff/é" })},
	})
}

func TestEventShapes(t *testing.T) {
	three := 3
	event := func(name string, fields any) shape {
		return shape{name, wire.NewEvent(name, fields).AppendTyped(nil)}
	}
	golden(t, "events.golden", []shape{
		event("ready", wire.Ready{
			Stream: "S1", Granted: []string{"pets/123/#"}, Cursor: "k3f8-1028", Expires: wire.TimeOrNull(noon), Hint: "read this",
		}),
		event("ready", wire.Ready{Stream: "S1", Granted: []string{}, Cursor: "k3f8-0", Expires: wire.TimeOrNull(time.Time{})}),
		event("live", wire.Live{Snapshot: 2, Complete: true}),
		event("live", wire.Live{Filters: []string{"a/+", "b/#"}}),
		event("gap", wire.Gap{Missed: &three, Reason: wire.GapSlow}),
		event("gap", wire.Gap{Reason: wire.GapEvicted}),
		event("gap", wire.Gap{Reason: wire.GapUpstream}),
		event("upstream", wire.Upstream{Connected: true}),
		event("token_expiring", wire.TokenExpiring{Seconds: 60}),
		event("end", wire.End{Code: wire.CloseRestart, Reason: "the gateway is shutting down", Reconnect: true, AfterMS: 1500}),
		event("nothing", struct{}{}),
	})
}

func TestFrameShapes(t *testing.T) {
	id := wire.Number("12345678901234567890.50")
	frame := func(name string, fields any) shape {
		return shape{name, wire.NewEvent(name, fields).AppendTyped(nil)}
	}
	granted := wire.SubscribeResult{Filter: "#"}
	granted.Grant([]mqtt.Filter{"a/#", "b"}, 1)
	refused := wire.SubscribeResult{Filter: "x"}
	refused.Refuse(fault.New(fault.NotAuthorized, `no grant allows anything of the filter "x"`))
	long := wire.SubscribeResult{Filter: strings.Repeat("l", 5000)}
	long.Refuse(fault.New(fault.InvalidFilter, "too long"))
	golden(t, "frames.golden", []shape{
		frame("connack", wire.Connack{ID: &id, Stream: "S1", Subject: "dash", Expires: wire.TimeOrNull(noon), Limits: wire.Limits{
			PayloadBytes: 1, TopicBytes: 2, RequestFilters: 3, Filters: 4, QueueMessages: 5, QueueBytes: 6,
		}}),
		frame("connack", wire.Connack{Stream: "S1"}),
		frame("suback", wire.Suback{ID: &id, Results: []wire.SubscribeResult{granted, refused, long}}),
		frame("unsuback", wire.Unsuback{ID: &id}),
		frame("unsuback", wire.Unsuback{}),
		frame("puback", wire.Puback{ID: &id, Delivery: mqtt.Acknowledged}),
		frame("error", wire.Refusal{ID: &id, Problem: wire.ProblemFrom(fault.New(fault.BadRequest, "a \"rule\""))}),
		frame("pong", wire.Pong{ID: &id}),
		frame("pong", wire.Pong{}),
		{"answer to a publish", wire.AppendJSON(nil, wire.Delivery{Topic: "a/b", QoS: 1, Delivery: mqtt.Acknowledged})},
		{"answer to a publish", wire.AppendJSON(nil, wire.Delivery{Topic: "a/<b>", QoS: 0, Delivery: mqtt.Sent})},
	})
}

// Every kind of failure has its own spelling; one that was forgotten would be told
// as an internal error.
func TestProblemShapes(t *testing.T) {
	var shapes []shape
	for _, code := range codes(t) {
		err := fmt.Errorf("outer: %w", fault.New(code, "the detail"))
		problem := wire.ProblemFrom(err)
		if problem.Code != string(code) || problem.Status == 500 && code != fault.Internal {
			t.Errorf("%s is spelled as %+v", code, problem)
		}
		shapes = append(shapes, shape{string(code), wire.AppendJSON(nil, problem)})
		close := wire.CloseFrom(err)
		shapes = append(shapes, shape{"  closes with", wire.AppendJSON(nil, wire.End{Code: close, Reconnect: close.Reconnect()})})
	}
	secret := wire.ProblemFrom(errors.New("password=hunter2"))
	if secret.Status != 500 || strings.Contains(secret.Detail, "hunter2") {
		t.Errorf("an error without a code is told as %+v", secret)
	}
	golden(t, "problems.golden", shapes)
}

// codes reads the kinds of failure from their source, so that none is left out.
func codes(t *testing.T) (all []fault.Code) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../fault/fault.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, is := n.(*ast.ValueSpec)
		if !is {
			return true
		}
		if kind, named := spec.Type.(*ast.Ident); !named || kind.Name != "Code" {
			return true
		}
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fault.Code(text))
		return true
	})
	if len(all) < 20 {
		t.Fatalf("only %d codes were found", len(all))
	}
	return all
}

func TestCloseCodes(t *testing.T) {
	again := []wire.CloseCode{
		wire.CloseGoingAway, wire.CloseRestart, wire.CloseTryLater, wire.CloseSlowConsumer, wire.CloseRateLimited, wire.CloseUpstreamUnavailable,
	}
	for i, number := range []wire.CloseCode{1001, 1012, 1013, 4008, 4429, 4503} {
		if again[i] != number || !number.Reconnect() {
			t.Errorf("%d: code %d, reconnect %v", number, again[i], number.Reconnect())
		}
	}
	not := []wire.CloseCode{
		wire.CloseNormal, wire.CloseUnsupported, wire.CloseInvalidUTF8, wire.CloseTooBig, wire.CloseProtocol, wire.CloseUnauthenticated, wire.CloseNotAuthorized, wire.CloseRevoked,
	}
	for i, number := range []wire.CloseCode{1000, 1003, 1007, 1009, 4400, 4401, 4403, 4410} {
		if not[i] != number || number.Reconnect() {
			t.Errorf("%d: code %d, reconnect %v", number, not[i], number.Reconnect())
		}
	}
}
