package ws_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"flyscreen/auth"
	"flyscreen/gateway/gatewaytest"
)

// The answer, the snapshot, live, and then live messages: in this order.
func TestSubscribe(t *testing.T) {
	g := gatewaytest.Start(t)
	for _, topic := range []string{"s/1", "s/2", "other"} {
		g.Retain(t, topic, topic)
	}
	c := open(t, g, gatewaytest.All(t), "")
	c.send(`{"type":"subscribe","id":12,"filters":["s/+",{"filter":"u","qos":0,"snapshot":false,"strict":true,"mode":"all","on_slow":"gap"}]}`)
	if f := c.want("suback"); f.Raw != `{"type":"suback","id":12,"results":[{"filter":"s/+","granted":["s/+"],"qos":1},{"filter":"u","granted":["u"],"qos":0}]}` {
		t.Errorf("got %s", f.Raw)
	}
	topics := []string{}
	for range 2 {
		f := c.want("message")
		topics = append(topics, f.Topic)
		if !f.Retain || f.Cursor != nil {
			t.Errorf("got %s", f.Raw)
		}
	}
	if slices.Sort(topics); !slices.Equal(topics, []string{"s/1", "s/2"}) {
		t.Errorf("the snapshot is %q", topics)
	}
	if f := c.want("live"); f.Raw != `{"type":"live","filters":["s/+","u"],"snapshot":2,"complete":true}` {
		t.Errorf("got %s", f.Raw)
	}
	publish(t, g, "s/1", "new")
	if f := c.want("message"); f.Topic != "s/1" || f.Retain || f.Cursor == nil {
		t.Errorf("got %s", f.Raw)
	}
	// Another subscription adds to the first.
	c.send(`{"type":"subscribe","filters":["other"]}`)
	if f := c.want("suback"); f.ID != nil {
		t.Errorf("got %s", f.Raw)
	}
	if f := c.want("message"); f.Topic != "other" || !f.Retain {
		t.Errorf("got %s", f.Raw)
	}
	c.want("live")
	publish(t, g, "s/2", "new")
	if f := c.want("message"); f.Topic != "s/2" {
		t.Errorf("got %s", f.Raw)
	}
}

// Each filter has its own answer, in the order of the request.
func TestSubscribeAnswers(t *testing.T) {
	g := gatewaytest.Start(t)
	c := open(t, g, gatewaytest.Token(t, auth.Claims{Sub: []string{"pets/1/#", "plants/+"}}), "")
	long := strings.Repeat("x", 2000)
	wants := []struct{ filter, granted, problem string }{
		{`"pets/+/location"`, "pets/1/location", ""},
		{`"#"`, "pets/1/# plants/+", ""},
		{`"stones"`, "", "not-authorized"},
		{`{"filter":"pets/#","strict":true}`, "", "not-authorized"},
		{`{"filter":"plants/+","strict":true}`, "plants/+", ""},
		{`"a/#/b"`, "", "invalid-filter"},
		{`"$share/g/plants/a"`, "", "invalid-filter"},
		{`""`, "", "invalid-filter"},
		{`"` + long + `"`, "", "invalid-filter"},
		{`{"filter":"plants/a","qos":3}`, "", "bad-request"},
		{`{"filter":"plants/b","frob":1}`, "", "invalid-payload"},
		{`{}`, "", "invalid-filter"},
		{`7`, "", "invalid-payload"},
		{`null`, "", "invalid-filter"},
		{`"#"`, "", "bad-request"}, // twice
		{`"$SYS/#"`, "", "not-authorized"},
	}
	var filters []string
	for _, w := range wants {
		filters = append(filters, w.filter)
	}
	c.sendf(`{"type":"subscribe","id":1,"filters":[%s]}`, strings.Join(filters, ", "))
	f := c.want("suback")
	if len(f.Results) != len(wants) || len(f.Raw) > 8000 {
		t.Fatalf("%d results in %d bytes: %.1000s", len(f.Results), len(f.Raw), f.Raw)
	}
	for i, w := range wants {
		r := f.Results[i]
		switch {
		case w.problem != "" && (r.Problem == nil || r.Problem.Code != w.problem || r.QoS != nil):
			t.Errorf("%.50s: %+v, want %s", w.filter, r, w.problem)
		case w.problem == "" && (r.Problem != nil || strings.Join(r.Granted, " ") != w.granted || r.QoS == nil || *r.QoS != 1):
			t.Errorf("%.50s: %+v, want %s", w.filter, r, w.granted)
		}
	}
	if live := c.want("live"); !slices.Equal(live.Filters, []string{"pets/+/location", "#", "plants/+"}) {
		t.Errorf("got %s", live.Raw)
	}
	c.send(`{"type":"subscribe","filters":["stones"]}`)
	c.want("suback")
	for _, topic := range []string{"stones", "pets/2/a", "pets/1/a"} {
		publish(t, g, topic, "x")
	}
	if f := c.want("message"); f.Topic != "pets/1/a" { // and no live for nothing
		t.Errorf("got %s", f.Raw)
	}
}

