package loop

import (
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"github.com/lesismal/nbio"
)

// Conn is one WebSocket connection. Engine.NewConn or Dial makes it; it ends by
// Close, by its peer or with the Engine, and Handler.Closed tells. All methods
// may be called by any goroutine, at any time, and none blocks.
type Conn struct {
	// Static after NewConn.
	handler Handler
	shard   *shard

	// Set in Adopt before the descriptor is added.
	nb   *nbio.Conn
	wire *Wire // below TLS, else nil

	// Owned by the poller.
	rd      *reader // nil when idle
	noise   noise
	partial atomic.Uint32 // what Partial says; read by any goroutine

	// shard.mu guards the following; flags is read without it.
	q      *queue  // nil when idle
	end    *ending // nil until something ended it
	queued int32   // bytes in q and in the worker's hands
	flight uint32  // event copies inside nbio
	slot   uint32  // in shard.table
	flags  atomic.Uint32

	// Any goroutine.
	backlog  atomic.Int64  // bytes inside nbio
	lastByte atomic.Uint32 // on Engine.now
	pingAt   atomic.Uint32 // last ping, on Engine.now
	rtt      atomic.Uint32 // microseconds
}

// Flags of a Conn, changed under shard.mu.
const (
	flagAdopting uint32 = 1 << iota // Adopt has it
	flagOpen                        // the descriptor is nbio's: the worker may write
	flagReady                       // on shard.ready
	flagBusy                        // in the worker's hands
	flagBlocked                     // bytes inside nbio: OnWrittenSize will mark it
	flagDiscard                     // Discard came while the worker was at it
	flagClosing                     // nothing more is queued
	flagSent                        // the close frame is with the kernel
	flagPeer                        // the peer's close frame came
	flagDeaf                        // what comes in is thrown away
	flagFailed                      // the peer broke the protocol
	flagListed                      // on shard.closing
	flagKilled                      // to be closed as soon as it is open
	flagPartly                      // a message has begun and not ended
	flagDeflate                     // permessage-deflate was negotiated
	flagDead                        // the socket is gone, or never will be
)

// set and unset change flags; the caller holds shard.mu.
func (c *Conn) set(f uint32)   { c.flags.Store(c.flags.Load() | f) }
func (c *Conn) unset(f uint32) { c.flags.Store(c.flags.Load() &^ f) }

func (c *Conn) is(f uint32) bool { return c.flags.Load()&f != 0 }
func (c *Conn) engine() *Engine  { return c.shard.engine }
func (c *Conn) isServer() bool   { return !c.shard.engine.opts.Client }
func (c *Conn) overTLS() bool    { return c.wire != nil }

// sent books n bytes that left nbio; true: none are left in it.
func (c *Conn) sent(n int) bool { return c.backlog.Add(int64(-n)) == 0 }

// waiting is how many bytes wait; the caller holds shard.mu.
func (c *Conn) waiting() int { return int(c.queued) + int(c.backlog.Load()) }

// Handler as given to NewConn or Dial.
func (c *Conn) Handler() Handler { return c.handler }

// LastByte is when the peer last sent something, in unix seconds by a clock
// that stands still while the process does.
func (c *Conn) LastByte() uint32 { return c.lastByte.Load() }

// Idle is how long ago that was.
func (c *Conn) Idle() time.Duration {
	return time.Duration(max(int32(c.engine().now.Load()-c.lastByte.Load()), 0)) * time.Second
}

// Pinged says, to a Handler.Tick, whether a ping went with it.
func (c *Conn) Pinged() bool { return c.pingAt.Load() == c.engine().now.Load() }

// RTT is the last ping's round trip, 0 before its pong.
func (c *Conn) RTT() time.Duration { return time.Duration(c.rtt.Load()) * time.Microsecond }

// Queue puts f behind what waits in its lane. ErrSlow: it does not fit into the
// budget (a single frame always fits when nothing waits, and a Control one has an
// eighth more), ErrClosed: closing or closed; then nothing was queued.
func (c *Conn) Queue(f *Frame) error {
	s := c.shard
	s.mu.Lock()
	if c.is(flagClosing) {
		s.drops[dropEnded] += uint64(f.events)
		s.mu.Unlock()
		return ErrClosed
	}
	if w := c.waiting(); w > 0 && w+len(f.bytes) > s.engine.room(f.lane) {
		s.drops[dropSlow] += uint64(f.events)
		s.mu.Unlock()
		return ErrSlow
	}
	wake := s.enqueue(c, f)
	s.mu.Unlock()
	if wake {
		s.worker.wake(s.bit)
	}
	return nil
}

// room is how many bytes may wait where a frame of this lane does.
func (e *Engine) room(lane Lane) int {
	if lane == Control { // an answer must not fail for the events before it
		return e.opts.Budget + e.opts.Budget/8
	}
	return e.opts.Budget
}

// Send queues a message of its own, masked when this is a client's Conn; errors
// are Queue's. The payload is copied.
func (c *Conn) Send(op ws.OpCode, payload []byte) error {
	return c.Queue(c.frame(op, payload, Events))
}

func (c *Conn) frame(op ws.OpCode, payload []byte, lane Lane) *Frame {
	if c.isServer() {
		return NewFrame(op, payload, lane)
	}
	return newMasked(op, payload, lane)
}

// Discard drops the queued frames of the event lane: the way out for one that
// was too slow. What is on its way to the kernel can't be called back.
func (c *Conn) Discard() {
	s := c.shard
	s.mu.Lock()
	s.dropEvents(c, dropDiscard)
	s.mu.Unlock()
}

// dropEvents discards the event lane, as soon as the worker lets go of it.
func (s *shard) dropEvents(c *Conn, why dropReason) {
	if c.q != nil {
		bytes, events := c.q.dropEvents()
		s.discard(c, bytes, events, why)
	}
	if c.is(flagBusy) {
		c.set(flagDiscard)
	}
}

// Queued is how many bytes wait, those inside nbio included.
func (c *Conn) Queued() int {
	c.shard.mu.Lock()
	defer c.shard.mu.Unlock()
	return c.waiting()
}

// RemoteAddr is the peer's host:port, "" before adoption.
func (c *Conn) RemoteAddr() string {
	c.shard.mu.Lock()
	nb := c.nb
	c.shard.mu.Unlock()
	if nb == nil || nb.RemoteAddr() == nil {
		return ""
	}
	return nb.RemoteAddr().String()
}
