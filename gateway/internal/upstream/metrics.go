package upstream

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics holds what the room counts. All labels come from closed sets.
type metrics struct {
	connects      *prometheus.CounterVec // role
	losses        *prometheus.CounterVec // role
	up            *prometheus.GaugeVec   // role
	publishes     *prometheus.CounterVec // outcome
	bytes         *prometheus.CounterVec // role, direction
	dropped       *prometheus.CounterVec // reason
	snapshots     *prometheus.CounterVec // outcome
	subscriptions *prometheus.CounterVec // outcome

	acknowledged, sent prometheus.Counter // of publishes
}

// newMetrics registers with reg, if it is not nil. unanswered is read at each scrape.
func newMetrics(reg prometheus.Registerer, unanswered func() float64) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flyscreen_upstream_" + name, Help: help}, labels)
	}
	m := &metrics{
		connects:      counter("connects_total", "Connections to the broker that came up.", "role"),
		losses:        counter("connection_losses_total", "Connections to the broker that were lost.", "role"),
		up:            prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "flyscreen_upstream_up", Help: "How many connections to the broker are up."}, []string{"role"}),
		publishes:     counter("publishes_total", "Publishes by how they ended.", "outcome"),
		bytes:         counter("bytes_total", "MQTT bytes to and from the broker.", "role", "direction"),
		dropped:       counter("dropped_messages_total", "Messages from the broker that were not delivered, by reason.", "reason"),
		snapshots:     counter("snapshots_total", "Snapshot rounds by how they ended.", "outcome"),
		subscriptions: counter("subscribed_filters_total", "Filters sent to the broker, by its answer.", "outcome"),
	}
	m.acknowledged, m.sent = m.publishes.WithLabelValues("acknowledged"), m.publishes.WithLabelValues("sent")
	for _, r := range roles {
		m.connects.WithLabelValues(string(r))
		m.losses.WithLabelValues(string(r))
		m.up.WithLabelValues(string(r)).Set(0)
	}
	if reg == nil {
		return m, nil
	}
	inflight := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "flyscreen_upstream_publishes_inflight", Help: "Publishes that wait for the broker's answer."}, unanswered)
	var errs []error
	for _, c := range []prometheus.Collector{m.connects, m.losses, m.up, m.publishes, inflight, m.bytes, m.dropped, m.snapshots, m.subscriptions} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}
