package server

import (
	"github.com/VictoriaMetrics/metrics"
)

// Why a batch was not taken. The stream still has its events: the hole shows
// in the next batch and is repaired.
type batchDrop uint8

const (
	dropInbox  batchDrop = iota // the partition's worker is behind
	dropGate                    // Redis and this pod do not agree yet
	dropStale                   // looked up under an older incarnation
	dropStream                  // of a stream that is not ours any more
	batchDrops
)

var batchDropLabels = [batchDrops]string{"inbox", "gate", "stale", "stream"}

// Why a partition read the stream itself.
var repairCauses = [...]string{"assert", "hole", "silence"}

// tally counts what the delivery side does, per batch, never per delivery.
type tally struct {
	asserts, assertErrors *metrics.Counter
	resets                *metrics.Counter
	events                *metrics.Counter
	lookupErrors          *metrics.Counter
	forwarded             *metrics.Counter
	batchEvents           *metrics.PrometheusHistogram
	restarts              map[string]*metrics.Counter
	drops                 [batchDrops]*metrics.Counter
	repairs               [len(repairCauses)]*metrics.Counter
}

func newTally(set *metrics.Set) *tally {
	t := &tally{
		asserts:      set.NewCounter("dws_partition_asserts_total"),
		assertErrors: set.NewCounter("dws_partition_assert_errors_total"),
		resets:       set.NewCounter("dws_partition_resets_total"),
		events:       set.NewCounter("dws_events_dispatched_total"),
		lookupErrors: set.NewCounter("dws_lookup_errors_total"),
		forwarded:    set.NewCounter("dws_events_forwarded_total"),
		batchEvents:  set.NewPrometheusHistogramExt("dws_dispatch_batch_events", []float64{1, 2, 4, 8, 16, 32, 64, 128, 256}),
		restarts:     map[string]*metrics.Counter{},
	}
	for i, label := range batchDropLabels {
		t.drops[i] = set.NewCounter(`dws_batches_dropped_total{reason="` + label + `"}`)
	}
	for i, label := range repairCauses {
		t.repairs[i] = set.NewCounter(`dws_partition_repairs_total{cause="` + label + `"}`)
	}
	for _, c := range components {
		t.restarts[c] = set.NewCounter(`dws_component_restarts_total{component="` + c + `"}`)
	}
	return t
}

func (t *tally) drop(why batchDrop) { t.drops[why].Inc() }

func (t *tally) repaired(cause string) {
	for i, c := range repairCauses {
		if c == cause {
			t.repairs[i].Inc()
		}
	}
}

func (t *tally) dispatched(events int) {
	t.events.Add(events)
	t.batchEvents.Update(float64(events))
}
