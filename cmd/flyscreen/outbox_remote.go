package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"flyscreen/gateway/wire"
)

// outboxRemote asks a gateway on this machine.
type outboxRemote struct {
	base   string
	client *http.Client
	busy   error // why the file could not be opened
}

func newOutboxRemote(base string, busy error) *outboxRemote {
	return &outboxRemote{base: base, busy: busy, client: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // this machine's own gateway, by an address that its certificate need not hold
	}}}
}

// ask does a request and decodes its answer into v, unless that is nil.
func (r *outboxRemote) ask(ctx context.Context, method, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, method, r.base+path, nil)
	if err != nil {
		return err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return fmt.Errorf("the file cannot be opened (%w), and %w", r.busy, noAnswer(r.base, err))
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return (&client{base: r.base}).refusal(resp)
	}
	if v == nil {
		return nil
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

func (r *outboxRemote) List(ctx context.Context, limit int) (all wire.OutboxList, err error) {
	err = r.ask(ctx, http.MethodGet, fmt.Sprintf("/v1/outbox?limit=%d", limit), &all)
	return all, err
}

func (r *outboxRemote) Show(ctx context.Context, id uint64) (m wire.OutboxMessage, payload []byte, err error) {
	if err = r.ask(ctx, http.MethodGet, fmt.Sprintf("/v1/outbox/%d", id), &m); err != nil || m.Base64 == nil {
		return m, nil, err
	}
	payload, err = base64.StdEncoding.DecodeString(*m.Base64)
	return m, payload, err
}

func (r *outboxRemote) Drop(ctx context.Context, id uint64) error {
	return r.ask(ctx, http.MethodDelete, fmt.Sprintf("/v1/outbox/%d", id), nil)
}

func (r *outboxRemote) Retry(ctx context.Context, id uint64) error {
	return r.ask(ctx, http.MethodPost, fmt.Sprintf("/v1/outbox/%d/retry", id), nil)
}

func (r *outboxRemote) Close() error { return nil }
