package bench

import (
	"fmt"
	"math"
	"time"
)

// compare holds what the servers say they sent between two readings against the
// frames that came, and adds what they did meanwhile. Where nobody else uses the
// cluster and no socket ended, the two must be equal.
func (st *Stage) compare(from, to Reading, frames int64) {
	before, after := from.Metrics, to.Metrics
	// Sums over other processes than before say nothing.
	if len(after) == 0 || st.faulty {
		return
	}
	r := st.Report
	r.Server = before.Changes(after)
	st.rates(from, to)
	sent := after.Total(metricSent) - before.Total(metricSent) - (after[metricControl] - before[metricControl])
	off := sent - float64(frames)
	r.Add("ledger_sent", sent, "", metricSent+" of all pods, without control frames")
	r.Add("ledger_difference", off, "", "that, less the frames received")
	if r.Oracle == nil || !st.Options.Own || !st.undisturbed || len(r.Closes) > 0 {
		return
	}
	r.Oracle.Breaches[Ledger.String()] = int64(math.Abs(off))
	if off != 0 {
		r.Oracle.Findings = append(r.Oracle.Findings, Finding{
			Breach: Ledger.String(), At: time.Now(), Detail: fmt.Sprintf("the pods say that they sent %.0f copies, %d came", sent, frames),
		})
	}
}

// rates adds what the pods, and Redis, did a second between two readings.
func (st *Stage) rates(from, to Reading) {
	seconds := to.At.Sub(from.At).Seconds()
	if len(to.Metrics) == 0 || seconds <= 0 {
		return
	}
	r := st.Report
	rate := func(name, metric, note string) {
		r.Add(name, (to.Metrics.Total(metric)-from.Metrics.Total(metric))/seconds, "1/s", note)
	}
	r.Add("pods_goroutines", to.Metrics.Total(metricGoroutines), "", "all pods, at the end")
	rate("pods_gc_rate", "go_gc_duration_seconds_count", "garbage collections, all pods")
	pause := to.Metrics.Total("go_gc_duration_seconds_sum") - from.Metrics.Total("go_gc_duration_seconds_sum")
	r.Add("pods_gc_pauses", pause/seconds, "", "share of the time that a pod stood still for them, summed over the pods")
	rate("pods_redis_call_rate", "dws_redis_pipeline_calls_sum", "calls to Redis, all pods")
	rate("pods_redis_pipeline_rate", "dws_redis_pipelines_total", "round trips that they shared")
	rate("pods_nats_event_rate", "dws_nats_events_total", "events read from NATS, all pods")
	rate("pods_nats_batch_rate", "dws_nats_batches_total", "batches that they came in")
	if to.Redis != (RedisInfo{}) {
		r.Add("redis_command_rate", float64(to.Redis.Commands-from.Redis.Commands)/seconds, "1/s", "as Redis counts; calls inside of scripts counted")
		r.Add("redis_cpu", (to.Redis.CPU-from.Redis.CPU)/seconds, "", "cores")
	}
}
