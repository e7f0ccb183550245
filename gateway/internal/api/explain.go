package api

import (
	"fmt"
	"net/http"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"

	"github.com/labstack/echo/v4"
)

// explainBytes bounds the body of an explain request.
const explainBytes = 128 << 10

type question struct {
	Action string  `json:"action"`
	Topic  *string `json:"topic"`
	Filter *string `json:"filter"`
	Strict bool    `json:"strict"`
}

type verdict struct {
	Allowed bool     `json:"allowed"`
	Granted []string `json:"granted"`
	By      []string `json:"by"`
	Reason  string   `json:"reason"`
}

// Explain answers what the caller's own credential may do, and which grants
// decide.
func (d *Door) Explain(c echo.Context, p auth.Principal) error {
	if err := noOptions(c); err != nil {
		return err
	}
	data, err := d.document(c, "the question", explainBytes)
	if err != nil {
		return err
	}
	var ask question
	if err := wire.Decode(data, &ask); err != nil {
		return err
	}
	verdict, err := d.judge(p, ask)
	if err != nil {
		return err
	}
	return answer(c, http.StatusOK, verdict)
}

func (d *Door) judge(p auth.Principal, ask question) (verdict, error) {
	switch {
	case ask.Action == "publish" && ask.Topic != nil && ask.Filter == nil && !ask.Strict:
		return d.judgePublish(p, *ask.Topic)
	case ask.Action == "subscribe" && ask.Filter != nil && ask.Topic == nil:
		return d.judgeSubscribe(p, *ask.Filter, ask.Strict)
	}
	return verdict{}, fault.New(fault.BadRequest,
		`ask {"action":"publish","topic":…} or {"action":"subscribe","filter":…,"strict":true|false}`)
}

func (d *Door) judgePublish(p auth.Principal, name string) (verdict, error) {
	topic, err := d.options.Publish.Topic(name)
	if err != nil {
		return verdict{}, err
	}
	by, ok := p.Grants.MayPublish(topic)
	if !ok && by != "" {
		return denied([]mqtt.Filter{by}, "the rule %q denies the topic", by), nil
	}
	if !ok {
		return refuse("no publish grant contains the topic %q", topic), nil
	}
	return verdict{
		Allowed: true,
		Granted: []string{string(topic)},
		By:      []string{string(by)},
		Reason:  fmt.Sprintf("the publish grant %q contains the topic", by),
	}, nil
}

func (d *Door) judgeSubscribe(p auth.Principal, name string, strict bool) (verdict, error) {
	f, err := d.filter(name)
	if err != nil {
		return verdict{}, err
	}
	rules := p.Grants.DeniesIn(f)
	if strict {
		by, ok := p.Grants.Covers(f)
		if !ok && len(rules) > 0 {
			return denied(rules, "the rule %q denies something of the filter %q, and strict demands all of it", rules[0], f), nil
		}
		if !ok {
			return refuse("no single subscribe grant contains the whole filter %q, as strict demands", f), nil
		}
		return verdict{
			Allowed: true,
			Granted: []string{string(f)},
			By:      []string{string(by)},
			Reason:  fmt.Sprintf("the subscribe grant %q contains the filter", by),
		}, nil
	}
	granted, by := p.Grants.Narrow(f)
	if len(granted) == 0 && len(rules) > 0 {
		return denied(rules, "the rule %q denies what subscribe grants allow of the filter %q, if they do", rules[0], f), nil
	}
	if len(granted) == 0 {
		return refuse("no subscribe grant has a topic in common with the filter %q", f), nil
	}
	reason := "the filter is granted as it is"
	if len(granted) != 1 || granted[0] != f {
		reason = "the filter is narrowed to what the grants allow of it"
	}
	if len(rules) > 0 {
		reason += fmt.Sprintf("; messages are left out whose topics a rule denies, such as %q", rules[0])
	}
	return verdict{Allowed: true, Granted: names(granted), By: names(by), Reason: reason}, nil
}

func refuse(format string, args ...any) verdict {
	return verdict{Granted: []string{}, By: []string{}, Reason: fmt.Sprintf(format, args...)}
}

// denied is refuse with the rules that deny.
func denied(rules []mqtt.Filter, format string, args ...any) verdict {
	v := refuse(format, args...)
	v.By = names(rules)
	return v
}

func names(filters []mqtt.Filter) []string {
	all := make([]string, len(filters))
	for i, f := range filters {
		all[i] = string(f)
	}
	return all
}
