package bench

import (
	"context"
	"sync/atomic"
	"time"
)

// ServerSample is what the pods said of themselves at one instant, summed over
// them. Counters are since their start.
type ServerSample struct {
	Sessions   float64 `json:"sessions"`
	Goroutines float64 `json:"goroutines"`
	GCs        float64 `json:"gcs"`         // collections so far
	Heap       float64 `json:"heap"`        // bytes in use
	RedisCalls float64 `json:"redis_calls"` // so far
	NATSEvents float64 `json:"nats_events"` // read so far
	Forwarded  float64 `json:"forwarded"`   // event copies sent to other pods so far
	Lag        float64 `json:"lag"`         // events stored and not yet taken
	Queued     float64 `json:"queued"`      // event copies waiting for a write
}

func serverSample(s Series) *ServerSample {
	return &ServerSample{
		Sessions: s.Total("dws_active_connections"), Goroutines: s.Total(metricGoroutines), GCs: s.Total("go_gc_duration_seconds_count"),
		Heap: s.Total("go_memstats_heap_inuse_bytes"), RedisCalls: s.Total("dws_redis_pipeline_calls_sum"), NATSEvents: s.Total("dws_nats_events_total"),
		Forwarded: s.Total("dws_events_forwarded_total"), Lag: s.Total("dws_events_lag"), Queued: s.Total("dws_events_queued"),
	}
}

// follower reads the pods' metrics at an interval, beside the rows of the time
// series: a pod that stands still must not hold those up.
type follower struct {
	scraper *Scraper
	every   time.Duration // 0: never

	last atomic.Pointer[ServerSample] // not yet in a row
}

func (f *follower) Run(ctx context.Context) error {
	if f.every <= 0 {
		return nil
	}
	t := time.NewTicker(f.every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			// A pod that does not answer leaves a hole in the chart, no more: the
			// readings that figures are made of report it.
			if s, err := f.scraper.Read(ctx); err == nil && len(s) > 0 {
				f.last.Store(serverSample(s))
			}
		}
	}
}
