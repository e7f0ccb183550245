package outbox

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics holds what the room counts.
type metrics struct {
	delivered, refused, expired, quarantined, trimmed, damaged prometheus.Counter

	commits *prometheus.CounterVec // outcome
	took    prometheus.Histogram
	batch   prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, o *Outbox) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "flyscreen_outbox_" + name, Help: help})
	}
	gauge := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "flyscreen_outbox_" + name, Help: help}, read)
	}
	m := &metrics{
		delivered:   counter("delivered_total", "Kept messages that the broker has acknowledged."),
		refused:     counter("refused_total", "Messages refused because the outbox was full, or its disk too slow."),
		expired:     counter("expired_total", "Messages put into quarantine because they had waited too long."),
		quarantined: counter("quarantined_total", "Messages put into quarantine, for whatever reason."),
		trimmed:     counter("quarantine_dropped_total", "Messages dropped because the quarantine took half of the outbox."),
		damaged:     counter("damaged_files_total", "Files that were damaged and moved aside."),
		commits:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "flyscreen_outbox_commits_total", Help: "Commits of the file by how they ended."}, []string{"outcome"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flyscreen_outbox_commit_seconds", Help: "How long commits took.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12)}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "flyscreen_outbox_commit_operations", Help: "How many changes went into a commit.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 6)}),
	}
	m.commits.WithLabelValues("ok")
	m.commits.WithLabelValues("failed")
	if reg == nil {
		return m
	}
	reg.MustRegister(m.delivered, m.refused, m.expired, m.quarantined, m.trimmed, m.damaged, m.commits, m.took, m.batch,
		gauge("messages", "Messages that wait to be delivered.", func() float64 { return float64(o.kept.Load()) }),
		gauge("quarantined_messages", "Messages in quarantine.", func() float64 { return float64(o.poison.Load()) }),
		gauge("bytes", "Bytes of all messages in the outbox.", func() float64 { return float64(o.bytes.Load()) }),
		gauge("writable", "Whether the file could be written the last time.", func() float64 {
			if o.Broken() != nil {
				return 0
			}
			return 1
		}))
	return m
}

func (m *metrics) commit(err error, operations int, took time.Duration) {
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	m.commits.WithLabelValues(outcome).Inc()
	m.took.Observe(took.Seconds())
	m.batch.Observe(float64(operations))
}
