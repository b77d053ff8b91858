package loop

import "sync"

// shard is a part of the sockets: its lock guards their queues and states, its
// worker alone writes to them.
type shard struct {
	// Static after New.
	engine *Engine
	worker *worker
	bit    uint64 // in worker.pending

	// Owned by the worker.
	turn []*Conn // a former ready list
	at   int     // first of turn that was not taken

	mu sync.Mutex
	// mu guards the following, and what Conn says it guards.
	ready   []*Conn  // have something for the worker, which is not at them
	spare   []*queue // empty
	unused  int      // how many of spare nobody wanted since shrink
	closing []*Conn  // have a deadline
	table   table
	ledger  ledger
	drops   [dropReasons]uint64

	_ [64]byte // the next shard's lock is in another cache line
}

// ledger counts event copies; residual() is always 0.
type ledger struct {
	made, written, queued, discarded uint64
}

// maxSpare is how many empty queues a shard keeps at most.
const maxSpare = 8192

// enqueue puts f behind what waits for c; the caller holds mu and calls wake
// after unlocking when told to.
func (s *shard) enqueue(c *Conn, f *Frame) (wake bool) {
	if c.q == nil {
		c.q = s.queue()
	}
	c.q.push(f)
	c.queued += int32(len(f.bytes))
	s.ledger.made += uint64(f.events)
	s.ledger.queued += uint64(f.events)
	return s.mark(c)
}

// mark puts c on the ready list unless it is there, is in the worker's hands,
// or can't be written now. True: the worker must be woken.
func (s *shard) mark(c *Conn) (wake bool) {
	const not = flagReady | flagBusy | flagBlocked | flagDead
	if fl := c.flags.Load(); fl&not != 0 || fl&flagOpen == 0 {
		return false
	}
	c.set(flagReady)
	s.ready = append(s.ready, c)
	return len(s.ready) == 1
}

func (s *shard) queue() *queue {
	if n := len(s.spare); n > 0 {
		q := s.spare[n-1]
		s.spare[n-1] = nil
		s.spare = s.spare[:n-1]
		s.unused = min(s.unused, n-1)
		return q
	}
	return new(queue)
}

// recycle takes an empty queue back.
func (s *shard) recycle(q *queue) {
	if len(s.spare) < maxSpare {
		q.reset()
		s.spare = append(s.spare, q)
	}
}

// shrink gives up half of the empty queues that were not wanted since the last
// call, so that a storm's are gone a minute later.
func (s *shard) shrink() {
	s.mu.Lock()
	keep := len(s.spare) - (s.unused+1)/2
	clear(s.spare[keep:])
	s.spare = s.spare[:keep]
	s.unused = keep
	s.mu.Unlock()
}

// discard books event copies and bytes that will never be written.
func (s *shard) discard(c *Conn, bytes, events int, why dropReason) {
	c.queued -= int32(bytes)
	s.ledger.queued -= uint64(events)
	s.ledger.discarded += uint64(events)
	s.drops[why] += uint64(events)
}

// land books event copies that the kernel has taken.
func (s *shard) land(events int) {
	s.ledger.queued -= uint64(events)
	s.ledger.written += uint64(events)
}

// dropAll discards what waits for c and what is stuck inside nbio; the worker
// is not at it.
func (s *shard) dropAll(c *Conn) {
	if c.q != nil {
		bytes, events := c.q.drop()
		s.discard(c, bytes, events, dropClosed)
		s.recycle(c.q)
		c.q = nil
	}
	s.discard(c, 0, int(c.flight), dropClosed)
	c.flight = 0
}

// putBack returns what is left of q, which was taken from c, to the front of
// what waits for c. flagDiscard says that Discard came meanwhile.
func (s *shard) putBack(c *Conn, q *queue) {
	if q == nil {
		return
	}
	if c.is(flagDiscard) {
		bytes, events := q.dropEvents()
		s.discard(c, bytes, events, dropDiscard)
	}
	if q.empty() {
		s.recycle(q)
		return
	}
	q.shrink()
	if c.q != nil {
		q.append(c.q)
		s.recycle(c.q)
	}
	c.q = q
}
