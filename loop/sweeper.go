package loop

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/gobwas/ws"
)

// sweepTick is how often the sweeper looks at close deadlines and keeps the
// clock. All shards are swept in one tick a second, for a burst costs less than
// its parts: whenever a poller has slept in the kernel, the runtime's monitor
// stays awake for 10 ms after it (runtime.retake): 29 % of what an idle process
// of 15,000 sockets used when pings went out eight times a second.
const sweepTick = 250 * time.Millisecond

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
			if tick == 0 {
				w.sweep()
			}
		}
	}
}

// sweeper looks at sockets one by one. It belongs to one goroutine.
type sweeper struct {
	engine  *Engine
	visits  visits
	late    []*Conn
	last    time.Time     // of the last tick
	elapsed time.Duration // of Engine.now since it was made

	now   uint32 // unix seconds, for handlers
	clock uint32 // Engine.now
	dead  uint32 // last byte before this: dead
	half  uint32 // the same in the middle of a message
	due   uint32 // last ping before this, or then: ping

	ping   *Frame // one for all of a tick: it holds the time
	pinged uint32 // that time on Engine.now
}

func newSweeper(e *Engine, now time.Time) *sweeper {
	return &sweeper{engine: e, last: now}
}

// begin is the start of a tick.
func (w *sweeper) begin(now time.Time) {
	e := w.engine
	w.elapsed += min(max(now.Sub(w.last), 0), maxStep)
	w.last = now
	w.clock = e.epoch + uint32(w.elapsed/time.Second)
	e.now.Store(w.clock)
	w.now = uint32(now.Unix())
	w.dead = w.clock - uint32(e.opts.PongTimeout/time.Second)
	w.half = w.clock - e.messageTimeout()
	w.due = w.clock - uint32(e.opts.PingInterval/time.Second)
	w.ping = nil
}

// sweep looks at the sockets that are due.
func (w *sweeper) sweep() {
	for _, s := range w.engine.shards {
		s.visit(&w.visits, w.clock, w.conn)
		s.shrink()
	}
}

// conn looks at one socket, and says after how many seconds to do so again.
func (w *sweeper) conn(c *Conn) (after uint32) {
	defer w.rescue(c)
	after = 1
	switch {
	case !c.is(flagOpen) || c.is(flagClosing):
		return after // deadlines has it
	case w.isDead(c):
		c.kill(End{Code: codeAbnormal, Local: true, Err: ErrTimeout})
		return after
	case w.isDue(c):
		w.sendPing(c)
	}
	wish := c.handler.Tick(c, w.now)
	// Signed: a moment that has passed is due at once. lastByte only moves on,
	// and whoever finds the socket too early looks again later.
	last := c.lastByte.Load()
	left := int32(last-w.dead) + 1
	if c.is(flagPartly) {
		left = min(left, int32(last-w.half)+1)
	}
	if w.engine.opts.PingInterval > 0 {
		left = min(left, int32(c.pingAt.Load()-w.due))
	}
	if wish != 0 {
		left = min(left, int32(wish-w.now))
	}
	return uint32(max(left, 1))
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
