package redisx

import (
	"fmt"

	"github.com/VictoriaMetrics/metrics"
)

// counts are all metrics of this package. No label carries an id, so the
// number of series depends on nothing but this file.
type counts struct {
	pipelines   *metrics.Counter             // pipelines sent
	batch       *metrics.PrometheusHistogram // calls a pipeline
	roundTrip   *metrics.PrometheusHistogram // seconds a pipeline, failed ones too
	again       *metrics.Counter             // calls sent again
	failed      *metrics.Counter             // calls that ended with an error
	busy        *metrics.Counter             // calls refused: queue full
	droppedEdge *metrics.Counter             // leaves refused: queue full
	droppedLock *metrics.Counter             // releases given up: too many could not be made
	unsure      *metrics.Counter             // edges given up
	loads       *metrics.Counter             // scripts loaded after NOSCRIPT
	bumps       *metrics.Counter             // incarnations made after a change of master

	beats       *metrics.Counter
	beatsFailed *metrics.Counter

	killAnswered  *metrics.Counter // kills by how their wait ended
	killUnknown   *metrics.Counter // not on the live list: not waited for
	killSilent    *metrics.Counter // known silent: not waited for
	killTimeout   *metrics.Counter
	killDropped   *metrics.Counter // messages that found the publisher's queue full, or no Redis
	killGarbage   *metrics.Counter // messages that could not be read
	subscriptions *metrics.Counter // subscriptions made, the first included
}

func newCounts(set *metrics.Set) *counts {
	kill := func(result string) *metrics.Counter {
		return set.NewCounter(fmt.Sprintf("dws_redis_kills_total{result=%q}", result))
	}
	return &counts{
		pipelines:   set.NewCounter("dws_redis_pipelines_total"),
		batch:       set.NewPrometheusHistogramExt("dws_redis_pipeline_calls", []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}),
		roundTrip:   set.NewPrometheusHistogramExt("dws_redis_pipeline_seconds", []float64{.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .5, 1}),
		again:       set.NewCounter("dws_redis_calls_again_total"),
		failed:      set.NewCounter("dws_redis_calls_failed_total"),
		busy:        set.NewCounter("dws_redis_calls_busy_total"),
		droppedEdge: set.NewCounter(`dws_redis_dropped_total{call="leave"}`),
		droppedLock: set.NewCounter(`dws_redis_dropped_total{call="release"}`),
		unsure:      set.NewCounter("dws_redis_edges_unsure_total"),
		loads:       set.NewCounter("dws_redis_script_loads_total"),
		bumps:       set.NewCounter("dws_redis_incarnations_bumped_total"),

		beats:       set.NewCounter("dws_redis_beats_total"),
		beatsFailed: set.NewCounter("dws_redis_beats_failed_total"),

		killAnswered:  kill("answered"),
		killUnknown:   kill("unknown"),
		killSilent:    kill("silent"),
		killTimeout:   kill("timeout"),
		killDropped:   kill("dropped"),
		killGarbage:   kill("garbage"),
		subscriptions: set.NewCounter("dws_redis_subscriptions_total"),
	}
}

// watchGauges registers what is read when metrics are written.
func (c *Client) watchGauges(set *metrics.Set) {
	set.NewGauge("dws_redis_beat_age_seconds", func() float64 { return c.BeatAge().Seconds() })
	set.NewGauge("dws_redis_live_pods", func() float64 { return float64(len(c.Live())) })
	set.NewGauge("dws_redis_calls_waiting", func() float64 {
		var n int
		for _, l := range c.lanes {
			n += l.len()
		}
		for _, l := range c.reads {
			n += l.len()
		}
		return float64(n)
	})
}
