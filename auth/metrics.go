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
	fetches *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (metrics, error) {
	if r == nil {
		return metrics{}, nil
	}
	m := metrics{
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flyscreen_auth_tokens_total",
			Help: "Tokens presented, by outcome: verified (signature checked), cached, expired, invalid, unchecked (no keys yet).",
		}, []string{"outcome"}),
		refusal: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flyscreen_auth_requests_refused_total",
			Help: "Requests refused for their credential, or the lack of one, other than a token, by code.",
		}, []string{"code"}),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flyscreen_auth_key_fetches_total",
			Help: "Fetches of issuers' key sets, by outcome: ok, failed. After a failure the older keys go on.",
		}, []string{"outcome"}),
	}
	return m, errors.Join(r.Register(m.tokens), r.Register(m.refusal), r.Register(m.fetches))
}

// fetched counts one fetch of a key set.
func (m metrics) fetched(err error) {
	if m.fetches == nil {
		return
	}
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	m.fetches.WithLabelValues(outcome).Inc()
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
	case fault.Is(err, fault.UpstreamUnavailable):
		outcome = "unchecked"
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
