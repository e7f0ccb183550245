package gateway

import (
	"context"
	"encoding/json"
	"time"

	"flyscreen/auth"
	"flyscreen/gateway/fault"
)

// revocationName begins the names of the control messages that carry revocations;
// what follows is Revocation.Key, so that a later one of the same target takes the
// place of an earlier one.
const revocationName = "revocations/"

// revoke takes r into the list here, which ends streams, and tells all gateways that
// share the broker. It counts here at once, also when they cannot be told; the error
// says so.
func (g *Gateway) revoke(ctx context.Context, r auth.Revocation) error {
	if !time.Now().Before(r.Until) {
		return fault.New(fault.BadRequest, `the revocation has an "until" that is over`)
	}
	if err := g.auth.Revoke(r); err != nil {
		return err
	}
	for _, held := range g.auth.Revocations() { // a longer one of before goes on
		if held.Key() == r.Key() {
			r = held
		}
	}
	payload, err := json.Marshal(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, g.config.Limits.PublishTimeout)
	defer cancel()
	return g.upstream.PublishControl(ctx, revocationName+r.Key(), payload)
}

// heed takes in what another gateway, or this one before a restart, has revoked. It
// is called by upstream and must not wait.
func (g *Gateway) heed(name string, payload []byte) {
	if len(payload) == 0 { // somebody cleared it; what is known holds on
		return
	}
	r, err := auth.ParseRevocation(payload)
	if err == nil && name != revocationName+r.Key() {
		err = fault.New(fault.BadRequest, "its topic is another one's")
	}
	if err == nil {
		err = g.auth.Revoke(r)
	}
	if err != nil {
		g.log.Warn("a revocation of another gateway cannot be taken in", "err", err)
	}
}
