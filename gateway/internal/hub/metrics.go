package hub

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	received  prometheus.Counter
	snapshots prometheus.Counter
	resumed   prometheus.Counter
}

func newMetrics(r prometheus.Registerer, h *Hub) *metrics {
	m := &metrics{
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flyscreen_hub_messages_total",
			Help: "Live messages received from the broker.",
		}),
		snapshots: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flyscreen_hub_snapshots_total",
			Help: "Snapshots of retained messages taken at the broker.",
		}),
		resumed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flyscreen_hub_resumed_total",
			Help: "Streams that went on from their cursor without a gap.",
		}),
	}
	kept := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "flyscreen_hub_window_messages",
		Help: "Recent messages kept for streams that resume.",
	}, func() float64 { n, _ := h.window.holds(); return float64(n) })
	keptBytes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "flyscreen_hub_window_bytes",
		Help: "Memory of the recent messages kept for streams that resume.",
	}, func() float64 { _, bytes := h.window.holds(); return float64(bytes) })
	filters := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "flyscreen_hub_filters",
		Help: "Distinct filters wanted from the broker, those that linger included.",
	}, func() float64 {
		h.mu.RLock()
		defer h.mu.RUnlock()
		return float64(h.wanted)
	})
	lingering := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "flyscreen_hub_filters_lingering",
		Help: "Filters wanted only because somebody may come back.",
	}, func() float64 {
		h.mu.RLock()
		defer h.mu.RUnlock()
		return float64(h.lingering.all.Len())
	})
	if r != nil {
		r.MustRegister(m.received, m.snapshots, m.resumed, kept, keptBytes, filters, lingering)
	}
	return m
}
