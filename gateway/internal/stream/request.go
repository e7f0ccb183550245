package stream

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"flyscreen/gateway/fault"
	"flyscreen/gateway/mqtt"
	"flyscreen/gateway/wire"
)

// want is one filter of a subscription as clients write it: a string, or an object
// with options.
type want struct {
	Filter   string       `json:"filter"`
	QoS      *int         `json:"qos"`
	Snapshot *bool        `json:"snapshot"`
	Strict   bool         `json:"strict"`
	Mode     string       `json:"mode"`
	Interval *wire.Number `json:"interval"`
	OnSlow   string       `json:"on_slow"`
}

// ParseRequest reads one filter of a subscription. name is the filter as the client
// wrote it, also where it is refused.
func ParseRequest(raw json.RawMessage, limits mqtt.Limits) (r Request, name string, err error) {
	if raw = bytes.TrimSpace(raw); raw[0] == '"' && bytes.IndexByte(raw, '\\') < 0 {
		name = string(raw[1 : len(raw)-1])
		r = Request{QoS: 1, Snapshot: true}
		r.Filter, err = ParseFilter(name, limits)
		return r, name, err
	}
	var w want
	if raw[0] == '"' {
		err = wire.Decode(raw, &w.Filter)
	} else {
		err = wire.Decode(raw, &w)
	}
	if err != nil {
		return r, w.Filter, err
	}
	r = Request{QoS: 1, Snapshot: w.Snapshot == nil || *w.Snapshot, Strict: w.Strict}
	if w.QoS != nil {
		if r.QoS, err = wire.CheckQoS(*w.QoS); err != nil {
			return r, w.Filter, err
		}
	}
	interval := ""
	if w.Interval != nil {
		interval = string(*w.Interval)
	}
	if r.Mode, err = ParseMode(w.Mode, interval, w.OnSlow); err != nil {
		return r, w.Filter, err
	}
	r.Filter, err = ParseFilter(w.Filter, limits)
	return r, w.Filter, err
}

// ParseRequests reads the filters of one subscription. answers has a result for
// each, with the problem where one is refused; the others are in requests, and
// Answer puts their results in.
func ParseRequests(raw []json.RawMessage, limits mqtt.Limits) (requests []Request, answers []wire.SubscribeResult) {
	answers = make([]wire.SubscribeResult, len(raw))
	seen := map[mqtt.Filter]struct{}{}
	for i, one := range raw {
		r, name, err := ParseRequest(one, limits)
		answers[i].Filter = name
		if _, twice := seen[r.Filter]; err == nil && twice {
			err = fault.New(fault.BadRequest, "the filter is given twice in this request")
		}
		if err != nil {
			answers[i].Refuse(err)
			continue
		}
		seen[r.Filter] = struct{}{}
		requests = append(requests, r)
	}
	return requests, answers
}

// Answer puts results, in the order of the requests, where answers has no problem.
func Answer(answers []wire.SubscribeResult, results []Result) {
	next := 0
	for i := range answers {
		a := &answers[i]
		if a.Problem != nil {
			continue
		}
		if r := results[next]; r.Err != nil {
			a.Refuse(r.Err)
		} else {
			a.Grant(r.Granted, r.QoS)
		}
		next++
	}
}

// ParseFilter reads the filter of a stream.
func ParseFilter(text string, limits mqtt.Limits) (mqtt.Filter, error) {
	if strings.HasPrefix(text, "$share/") {
		return "", fault.New(fault.InvalidFilter, "shared subscriptions ($share) are not possible on a stream")
	}
	f, err := mqtt.ParseFilter(text, limits)
	if err != nil {
		return "", fault.New(fault.InvalidFilter, "the filter %v", err)
	}
	return f, nil
}

// ParseMode reads the members or query parameters mode, interval and on_slow; each
// may be empty.
func ParseMode(mode, interval, onSlow string) (m Mode, err error) {
	switch mode {
	case "", "all":
	case "latest":
		m.Latest = true
	default:
		return m, fault.New(fault.BadRequest, `"mode" must be "all" or "latest"`)
	}
	switch onSlow {
	case "", "gap":
	case "latest":
		m.OnSlow = OnSlowLatest
	case "close":
		m.OnSlow = OnSlowClose
	default:
		return m, fault.New(fault.BadRequest, `"on_slow" must be "gap", "latest" or "close"`)
	}
	if interval == "" {
		return m, nil
	}
	if !m.Latest {
		return m, fault.New(fault.BadRequest, `"interval" goes with "mode" "latest"`)
	}
	ms, err := strconv.ParseUint(interval, 10, 32)
	if m.Interval = time.Duration(ms) * time.Millisecond; err != nil || m.Interval > MaxInterval {
		return m, fault.New(fault.BadRequest, `"interval" must be a whole number of milliseconds, up to %d`, MaxInterval.Milliseconds())
	}
	return m, nil
}
