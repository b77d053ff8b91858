package server

import (
	"time"

	"github.com/daisi/daisi-ws/session"
)

// lossWindow is how much of what it acknowledged Redis is taken to have lost
// when it failed over.
const lossWindow = 10 * time.Second

// trailMark is where the watermark was at a moment of the boot clock.
type trailMark struct {
	at time.Duration
	w  uint64
}

// mark notes the watermark now and then, so that the older of two marks is one
// of lossWindow ago at least. The worker calls it.
func (p *partition) mark(now time.Duration) {
	if now-p.trail[1].at < lossWindow {
		return
	}
	if w := p.env.index.Watermark(p.n); w != p.trail[1].w { // one that stands still needs no newer mark
		p.trail[0], p.trail[1] = p.trail[1], trailMark{now, w}
	}
}

// tellRoutesLost tells, once the partition was asserted again after a failover,
// those whose route the new master may have lacked: what was looked up there
// before passed them by, though the watermark moved on.
func (p *partition) tellRoutesLost() {
	if at := p.failed.Swap(0); at != 0 {
		p.env.routesLost(p.n, time.Duration(at)-lossWindow, p.trail[0].w+1, p.env.index.Watermark(p.n))
	}
}

// routesLost tells sessions of partition n that logged in or selected a chat
// after since what they may have missed of (from..to); a resume finds it.
func (g *Gateway) routesLost(n int, since time.Duration, from, to uint64) {
	c := g.core.Load()
	for _, i := range c.index.Recent(n, since, bootTime()) {
		first := max(from, i.Floor+1)
		if first > to || i.State != session.Live { // a replay reads all of it anyway
			continue
		}
		if h, ok := i.Session.Sock().Handler().(*client); !ok || !h.gap(first, to, reasonRoutes, true) {
			c.manager.Close(i.Session, session.ReasonGap, reasonRoutes)
		}
	}
}
