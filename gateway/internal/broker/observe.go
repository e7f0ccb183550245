package broker

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/mochi-mqtt/server/v2/system"
	"github.com/prometheus/client_golang/prometheus"
)

// quiet carries mochi's log into ours. mochi warns of each bad packet of each
// client and of every keep-alive of 5 s or less, so all but its errors are
// debug here; and it attaches whole packets, which hold payloads and passwords.
type quiet struct{ to slog.Handler }

func (q quiet) level(l slog.Level) slog.Level {
	if l >= slog.LevelError {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return q.to.Enabled(ctx, q.level(l))
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	ours := slog.NewRecord(r.Time, q.level(r.Level), "mochi", r.PC)
	ours.AddAttrs(slog.String("said", r.Message))
	r.Attrs(func(a slog.Attr) bool {
		if harmless(a) {
			ours.AddAttrs(a)
		}
		return true
	})
	return q.to.Handle(ctx, ours)
}

func (q quiet) WithAttrs(all []slog.Attr) slog.Handler {
	kept := make([]slog.Attr, 0, len(all))
	for _, a := range all {
		if harmless(a) {
			kept = append(kept, a)
		}
	}
	return quiet{q.to.WithAttrs(kept)}
}

func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.to.WithGroup(name)} }

// harmless reports whether a is a fact that may be logged. It lists what may
// pass, since what mochi attaches can change.
func harmless(a slog.Attr) bool {
	switch a.Key {
	case "error", "client", "remote", "old_remote", "new_remote", "listener", "hook", "keepalive", "recommended":
		return true
	}
	return false
}

type metrics struct {
	connections prometheus.Gauge
	rejected    prometheus.Counter
	panics      prometheus.Counter
}

// newMetrics registers with to, which may be nil. What mochi counts is read from
// info when it is asked for.
func newMetrics(to prometheus.Registerer, info *system.Info) metrics {
	m := metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "flyscreen_broker_connections",
			Help: "Open connections to the embedded broker.",
		}),
		rejected: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flyscreen_broker_rejected_total",
			Help: "Connections that the embedded broker closed at once because too many were open.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flyscreen_broker_panics_total",
			Help: "Connections that ended in a panic of the embedded broker.",
		}),
	}
	if to == nil {
		return m
	}
	to.MustRegister(m.connections, m.rejected, m.panics,
		read(prometheus.CounterValue, "flyscreen_broker_dropped_total",
			"Messages that the embedded broker dropped because their reader was too slow or had too many unacknowledged.",
			func() int64 { return atomic.LoadInt64(&info.MessagesDropped) + atomic.LoadInt64(&info.InflightDropped) }),
		read(prometheus.GaugeValue, "flyscreen_broker_retained_messages",
			"Retained messages that the embedded broker holds.",
			func() int64 { return atomic.LoadInt64(&info.Retained) }))
	return m
}

func read(kind prometheus.ValueType, name, help string, value func() int64) prometheus.Collector {
	get := func() float64 { return float64(value()) }
	if kind == prometheus.CounterValue {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, get)
	}
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, get)
}
