package loop

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/gobwas/ws"
)

// TestMetrics wants numbers that agree with what happened, and as many series
// with sockets as without.
func TestMetrics(t *testing.T) {
	set := metrics.NewSet()
	h := startHouse(t, houseOptions{loop: Options{Metrics: set, Kinds: []string{"chat", "agent"}}})
	before := series(scrape(set))
	p := h.raw(t, nil)
	c := h.next(t)
	for range 3 {
		_ = c.Queue(NewEvent([]byte("x"), time.Now().Add(-time.Millisecond).UnixNano(), 1))
		p.want(t, ws.OpText, "x")
	}
	_ = c.Queue(NewFrame(ws.OpText, []byte("y"), Control))
	p.want(t, ws.OpText, "y")
	p.send(t, masked(0x81, "hello"))
	p.want(t, ws.OpText, "hello")
	for _, line := range []string{
		`dws_sockets 1`,
		`dws_messages_sent_total{event_type="chat"} 0`,
		`dws_messages_sent_total{event_type="agent"} 3`,
		`dws_messages_sent_total{event_type="control"} 2`,
		`dws_messages_received_total 1`,
		`dws_bytes_received_total 11`,
		`dws_events_queued 0`,
		`dws_drops_total{reason="slow"} 0`,
		`dws_publish_to_write_seconds_count 3`,
		`dws_publish_to_write_seconds_bucket{le="0.0005"} 0`,
		`dws_publish_to_write_seconds_bucket{le="+Inf"} 3`,
		`dws_panics_total{component="loop"} 0`,
	} {
		eventually(t, line, func() bool { return strings.Contains(scrape(set), "\n"+line+"\n") })
	}
	if after := series(scrape(set)); after != before {
		t.Errorf("%d series with a socket, %d without", after, before)
	}
}

func scrape(set *metrics.Set) string {
	var b bytes.Buffer
	set.WritePrometheus(&b)
	return "\n" + b.String()
}

func series(text string) int {
	n := 0
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) != "" && line[0] != '#' {
			n++
		}
	}
	return n
}
