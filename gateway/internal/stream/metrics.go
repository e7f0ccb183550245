package stream

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	dropped prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, r *Registry) *metrics {
	m := &metrics{dropped: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "flyscreen_stream_dropped_messages_total",
		Help: "Messages dropped because a client read too slowly; each is told to it as a gap.",
	})}
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "flyscreen_stream_open",
		Help: "Open streams.",
	}, func() float64 { return float64(r.Count()) })
	if reg != nil {
		reg.MustRegister(m.dropped, open)
	}
	return m
}
