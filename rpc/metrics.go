package rpc

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/VictoriaMetrics/metrics"

	"github.com/daisi/daisi-ws/session"
)

// drop says why a batch did not go to a peer.
type drop uint8

// All reasons; dropNames are their metric labels.
const (
	dropNone          drop = iota
	dropNoPeer             // not in the live list
	dropNoStream           // not connected
	dropBreaker            // not connected, and not tried now
	dropStreamChanged      // the events stream is another one than the peer agreed on
	dropTooBig             // over Options.MaxMessage
	dropFull               // over Options.QueueBytes
	dropStalled            // the peer reads nothing
	dropUnacked            // the peer acks nothing of this partition
	dropBroken             // waited when the stream ended
	drops
)

var dropNames = [drops]string{
	"", "no_peer", "no_stream", "breaker", "stream_changed", "too_big", "queue_full", "stalled", "unacked", "broken",
}

// Buckets of the ack latency, in seconds: a loopback takes 100 us, AckTimeout 1 s.
var ackBuckets = [...]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}

// tally is all that this package counts.
type tally struct {
	dropped    [drops]*metrics.Counter
	batches    *metrics.Counter
	events     *metrics.Counter
	ackSeconds *metrics.PrometheusHistogram

	taken       *metrics.Counter
	takenEvents *metrics.Counter
	refused     *metrics.Counter
	garbage     *metrics.Counter
	panics      *metrics.Counter
	pushed      map[string]*metrics.Counter

	pods map[string]bool // labels that gauges are registered for; Service.mu guards it
}

func newTally(set *metrics.Set, served func() int) *tally {
	t := &tally{
		batches:     set.GetOrCreateCounter(`dws_forward_batches_sent_total`),
		events:      set.GetOrCreateCounter(`dws_forward_events_sent_total`),
		ackSeconds:  set.GetOrCreatePrometheusHistogramExt(`dws_forward_ack_seconds`, ackBuckets[:]),
		taken:       set.GetOrCreateCounter(`dws_forward_batches_received_total`),
		takenEvents: set.GetOrCreateCounter(`dws_forward_events_received_total`),
		refused:     set.GetOrCreateCounter(`dws_forward_refused_total`),
		garbage:     set.GetOrCreateCounter(`dws_forward_bad_frames_total`),
		panics:      set.GetOrCreateCounter(`dws_forward_panics_total`),
		pushed:      map[string]*metrics.Counter{},
		pods:        map[string]bool{},
	}
	for d := dropNone + 1; d < drops; d++ {
		t.dropped[d] = set.GetOrCreateCounter(fmt.Sprintf(`dws_forward_batches_dropped_total{reason=%q}`, dropNames[d]))
	}
	for _, result := range [...]string{pushDelivered, pushNobody, pushBad, pushFailed} {
		t.pushed[result] = set.GetOrCreateCounter(fmt.Sprintf(`dws_forward_push_total{result=%q}`, result))
	}
	set.GetOrCreateGauge(`dws_forward_streams_served`, func() float64 { return float64(served()) })
	return t
}

func (t *tally) drop(why drop, n int) { t.dropped[why].Add(n) }

func (t *tally) sent(batches, events int) {
	t.batches.Add(batches)
	t.events.Add(events)
}

func (t *tally) took(batches, events int) {
	t.taken.Add(batches)
	t.takenEvents.Add(events)
}

// follow keeps one series of each gauge per pod of the live list. Its label is
// the pod's name, not the owner's: a restart makes no new series.
func (t *tally) follow(set *metrics.Set, peers *atomic.Pointer[map[session.Owner]*peer]) {
	want := map[string]bool{}
	for owner := range *peers.Load() {
		want[podLabel(owner)] = true
	}
	for pod := range t.pods {
		if !want[pod] {
			for _, g := range peerGauges {
				set.UnregisterMetric(g.series(pod))
			}
		}
	}
	for pod := range want {
		if t.pods[pod] {
			continue
		}
		for _, g := range peerGauges {
			set.GetOrCreateGauge(g.series(pod), func() float64 {
				v := 0.0
				for owner, p := range *peers.Load() {
					if podLabel(owner) == pod {
						v = g.join(v, g.read(p))
					}
				}
				return v
			})
		}
	}
	t.pods = want
}

// peerGauge is read from a peer; a pod that restarts is two of them for a while.
type peerGauge struct {
	name string
	read func(*peer) float64
	join func(a, b float64) float64
}

func (g peerGauge) series(pod string) string { return fmt.Sprintf(`%s{peer=%q}`, g.name, pod) }

var peerGauges = [...]peerGauge{
	{"dws_forward_queue_bytes", func(p *peer) float64 { return float64(p.queued()) }, add},
	{"dws_forward_stream_open", func(p *peer) float64 { return float64(min(p.stream.Load(), 1)) }, larger},
	// 0 closed, 1 half-open, 2 open.
	{"dws_forward_breaker_state", func(p *peer) float64 { return float64(p.breaker.State()) }, larger},
}

func add(a, b float64) float64    { return a + b }
func larger(a, b float64) float64 { return max(a, b) }

// podLabel makes a label value of a pod's name, whatever that holds.
func podLabel(o session.Owner) string {
	name := o.Pod()
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._", r) {
			return r
		}
		return '_'
	}, name[:min(len(name), 128)])
}
