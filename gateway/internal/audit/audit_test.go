package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/internal/audit"
)

// lines returns what Record writes for decisions, without the time.
func lines(t *testing.T, level string, record func(*audit.Log)) (all []string) {
	t.Helper()
	var b bytes.Buffer
	record(audit.New(slog.New(slog.NewJSONHandler(&b, nil)), level))
	for line := range strings.Lines(b.String()) {
		var members map[string]any
		if err := json.Unmarshal([]byte(line), &members); err != nil {
			t.Fatal(err)
		}
		if members["level"] != "INFO" || members["msg"] != "audit" || members["room"] != "audit" {
			t.Errorf("the line is %s", line)
		}
		for _, name := range []string{"time", "level", "msg", "room"} {
			delete(members, name)
		}
		text, err := json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(text))
	}
	return all
}

func TestRecord(t *testing.T) {
	request := audit.NewRequest("192.0.2.1")
	ctx := audit.With(context.Background(), request)
	const jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJkYXNoIn0.c1LROH7eNQwUT8KMVEO52VC3WZ9e_AnDWbZ7aMmowV8"
	bob := auth.Principal{Kind: auth.KindToken, Issuer: "https://id.example", Subject: "bob", KeyID: "k1"}
	allowed := audit.Decision{Principal: bob, Action: "publish", Target: "pets/1", Rule: "pets/#", Outcome: "acknowledged"}
	failed := audit.Decision{Principal: bob, Address: "192.0.2.2", Action: "publish", Target: "pets/1", Rule: "pets/#", Err: fault.New(fault.UpstreamUnavailable, "no broker").Because(fmt.Errorf("secret cause"))}
	refused := audit.Decision{Principal: auth.Principal{Anonymous: true}, Action: "publish", Target: "a/" + jwt, Rule: "a/" + jwt, Err: fault.New(fault.NotAuthorized, "a rule denies %q", jwt)}
	unknown := audit.Decision{Action: "GET /v1/topics", Err: fault.New(fault.TokenInvalid, "bad")}
	id := fmt.Sprintf(`"req":%q`, request.ID)
	who := `"subject":"bob","target":"pets/1"}`
	of := map[string]string{
		"allowed": `{"action":"publish","address":"192.0.2.1","credential":"token","decision":"allowed","issuer":"https://id.example","kid":"k1","outcome":"acknowledged",` + id + `,"rule":"pets/#",` + who,
		"failed":  `{"action":"publish","address":"192.0.2.2","code":"upstream-unavailable","credential":"token","decision":"allowed","issuer":"https://id.example","kid":"k1","reason":"no broker",` + id + `,"rule":"pets/#",` + who,
		"refused": `{"action":"publish","address":"192.0.2.1","anonymous":true,"code":"not-authorized","decision":"refused","reason":"a rule denies \"***\"",` + id + `,"rule":"a/***","target":"a/***"}`,
		"unknown": `{"action":"GET /v1/topics","address":"192.0.2.1","code":"token-invalid","decision":"refused","reason":"bad",` + id + `,"target":""}`,
	}
	for level, want := range map[string][]string{
		audit.All: {of["allowed"], of["failed"], of["refused"], of["unknown"]}, audit.Refusals: {of["refused"], of["unknown"]}, audit.Off: nil,
	} {
		got := lines(t, level, func(l *audit.Log) {
			l.Record(ctx, allowed)
			l.Record(ctx, failed)
			l.Record(ctx, refused)
			l.Record(ctx, unknown)
		})
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", level, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	var none *audit.Log
	none.Record(ctx, refused) // no log, no line
}

// The edge records only what nobody below has.
func TestRecordedOnce(t *testing.T) {
	request := audit.NewRequest("")
	ctx := audit.With(context.Background(), request)
	l := audit.New(slog.New(slog.DiscardHandler), audit.Off)
	l.Record(ctx, audit.Decision{Err: fault.New(fault.UpstreamTimeout, "x")})
	if request.Recorded() {
		t.Error("an outcome counts as a refusal")
	}
	l.Record(ctx, audit.Decision{Err: fault.New(fault.NotAuthorized, "x")})
	if !request.Recorded() {
		t.Error("a refusal does not")
	}
	if audit.From(context.Background()).Recorded() {
		t.Error("a context without a request has one")
	}
}

// A flood of refusals is counted, not written; what is allowed is written all.
func TestFloodOfRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		no := audit.Decision{Err: fault.New(fault.TokenInvalid, "bad")}
		got := lines(t, audit.All, func(l *audit.Log) {
			for range 10_000 {
				l.Record(context.Background(), no)
			}
			l.Record(context.Background(), audit.Decision{})
			time.Sleep(time.Second) // of the bubble's clock
			l.Record(context.Background(), no)
			l.Record(context.Background(), no)
		})
		if len(got) != 503 || !strings.Contains(got[501], `"suppressed":9500`) || strings.Contains(got[502], "suppressed") {
			t.Errorf("%d lines, the last are %v", len(got), got[max(0, len(got)-3):])
		}
	})
}
