package session

import (
	"fmt"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// counters are all metrics of this package. No label carries an id.
type counters struct {
	connections, takeovers, kills, fences        *metrics.Counter
	lockErrors, lockStale, lockLost, sweepErrors *metrics.Counter
	selects, disordered                          *metrics.Counter
	ends, refusals                               [reasons]*metrics.Counter
	login, duration, sweep                       *metrics.PrometheusHistogram
}

func newCounters(set *metrics.Set, active func() float64) *counters {
	set.NewGauge("dws_active_connections", active)
	c := &counters{
		connections: set.NewCounter("dws_connections_total"),
		takeovers:   set.NewCounter("dws_session_conflicts_total"),
		kills:       set.NewCounter("dws_session_kills_total"),
		fences:      set.NewCounter("dws_session_fences_total"),
		lockErrors:  set.NewCounter("dws_session_lock_errors_total"),
		lockStale:   set.NewCounter("dws_session_lock_stale_total"),
		lockLost:    set.NewCounter("dws_session_lock_lost_total"),
		sweepErrors: set.NewCounter("dws_session_lock_sweep_errors_total"),
		selects:     set.NewCounter("dws_session_selects_total"),
		disordered:  set.NewCounter("dws_session_disordered_total"),
		login:       set.NewPrometheusHistogramExt("dws_session_open_seconds", []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2, 5, 10}),
		duration:    set.NewPrometheusHistogramExt("dws_connection_duration_seconds", []float64{1, 5, 15, 60, 300, 900, 3600, 14400, 86400}),
		sweep:       set.NewPrometheusHistogramExt("dws_session_lock_sweep_seconds", []float64{.001, .005, .02, .1, .5, 2, 5}),
	}
	for r := range reasons {
		c.ends[r] = set.NewCounter(fmt.Sprintf("dws_session_ends_total{reason=%q}", r.Label()))
		c.refusals[r] = set.NewCounter(fmt.Sprintf("dws_session_refusals_total{reason=%q}", r.Label()))
	}
	return c
}

func (c *counters) opened(took time.Duration) {
	c.connections.Inc()
	c.login.Update(took.Seconds())
}

func (c *counters) refused(r Reason) { c.refusals[r].Inc() }

func (c *counters) ended(r Reason, lasted time.Duration) {
	c.ends[r].Inc()
	c.duration.Update(max(0, lasted).Seconds())
}
