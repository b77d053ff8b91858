package server

import (
	"context"
	"fmt"
	"time"

	"github.com/daisi/daisi-ws/natsx"
)

// lateBeat is four beats missed: Redis is not well, though the lease stands.
const lateBeat = 2 * time.Second

// status says how the gateway is. It asks nobody: all of it is known already.
func (g *Gateway) status() Status {
	s := Status{State: StateReady, Dependencies: map[string]string{"nats": "ok", "redis": "ok", "partitions": "ok"}}
	if err := g.nats.Connected(); err != nil {
		s.Dependencies["nats"], s.State = err.Error(), StateDegraded
	}
	c := g.core.Load()
	switch {
	case c == nil:
		s.Dependencies["redis"], s.Dependencies["partitions"] = "waits for NATS", "wait for NATS"
		s.State = StateNotReady
		return s
	case g.phase.Load() != phaseServing:
		s.State = StateNotReady
		s.Dependencies["phase"] = [...]string{"starting", "serving", "draining"}[g.phase.Load()]
	}
	if late := c.late(); late != "" {
		s.Dependencies["redis"] = late
		s.State = worse(s.State)
	}
	if c.foreign.Load() {
		s.Dependencies["nats"] = "the events stream has another number of partitions than this pod: restart all pods"
		s.State = StateNotReady
	}
	if n := c.closedGates(); n > 0 {
		s.Dependencies["partitions"] = fmt.Sprintf("%d of %d wait for Redis", n, len(c.parts))
		s.State = worse(s.State)
	}
	return s
}

// late says since when Redis has not been heard of, "" while all is well.
func (c *core) late() string {
	if age, _ := c.redis.Beat(); age > lateBeat {
		return "no beat for " + age.Truncate(time.Second).String()
	}
	return ""
}

// worse is at least degraded.
func worse(state string) string {
	if state == StateNotReady {
		return state
	}
	return StateDegraded
}

// closedGates is how many partitions deliver nothing now.
func (c *core) closedGates() int {
	n := 0
	for _, p := range c.parts {
		if p.Inc() == "" || !p.whole.Load() {
			n++
		}
	}
	return n
}

// gauges are what only the whole gateway knows.
func (g *Gateway) gauges() {
	of := func(f func(c *core) float64) func() float64 {
		return func() float64 {
			if c := g.core.Load(); c != nil {
				return f(c)
			}
			return 0
		}
	}
	set := g.opts.Metrics
	set.NewGauge("dws_partitions_closed", of(func(c *core) float64 { return float64(c.closedGates()) }))
	set.NewGauge("dws_live_pods", of(func(c *core) float64 { return float64(len(c.redis.Live())) }))
	set.NewGauge("dws_peers_connected", of(func(c *core) float64 { return float64(g.connected(c)) }))
	set.NewGauge("dws_events_lag", of(func(c *core) float64 { return float64(c.lag(g.nats.Stream().Last)) }))
	set.NewGauge("dws_inbox_bytes", of(func(c *core) float64 {
		sum := int64(0)
		for _, p := range c.parts {
			sum += p.queued.Load()
		}
		return float64(sum)
	}))
}

// connected is how many other pods of the live list have a stream from here.
func (g *Gateway) connected(c *core) int {
	n := 0
	for _, p := range c.redis.Live() {
		if p.Owner != g.owner && c.peers.Stream(p.Owner) != 0 {
			n++
		}
	}
	return n
}

// lag is how far the slowest watermark is behind the stream as last seen.
func (c *core) lag(last uint64) uint64 {
	lag := uint64(0)
	for n := range c.parts {
		if w := c.index.Watermark(n); last > w {
			lag = max(lag, last-w)
		}
	}
	return lag
}

// Check looks for what must never be, and says what it found: contradictions
// in the index, copies of events that nobody accounts for.
func (g *Gateway) Check(context.Context) []string {
	var found []string
	if c := g.core.Load(); c != nil {
		if err := c.index.Check(); err != nil {
			found = append(found, "index: "+err.Error())
		}
	}
	if made, written, queued, discarded := g.engine.Ledger(); made != written+queued+discarded {
		found = append(found, fmt.Sprintf("ledger: made %d, written %d, queued %d, discarded %d", made, written, queued, discarded))
	}
	return found
}

// streamChanged starts every partition over on a stream that is not the one it
// was: made again, or rewound.
func (g *Gateway) streamChanged(natsx.Stream) {
	g.changing.Lock()
	defer g.changing.Unlock()
	s := g.nats.Stream() // the newest, whoever tells of which
	c := g.core.Load()
	if c == nil {
		return // Run compares once there is one
	}
	if s.Partitions != len(c.parts) {
		c.foreign.Store(true)
		g.log.Error().Int("partitions", s.Partitions).Int("want", len(c.parts)).
			Msg("the events stream has another number of partitions now: restart all pods")
		return
	}
	c.foreign.Store(false)
	c.stream.Store(&s)
	for _, p := range c.parts {
		p.Reset(s)
	}
}
