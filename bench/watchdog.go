package bench

import (
	"context"
	"runtime"
	"time"
)

// watchdogBeat is how often the Watchdog wakes; being later than that is time
// in which this process did not get to run. Of a crew each worker has one, and
// whoever wakes up often keeps the runtime's monitor awake, too.
const watchdogBeat = 25 * time.Millisecond

// Watchdog measures this process's own scheduling lag, so that a run can say
// whether the generator was what limited it.
type Watchdog struct {
	lag Hist
}

// Run measures until ctx ends.
func (w *Watchdog) Run(ctx context.Context) error {
	t := time.NewTimer(watchdogBeat)
	defer t.Stop()
	for {
		due := time.Now().Add(watchdogBeat)
		t.Reset(watchdogBeat)
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			w.lag.Record(0, time.Since(due))
		}
	}
}

// Generator says how this process fared.
type Generator struct {
	CPU        float64    `json:"cpu"`         // share of GOMAXPROCS used in the measured window, 0-1
	CPUPerCopy float64    `json:"cpu_per_rx"`  // seconds per received event frame
	Lag        Latency    `json:"lag"`         // own scheduling lag
	Feed       *FeedStats `json:"feed"`        // nil: nothing was published
	Bottleneck string     `json:"bottleneck"`  // why the result is void, empty if it is not
	Slow       string     `json:"slow"`        // the same of a run that judges no time: only its latencies are void
	Bytes      int64      `json:"rss_sockets"` // RSS of this process gained while logging in
}

// Limits beyond which the generator voids a result.
const (
	maxOwnCPU  = 0.90                   // share of GOMAXPROCS
	maxOwnLag  = 50 * time.Millisecond  // p99
	minBeats   = 100                    // of the Watchdog, for a p99
	maxStall   = 500 * time.Millisecond // of this process, at most
	maxFeedLag = 100 * time.Millisecond // p99, behind schedule while NATS took all it was given
)

// judge decides whether the generator was the bottleneck over a window; untimed:
// that voids nothing but what the run tells of latencies.
func (g *Generator) judge(u Usage, untimed bool) {
	if u.Seconds > 0 {
		g.CPU = u.Own / u.Seconds / float64(runtime.GOMAXPROCS(0))
	}
	why := &g.Bottleneck
	if untimed {
		why = &g.Slow
	}
	switch {
	case g.CPU > maxOwnCPU:
		*why = "own CPU over 90 % of GOMAXPROCS: fewer events or sessions, or more workers"
	case g.Lag.Count >= minBeats && g.Lag.P99 > maxOwnLag.Seconds():
		*why = "own scheduling lag p99 over 50 ms: this process did not get to run"
	case g.Lag.Max > maxStall.Seconds():
		*why = "this process did not get to run for over 500 ms at a time"
	case g.Feed != nil && g.Feed.Lag.P99 > maxFeedLag.Seconds():
		*why = "feed p99 over 100 ms behind schedule although NATS took what it was given"
	}
}
