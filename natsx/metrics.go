package natsx

import (
	"github.com/VictoriaMetrics/metrics"
)

// clientMetrics are all series of this package.
type clientMetrics struct {
	events, batches, repaired      *metrics.Counter
	poison                         [poisonReasons]*metrics.Counter
	restarts                       [restartReasons]*metrics.Counter
	connects, asyncErrors          *metrics.Counter
	apiErrors                      *metrics.Counter
	made, changed, resourced, trim *metrics.Counter
}

func newMetrics(c *Client) *clientMetrics {
	s := c.o.Metrics
	m := &clientMetrics{
		events:      s.NewCounter("dws_nats_events_total"),          // read live
		batches:     s.NewCounter("dws_nats_batches_total"),         // they came in
		repaired:    s.NewCounter("dws_nats_repaired_events_total"), // read again from the stream
		connects:    s.NewCounter("dws_nats_connects_total"),        // connections made
		asyncErrors: s.NewCounter("dws_nats_async_errors_total"),    // errors nats.go reported
		apiErrors:   s.NewCounter("dws_nats_api_errors_total"),      // JetStream calls unanswered
		made:        s.NewCounter("dws_nats_streams_made_total"),    // events streams made by this process
		changed:     s.NewCounter("dws_nats_stream_changes_total"),  // stream ids met after the first
		resourced:   s.NewCounter("dws_nats_source_restarts_total"), // sources set up again
		trim:        s.NewCounter("dws_nats_trimmed_total"),         // gaps of the stream itself
	}
	for r := notPoison + 1; r < poisonReasons; r++ {
		m.poison[r] = s.NewCounter(`dws_nats_poison_total{reason="` + r.String() + `"}`)
	}
	for r := range restartReasons {
		m.restarts[r] = s.NewCounter(`dws_nats_reader_restarts_total{reason="` + r.String() + `"}`)
	}
	s.NewGauge("dws_nats_connected", func() float64 {
		if c.conn() == nil {
			return 0
		}
		return 1
	})
	s.NewGauge("dws_nats_stream_last_seq", func() float64 { return float64(c.Stream().Last) })
	s.NewGauge("dws_nats_consumer_lag", c.lag) // events stored and not yet read, all readers
	return m
}

// lag sums up what the readers have still to read.
func (c *Client) lag() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var sum uint64
	for r := range c.readers {
		sum += r.pending.Load()
	}
	return float64(sum)
}
