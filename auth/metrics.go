package auth

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"flyscreen/gateway/fault"
)

// metrics of the room. The zero value does not count.
type metrics struct {
	tokens  *prometheus.CounterVec
	refusal *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (metrics, error) {
	if r == nil {
		return metrics{}, nil
	}
	m := metrics{
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flyscreen_auth_tokens_total",
			Help: "Tokens presented, by outcome: verified (signature checked), cached, expired, invalid.",
		}, []string{"outcome"}),
		refusal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flyscreen_auth_requests_refused_total",
			Help: "Requests refused before a token was looked at, by code.",
		}, []string{"code"}),
	}
	return m, errors.Join(r.Register(m.tokens), r.Register(m.refusal))
}

// token counts one presented token by what came of it.
func (m metrics) token(cached bool, err error) {
	if m.tokens == nil {
		return
	}
	outcome := "verified"
	switch {
	case fault.Is(err, fault.TokenExpired):
		outcome = "expired"
	case err != nil:
		outcome = "invalid"
	case cached:
		outcome = "cached"
	}
	m.tokens.WithLabelValues(outcome).Inc()
}

// refused counts a request that brought no credential or an unusable one.
func (m metrics) refused(err error) {
	if m.refusal != nil {
		m.refusal.WithLabelValues(string(fault.From(err).Code)).Inc()
	}
}
