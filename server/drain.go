package server

import (
	"context"
	"time"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// drainTick is how often a share of the sessions is told to go.
const drainTick = 20 * time.Millisecond

// Drain tells every session to go, pace a second, faster where the deadline of
// ctx asks for it: then they are spread evenly up to it. Those still here when
// ctx ends are told all at once. After it none is left but for logins that were
// let in meanwhile.
func (c *core) Drain(ctx context.Context, pace int) {
	deadline, bounded := ctx.Deadline()
	var left []*session.Session[*loop.Conn]
	for n := range c.parts {
		left = c.index.Snapshot(n, left)
	}
	for len(left) > 0 {
		share := max(1, pace*int(drainTick)/int(time.Second))
		if bounded {
			ticks := int(time.Until(deadline) / drainTick)
			share = max(share, len(left)/max(1, ticks))
		}
		if ctx.Err() != nil {
			share = len(left)
		}
		share = min(share, len(left))
		for _, s := range left[:share] {
			if h, ok := s.Sock().Handler().(*client); ok && c.index.State(s) != session.Joining {
				h.drain()
			}
			c.manager.Close(s, session.ReasonDraining, "")
		}
		if left = left[share:]; len(left) > 0 {
			pause(ctx, drainTick)
		}
	}
}

// drained is Drain within d.
func (g *Gateway) drained(c *core, d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	c.Drain(ctx, g.opts.Drain.Rate)
}

// awaitFlushed lets close frames out and peers answer, at most for as long as
// loop itself would wait.
func (g *Gateway) awaitFlushed() {
	const patience, look = 2 * time.Second, 10 * time.Millisecond
	for end := time.Now().Add(g.end.step(patience)); g.engine.Len() > 0 && time.Now().Before(end); {
		time.Sleep(look)
	}
}

// missed tells every session of partition n that (from..to) was not delivered:
// by a gap frame where that is understood, by a close where it is not. Admins
// hear all partitions, so they are told of each; of a new stream once.
func (g *Gateway) missed(n int, from, to uint64, why string, replayable bool) {
	c := g.core.Load()
	admins := session.AdminKey("").Partition(len(c.parts))
	list := c.index.Snapshot(n, nil)
	if n != admins && why != reasonReset {
		list = c.index.Snapshot(admins, list)
	}
	for _, s := range list {
		if s.Partition() != n && !s.Key().IsAdmin() || c.index.State(s) == session.Joining {
			continue // a login under way gets its ready after all this
		}
		if h, ok := s.Sock().Handler().(*client); !ok || !h.gap(from, to, why, replayable) {
			c.manager.Close(s, session.ReasonGap, why)
		}
	}
}
