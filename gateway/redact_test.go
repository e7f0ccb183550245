package gateway

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// Wherever a room puts it into a line, a credential does not get out; the rest does.
func TestRedactor(t *testing.T) {
	const token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJkYXNoIn0.c1LROH7eNQwUT8KMVEO52VC3WZ9e_AnDWbZ7aMmowV8"
	var b bytes.Buffer
	log := slog.New(redactor{slog.NewJSONHandler(&b, nil)})
	log.With("with", "a "+token, "room", "x").WithGroup("g").Info("said "+token,
		"err", errors.New("of "+token), "plain", errors.New("no token"), "took", 5*time.Second, "n", 7, "list", []string{token},
		slog.Group("inner", "text", token, "other", "stays"))
	got := b.String()
	if strings.Contains(got, "c1LROH7eNQ") || strings.Contains(got, "eyJ") {
		t.Errorf("the line is %s", got)
	}
	for _, want := range []string{
		`"msg":"said ***"`, `"with":"a ***"`, `"room":"x"`, `"g":{"err":"of ***","plain":"no token","took":5000000000,"n":7,"list":"[***]"`, `"inner":{"text":"***","other":"stays"}`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the line lacks %s: %s", want, got)
		}
	}
	if (redactor{slog.NewJSONHandler(&b, nil)}).Enabled(t.Context(), slog.LevelDebug) {
		t.Error("the level of the handler behind does not count")
	}
}