func TestSubscribeOptions(t *testing.T) {
	g := gatewaytest.Start(t)
	c := open(t, g, gatewaytest.All(t), "")
	for _, option := range []string{`"interval":250`, `"mode":"x"`, `"on_slow":"x"`, `"mode":"latest","interval":1.5`, `"mode":"latest","interval":-1`} {
		c.sendf(`{"type":"subscribe","filters":[{"filter":"a",%s}]}`, option)
		if p := c.want("suback").Results[0].Problem; p == nil || p.Code != "bad-request" {
			t.Errorf("%s: %+v", option, p)
		}
	}
	for _, option := range []string{`"mode":"latest"`, `"mode":"latest","interval":250`, `"on_slow":"latest"`, `"on_slow":"close"`} {
		c.sendf(`{"type":"subscribe","filters":[{"filter":"a",%s}]}`, option)
		if p := c.want("suback").Results[0].Problem; p != nil {
			t.Errorf("%s: %+v", option, p)
		}
		c.want("live")
	}
}

func TestFilterLimits(t *testing.T) {
	g := gatewaytest.Start(t, "limits.connection_filters=20")
	c := open(t, g, gatewaytest.All(t), "")
	many := func(from, n int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`"f/%d"`, from+i))
		}
		return `{"type":"subscribe","filters":[` + strings.Join(all, ",") + `]}`
	}
	c.send(many(0, 17))
	c.wantError("17 filters at once", "bad-request")
	c.send(`{"type":"subscribe","filters":[]}`)
	c.wantError("no filter", "bad-request")
	c.send(`{"type":"subscribe"}`)
	c.wantError("no filters", "bad-request")
	c.send(many(0, 16))
	c.want("suback")
	c.want("live")
	c.send(many(16, 5))
	f := c.want("suback")
	for i, r := range f.Results {
		if refused := r.Problem != nil; refused != (i == 4) {
			t.Errorf("filter %d: %+v", i, r)
		}
	}
	c.want("live")
	c.send(many(0, 1)) // held already
	if r := c.want("suback").Results[0]; r.Problem != nil {
		t.Errorf("again: %+v", r.Problem)
	}
	c.want("live")
	c.send(`{"type":"unsubscribe","filters":["f/0"]}`)
	c.want("unsuback")
	c.send(many(20, 1))
	if r := c.want("suback").Results[0]; r.Problem != nil {
		t.Errorf("after unsubscribe: %+v", r.Problem)
	}
}

func TestUnsubscribe(t *testing.T) {
	g := gatewaytest.Start(t)
	c := open(t, g, gatewaytest.All(t), "")
	c.subscribe("u/+")
	c.subscribe("u/2")
	c.send(`{"type":"unsubscribe","id":5,"filters":["u/+","never/held"]}`)
	if f := c.want("unsuback"); f.Raw != `{"type":"unsuback","id":5}` {
		t.Errorf("got %s", f.Raw)
	}
	publish(t, g, "u/1", "not for us")
	publish(t, g, "u/2", "for us")
	if f := c.want("message"); f.Topic != "u/2" {
		t.Errorf("got %s", f.Raw)
	}
	for filters, code := range map[string]string{`[]`: "bad-request", `[7]`: "invalid-payload", `["a/#/b"]`: "invalid-filter", `[{"filter":"u/2"}]`: "invalid-payload"} {
		c.sendf(`{"type":"unsubscribe","id":6,"filters":%s}`, filters)
		c.wantError(filters, code)
	}
	publish(t, g, "u/2", "still for us")
	c.want("message")
}
