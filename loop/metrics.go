package loop

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/VictoriaMetrics/metrics"
)

// Names of the metrics; what they count stands beside the writer.
const (
	nameSockets     = "dws_sockets"
	nameSent        = "dws_messages_sent_total"
	nameReceived    = "dws_messages_received_total"
	nameDrops       = "dws_drops_total"
	nameLatency     = "dws_publish_to_write_seconds"
	nameFlushFrames = "dws_flush_frames"
	nameRTT         = "dws_ping_rtt_seconds"
	nameBytesSent   = "dws_bytes_sent_total"
	nameBytesRead   = "dws_bytes_received_total"
	nameDeflated    = "dws_frames_deflated_total"
	nameQueued      = "dws_events_queued"
	namePanics      = `dws_panics_total{component="loop"}`
)

// dropReason says why event copies were not written.
type dropReason uint8

const (
	dropSlow    dropReason = iota // refused by Queue: over the budget
	dropEnded                     // refused by Queue: the socket is closing
	dropDiscard                   // taken out by Discard
	dropClosed                    // the socket ended before them
	dropReasons
)

var dropLabels = [dropReasons]string{"slow", "ended", "discarded", "closed"}

// Upper bounds of the histograms.
var (
	latencyBounds = [...]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	framesBounds  = [...]float64{1, 2, 4, 8, 16, 32, 64, 128, 256}
)

// pollerStats are counters of one poller, alone in their cache line.
type pollerStats struct {
	bytes, messages atomic.Uint64
	_               [48]byte
}

// tally is what a writer counts: plain numbers of one goroutine, added to a
// guarded total once a flush.
type tally struct {
	kinds   []uint64 // events handed to sockets, by kind
	control uint64   // frames that are no event
	bytes   uint64   // before TLS
	latency [len(latencyBounds) + 1]uint64
	seconds float64 // sum of latency
	frames  [len(framesBounds) + 1]uint64
	joined  uint64 // sum of frames
}

func newTally(kinds int) tally { return tally{kinds: make([]uint64, kinds)} }

// frame counts f, which goes out now (unix ns).
func (t *tally) frame(f *Frame, now int64) {
	if f.events == 0 {
		t.control++
		return
	}
	if k := int(f.kind); k < len(t.kinds) {
		t.kinds[k]++
	}
	if f.stamp == 0 {
		return
	}
	s := max(float64(now-f.stamp)/1e9, 0)
	i := 0
	for i < len(latencyBounds) && s > latencyBounds[i] {
		i++
	}
	t.latency[i]++
	t.seconds += s
}

// write counts one write of so many frames and bytes.
func (t *tally) write(frames, bytes int) {
	t.bytes += uint64(bytes)
	i := 0
	for i < len(framesBounds) && float64(frames) > framesBounds[i] {
		i++
	}
	t.frames[i]++
	t.joined += uint64(frames)
}

func (t *tally) add(o *tally) {
	for i, n := range o.kinds {
		t.kinds[i] += n
	}
	for i, n := range o.latency {
		t.latency[i] += n
	}
	for i, n := range o.frames {
		t.frames[i] += n
	}
	t.control += o.control
	t.bytes += o.bytes
	t.seconds += o.seconds
	t.joined += o.joined
}

func (t *tally) reset() {
	clear(t.kinds)
	*t = tally{kinds: t.kinds}
}

// tallies is the engine's metrics.
type tallies struct {
	engine *Engine
	panics *metrics.Counter
	rtt    *metrics.PrometheusHistogram
	pool   sync.Pool // of *tally, for greetings

	mu sync.Mutex
	// mu guards the following.
	greetings tally
}

func newTallies(e *Engine) *tallies {
	kinds := len(e.opts.Kinds)
	m := &tallies{
		engine:    e,
		panics:    e.opts.Metrics.GetOrCreateCounter(namePanics),
		rtt:       e.opts.Metrics.GetOrCreatePrometheusHistogram(nameRTT),
		greetings: newTally(kinds),
	}
	m.pool.New = func() any {
		t := newTally(kinds)
		return &t
	}
	e.opts.Metrics.RegisterMetricsWriter(m.writeTo)
	return m
}

// tally lends one; give adds it to the total.
func (m *tallies) tally() *tally { return m.pool.Get().(*tally) }

func (m *tallies) give(t *tally) {
	m.mu.Lock()
	m.greetings.add(t)
	m.mu.Unlock()
	t.reset()
	m.pool.Put(t)
}

// sum adds up all writers.
func (m *tallies) sum() tally {
	t := newTally(len(m.engine.opts.Kinds))
	m.mu.Lock()
	t.add(&m.greetings)
	m.mu.Unlock()
	for _, w := range m.engine.workers {
		w.mu.Lock()
		t.add(&w.total)
		w.mu.Unlock()
	}
	return t
}

// writeTo is called at each scrape.
func (m *tallies) writeTo(w io.Writer) {
	e := m.engine
	t := m.sum()
	metrics.WriteGaugeUint64(w, nameSockets, uint64(e.Len()))
	metrics.WriteMetadataIfNeeded(w, nameSent, "counter")
	for i, kind := range e.opts.Kinds {
		fmt.Fprintf(w, "%s{event_type=%q} %d\n", nameSent, kind, t.kinds[i])
	}
	fmt.Fprintf(w, "%s{event_type=\"control\"} %d\n", nameSent, t.control)
	var drops [dropReasons]uint64
	for _, s := range e.shards {
		s.mu.Lock()
		for i, n := range s.drops {
			drops[i] += n
		}
		s.mu.Unlock()
	}
	metrics.WriteMetadataIfNeeded(w, nameDrops, "counter")
	for i, n := range drops {
		fmt.Fprintf(w, "%s{reason=%q} %d\n", nameDrops, dropLabels[i], n)
	}
	var bytes, messages uint64
	for i := range e.pollers {
		bytes += e.pollers[i].bytes.Load()
		messages += e.pollers[i].messages.Load()
	}
	_, _, queued, _ := e.Ledger()
	metrics.WriteCounterUint64(w, nameReceived, messages)
	metrics.WriteCounterUint64(w, nameBytesRead, bytes)
	metrics.WriteCounterUint64(w, nameBytesSent, t.bytes)
	metrics.WriteCounterUint64(w, nameDeflated, e.press.made.Load())
	metrics.WriteGaugeUint64(w, nameQueued, queued)
	writeHistogram(w, nameLatency, latencyBounds[:], t.latency[:], t.seconds)
	writeHistogram(w, nameFlushFrames, framesBounds[:], t.frames[:], float64(t.joined))
}

func writeHistogram(w io.Writer, name string, bounds []float64, counts []uint64, sum float64) {
	metrics.WriteMetadataIfNeeded(w, name, "histogram")
	n := uint64(0)
	for i, b := range bounds {
		n += counts[i]
		fmt.Fprintf(w, "%s_bucket{le=\"%v\"} %d\n", name, b, n)
	}
	n += counts[len(bounds)]
	fmt.Fprintf(w, "%s_bucket{le=\"+Inf\"} %d\n%s_sum %g\n%s_count %d\n", name, n, name, sum, name, n)
}
