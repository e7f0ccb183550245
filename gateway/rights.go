package gateway

import (
	"context"

	"flyscreen/auth"
	"flyscreen/gateway/internal/audit"
)

// rightsChanged is told by package auth, which must not be called back.
func (g *Gateway) rightsChanged() {
	select {
	case g.rights <- struct{}{}:
	default: // the next look sees it all
	}
}

// watchRights holds the open streams to what their credentials are worth, each time
// that may have changed, until ctx is done.
func (g *Gateway) watchRights(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.rights:
		}
		g.streams.Recheck(ctx, func(p auth.Principal, address string, err error) {
			g.audit.Record(ctx, audit.Decision{Principal: p, Address: address, Action: "end stream", Err: err})
		})
	}
}
