package loop

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/gobwas/ws"
)

// sweepTick is how often the sweeper looks at close deadlines and keeps the
// clock. Each shard is swept once a second, spread over the ticks.
const sweepTick = 125 * time.Millisecond

const ticksPerSweep = int(time.Second / sweepTick)

// sweep runs until ctx ends.
func (e *Engine) sweep(ctx context.Context) {
	t := time.NewTicker(sweepTick)
	defer t.Stop()
	w := sweeper{engine: e, buf: make([]*Conn, 0, walkStep)}
	for tick := 0; ; tick = (tick + 1) % ticksPerSweep {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			e.now.Store(uint32(now.Unix()))
			for _, s := range e.shards {
				w.deadlines(s)
			}
			w.begin(now)
			n := len(e.shards)
			for _, s := range e.shards[tick*n/ticksPerSweep : (tick+1)*n/ticksPerSweep] {
				s.walk(w.buf, w.conn)
			}
		}
	}
}

// sweeper looks at sockets one by one. It belongs to one goroutine.
type sweeper struct {
	engine *Engine
	buf    []*Conn
	late   []*Conn
	now    uint32
	dead   uint32 // last byte before this: dead
	due    uint32 // last ping before this, or then: ping
	ping   *Frame // one for all of a tick: it holds the time
	pinged uint32 // the same in seconds
}

func (w *sweeper) begin(now time.Time) {
	o := &w.engine.opts
	w.now = uint32(now.Unix())
	w.dead = w.now - uint32(o.PongTimeout/time.Second)
	w.due = w.now - uint32(o.PingInterval/time.Second)
	w.ping = nil
}

// conn looks at one socket.
func (w *sweeper) conn(c *Conn) {
	defer w.rescue(c)
	switch {
	case !c.is(flagOpen) || c.is(flagClosing):
		return // deadlines has it
	case int32(c.lastByte.Load()-w.dead) < 0:
		c.kill(End{Code: codeAbnormal, Local: true, Err: ErrTimeout})
		return
	case int32(c.pingAt.Load()-w.due) <= 0:
		w.sendPing(c)
	}
	c.handler.Tick(c, w.now)
}

func (w *sweeper) rescue(c *Conn) {
	if p := recover(); p != nil {
		w.engine.panicked("tick", p)
		c.fail(codeInternal, "internal error", nil)
	}
}

func (w *sweeper) sendPing(c *Conn) {
	if w.ping == nil {
		stamp := time.Now().UnixNano() // not the tick's: it becomes the round trip
		w.pinged = uint32(stamp / int64(time.Second))
		w.ping = c.frame(ws.OpPing, binary.BigEndian.AppendUint64(nil, uint64(stamp)), Control)
	}
	c.pingAt.Store(w.pinged)
	_ = c.Queue(w.ping) // over budget: bytes on their way are a better sign of life
}

// deadlines closes what has taken too long to close.
func (w *sweeper) deadlines(s *shard) {
	s.mu.Lock()
	if len(s.closing) == 0 {
		s.mu.Unlock()
		return
	}
	now := w.engine.millis()
	kept := s.closing[:0]
	for _, c := range s.closing {
		switch {
		case c.is(flagDead):
		case now >= c.end.deadline:
			w.late = append(w.late, c)
		default:
			kept = append(kept, c)
		}
	}
	clear(s.closing[len(kept):])
	s.closing = kept
	s.mu.Unlock()
	for _, c := range w.late {
		c.kill(End{Code: codeAbnormal, Local: true, Err: ErrTimeout})
	}
	clear(w.late)
	w.late = w.late[:0]
}
