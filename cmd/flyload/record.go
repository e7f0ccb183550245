//go:build linux

package main

import (
	"encoding/json"
	"io"
	"time"
)

// record is one measurement, as -out writes it and the table shows it. "Each" is a
// delivery, in the scenarios idle and connect a connection, in publish a request.
type record struct {
	At       time.Time `json:"at"`
	Scenario string    `json:"scenario"`
	Target   string    `json:"target"`
	Step     string    `json:"step"`
	Run      int       `json:"run"` // from 1

	Streams   int     `json:"streams"`
	Topics    int     `json:"topics"`
	Payload   int     `json:"payload_bytes"`
	Asked     float64 `json:"asked_per_s,omitempty"`
	PerSecond float64 `json:"per_s"`
	CPU       float64 `json:"cpu_us_each"`
	Allocs    float64 `json:"allocs_each"` // -1: not known
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	P999      float64 `json:"p999_ms"`
	PerRead   float64 `json:"deliveries_per_read,omitempty"`
	Bytes     float64 `json:"bytes_each,omitempty"`
	PerStream float64 `json:"kb_per_stream,omitempty"` // growth of the resident memory
	Memory    float64 `json:"rss_mb,omitempty"`
	Dropped   float64 `json:"dropped,omitempty"` // messages that a gateway left out for slow readers, by its own count
	Ended     float64 `json:"ended,omitempty"`   // slow readers that a gateway ended

	Client float64 `json:"client_cpu"` // share of one core
	Others float64 `json:"others_cpu"` // share of the machine: noise
	Bad    string  `json:"bad,omitempty"`

	found step // of a capacity search: where the next one begins
}

// record says what s found, for each delivery.
func (s step) record(name string) record {
	each := max(1, float64(s.tally.delivered))
	r := record{Step: name, Asked: s.asked, PerSecond: s.rate, CPU: s.cpu * 1e6 / each, Allocs: -1,
		P50: ms(s.p50), P99: ms(s.p99), P999: ms(s.p999), Client: s.client, Others: s.others, Bad: s.bad,
		PerRead: each / max(1, float64(s.tally.reads)), Bytes: float64(s.tally.bytes) / each, found: s}
	if s.mallocs >= 0 {
		r.Allocs = s.mallocs / each
	}
	return r
}

// requests says what s found, for each HTTP publish.
func (s step) requests(name string) record {
	each := max(1, float64(s.published))
	r := record{Step: name, PerSecond: s.answered, CPU: s.cpu * 1e6 / each, Allocs: -1,
		P50: ms(s.answers.quantile(0.5)), P99: ms(s.answers.quantile(0.99)), P999: ms(s.answers.quantile(0.999)),
		Client: s.client, Others: s.others, Bad: s.bad}
	if s.mallocs >= 0 {
		r.Allocs = s.mallocs / each
	}
	return r
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// write appends r as a line of JSON.
func (r record) write(w io.Writer) error { return json.NewEncoder(w).Encode(r) }
