package loop

import (
	"context"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// joinLimit bounds what is joined into one write, in bytes. It is also what
	// a stalled socket may hold inside nbio beside a single larger frame.
	joinLimit = 64 << 10
	// takeLimit is how many sockets a worker takes from a shard at once: their
	// lock is then taken twice for all of them.
	takeLimit = 64
)

// worker writes what is queued for the sockets of its shards: one write a
// socket, of all that waits. It sleeps when nothing does; there is no timer, so
// batching comes from load alone.
type worker struct {
	// Static after New.
	shards []*shard

	pending atomic.Uint64 // shards with a ready list
	asleep  atomic.Bool
	signal  chan struct{} // capacity 1

	// Owned by run.
	works []work
	acts  []act
	buf   []byte // frames joined
	seal  []byte // TLS records joined
	tally tally  // of the shard at hand

	mu sync.Mutex
	// mu guards the following.
	total tally

	_ [64]byte
}

// work is one socket in a worker's hands.
type work struct {
	c      *Conn
	q      *queue // nil: there is nothing to write, only to conclude
	bytes  int    // handed to the socket
	events int    // event copies handed to the socket
	flight int    // of those, in a write that the kernel has not taken whole
}

// act is what is left to do after a write, without the lock.
type act struct {
	c    *Conn
	what func(*Conn)
}

func newWorker(kinds int) *worker {
	return &worker{
		signal: make(chan struct{}, 1),
		works:  make([]work, 0, takeLimit),
		buf:    make([]byte, 0, joinLimit),
		tally:  newTally(kinds),
		total:  newTally(kinds),
	}
}

// wake says that the shard with this bit has a ready list.
func (w *worker) wake(bit uint64) {
	w.pending.Or(bit)
	if w.asleep.Load() && w.asleep.CompareAndSwap(true, false) {
		w.signal <- struct{}{}
	}
}

func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		for set := w.pending.Swap(0); set != 0; set &= set - 1 {
			w.flush(w.shards[bits.TrailingZeros64(set)])
		}
		if w.pending.Load() != 0 {
			continue
		}
		w.asleep.Store(true)
		if w.pending.Load() != 0 {
			if w.asleep.CompareAndSwap(true, false) {
				continue
			}
			<-w.signal // somebody took the flag down and signals
			continue
		}
		select {
		case <-w.signal:
		case <-ctx.Done():
			return
		}
	}
}

// flush writes to some of the sockets that are ready in s. More of them are left
// for the next turn, so that a wide fan-out in one shard does not hold up others.
func (w *worker) flush(s *shard) {
	s.mu.Lock()
	if s.at == len(s.turn) {
		clear(s.turn)
		s.turn, s.ready, s.at = s.ready, s.turn[:0], 0
	}
	w.take(s)
	s.mu.Unlock()
	for i := range w.works {
		w.write(&w.works[i])
	}
	s.mu.Lock()
	for i := range w.works {
		w.settle(s, &w.works[i])
	}
	more := s.at < len(s.turn) || len(s.ready) > 0
	s.mu.Unlock()
	if more {
		w.pending.Or(s.bit)
	}
	w.mu.Lock()
	w.total.add(&w.tally)
	w.mu.Unlock()
	w.tally.reset()
	clear(w.works)
	w.works = w.works[:0]
	for i := range w.acts {
		w.acts[i].what(w.acts[i].c)
	}
	clear(w.acts)
	w.acts = w.acts[:0]
}

// take moves sockets from s.turn into the worker's hands; the caller holds s.mu.
func (w *worker) take(s *shard) {
	for ; s.at < len(s.turn) && len(w.works) < takeLimit; s.at++ {
		c := s.turn[s.at]
		c.unset(flagReady)
		if c.is(flagDead) {
			continue
		}
		s.land(int(c.flight)) // it is not blocked, so all that was inside nbio is gone
		c.flight = 0
		c.set(flagBusy)
		w.works = append(w.works, work{c: c, q: c.q})
		c.q = nil
	}
}

// write hands what waits to the socket, until that is all or the kernel is full.
func (w *worker) write(it *work) {
	if it.q == nil {
		return
	}
	for !it.q.empty() {
		buf, frames, events := w.join(it.c, it.q)
		it.bytes += frames
		it.events += events
		if w.send(it.c, buf) != nil || it.c.backlog.Load() > 0 {
			it.flight = events // dead, or stuck
			return
		}
	}
}

// send writes b as it is, or as TLS records.
func (w *worker) send(c *Conn, b []byte) error {
	if !c.overTLS() {
		return c.write(b)
	}
	return c.wire.seal(b, &w.seal)
}

// join takes frames from q up to joinLimit, at least one. One alone is not
// copied. It returns what goes to c, their bytes as they are booked, which is
// before compression, and event copies.
func (w *worker) join(c *Conn, q *queue) (buf []byte, size, events int) {
	now := time.Now().UnixNano()
	f := q.peek()
	q.pop()
	w.tally.frame(f, now)
	events = int(f.events)
	size = len(f.bytes)
	if q.empty() || size+len(q.peek().bytes) > joinLimit {
		buf = f.on(c)
		w.tally.write(1, len(buf))
		return buf, size, events
	}
	buf = append(w.buf[:0], f.on(c)...)
	n := 1
	for !q.empty() {
		f = q.peek()
		if size+len(f.bytes) > joinLimit {
			break
		}
		q.pop()
		w.tally.frame(f, now)
		events += int(f.events)
		buf = append(buf, f.on(c)...)
		size += len(f.bytes)
		n++
	}
	w.tally.write(n, len(buf))
	return buf, size, events
}

// settle books what was written and gives the socket out of the worker's hands;
// the caller holds s.mu.
func (w *worker) settle(s *shard, it *work) {
	c := it.c
	c.queued -= int32(it.bytes)
	s.land(it.events - it.flight)
	c.flight = uint32(it.flight)
	s.putBack(c, it.q)
	c.unset(flagBusy | flagDiscard)
	if c.is(flagDead) {
		s.dropAll(c)
		return
	}
	if c.backlog.Load() > 0 {
		// Either we see the drain after this, or OnWrittenSize sees the flag.
		c.set(flagBlocked)
		if c.backlog.Load() > 0 {
			return
		}
		c.unset(flagBlocked)
	}
	s.land(int(c.flight))
	c.flight = 0
	if c.q != nil {
		if s.mark(c) {
			w.pending.Or(s.bit) // we are awake, and look at it before we sleep
		}
		return
	}
	if c.is(flagClosing) && !c.is(flagSent) {
		w.concludes(s, c)
	}
}

// concludes goes on when the close frame is with the kernel.
func (w *worker) concludes(s *shard, c *Conn) {
	c.set(flagSent)
	if sent := c.takeSent(); sent != nil {
		w.acts = append(w.acts, act{c, func(*Conn) { sent() }})
	}
	switch {
	case c.is(flagPeer) && c.isServer():
		w.acts = append(w.acts, act{c, (*Conn).hangUp})
		return
	case c.is(flagFailed):
		w.acts = append(w.acts, act{c, (*Conn).shutdownWrite})
	}
	c.end.deadline = s.engine.deadline()
}
