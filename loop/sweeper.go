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

// maxStep is what the clock goes on by in one tick at most: it stands still
// while the process does (stopped, suspended, starved). Else peers whose bytes
// wait unread would be taken for dead on its return. For the same reason it does
// not follow steps of the system's clock.
const maxStep = time.Second

// sweep runs until ctx ends.
func (e *Engine) sweep(ctx context.Context) {
	t := time.NewTicker(sweepTick)
	defer t.Stop()
	w := newSweeper(e, time.Now())
	for tick := 0; ; tick = (tick + 1) % ticksPerSweep {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			w.begin(now)
			for _, s := range e.shards {
				w.deadlines(s)
			}
			n := len(e.shards)
			for _, s := range e.shards[tick*n/ticksPerSweep : (tick+1)*n/ticksPerSweep] {
				s.walk(w.buf, w.conn)
				s.shrink()
			}
		}
	}
}

// sweeper looks at sockets one by one. It belongs to one goroutine.
type sweeper struct {
	engine  *Engine
	buf     []*Conn
	late    []*Conn
	last    time.Time     // of the last tick
	elapsed time.Duration // of Engine.now since it was made

	now  uint32 // unix seconds, for handlers
	dead uint32 // last byte before this: dead
	half uint32 // the same in the middle of a message
	due  uint32 // last ping before this, or then: ping

	ping   *Frame // one for all of a tick: it holds the time
	pinged uint32 // that time on Engine.now
}

func newSweeper(e *Engine, now time.Time) *sweeper {
	return &sweeper{engine: e, buf: make([]*Conn, 0, walkStep), last: now}
}

// begin is the start of a tick.
func (w *sweeper) begin(now time.Time) {
	e := w.engine
	w.elapsed += min(max(now.Sub(w.last), 0), maxStep)
	w.last = now
	clock := e.epoch + uint32(w.elapsed/time.Second)
	e.now.Store(clock)
	w.now = uint32(now.Unix())
	w.dead = clock - uint32(e.opts.PongTimeout/time.Second)
	w.half = clock - e.messageTimeout()
	w.due = clock - uint32(e.opts.PingInterval/time.Second)
	w.ping = nil
}

// conn looks at one socket.
func (w *sweeper) conn(c *Conn) {
	defer w.rescue(c)
	switch {
	case !c.is(flagOpen) || c.is(flagClosing):
		return // deadlines has it
	case w.isDead(c):
		c.kill(End{Code: codeAbnormal, Local: true, Err: ErrTimeout})
		return
	case w.isDue(c):
		w.sendPing(c)
	}
	c.handler.Tick(c, w.now)
}

func (w *sweeper) isDead(c *Conn) bool {
	last := c.lastByte.Load()
	return int32(last-w.dead) < 0 || c.is(flagPartly) && int32(last-w.half) < 0
}

func (w *sweeper) isDue(c *Conn) bool {
	return w.engine.opts.PingInterval > 0 && int32(c.pingAt.Load()-w.due) <= 0
}

func (w *sweeper) rescue(c *Conn) {
	if p := recover(); p != nil {
		w.engine.panicked("tick", p)
		c.fail(codeInternal, "internal error", nil)
	}
}

func (w *sweeper) sendPing(c *Conn) {
	if w.ping == nil {
		stamp := time.Since(w.engine.base) // not the tick's: it becomes the round trip
		w.pinged = w.engine.now.Load()
		w.ping = c.frame(ws.OpPing, pingBody(w.pinged, stamp), Control)
	}
	c.pingAt.Store(w.pinged)
	_ = c.Queue(w.ping) // over budget: bytes on their way are a better sign of life
}

// pingBody is our pings' payload: pong compares the first half.
func pingBody(pinged uint32, stamp time.Duration) []byte {
	b := binary.BigEndian.AppendUint32(nil, pinged)
	return binary.BigEndian.AppendUint64(b, uint64(stamp))
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
