package loop

import (
	"bytes"
	"testing"

	"github.com/gobwas/ws"
)

// TestPingFlood wants a peer that sends pings and reads no pong to cost a few
// frames, not a budget full of them, and to be answered again when it reads.
func TestPingFlood(t *testing.T) {
	h := startHouse(t, houseOptions{loop: Options{Budget: 64 << 20}})
	p := h.raw(t, nil)
	c := h.next(t)
	fill(t, h.engine, c)
	before := c.Queued()
	p.send(t, bytes.Repeat(masked(0x89, "p"), maxNoise-100))
	p.send(t, masked(0x81, "last"))
	// The echo of the last message says that all pings before it were taken.
	eventually(t, "the echo waits", func() bool { return c.Queued() >= before+6 })
	c.shard.mu.Lock()
	waiting := len(c.q.control) - c.q.nextC
	c.shard.mu.Unlock()
	if waiting > maxPongs {
		t.Errorf("%d pongs wait", waiting)
	}
	pongs := 0
	for {
		op, payload := p.frame(t)
		if op == ws.OpPong {
			pongs++
		}
		if payload == "last" {
			break
		}
	}
	// The kernel takes some more of them while the pings come in.
	if pongs == 0 || pongs > maxNoise/2 {
		t.Errorf("%d pongs of %d pings", pongs, maxNoise-100)
	}
	p.send(t, masked(0x89, "again"))
	p.want(t, ws.OpPong, "again")
}
