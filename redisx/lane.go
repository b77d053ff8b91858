package redisx

import (
	"errors"
	"sync"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// Limits of one pipeline. What piled up while the last one was out goes into
// the next: batches come from load, never from a timer.
const (
	maxCalls  = 256
	maxWeight = 512 // keys
	numbers   = 1_000_000
	lateAfter = 5 * time.Minute // a given up connection's commands arrive sooner or never
)

// lane sends calls in order, one pipeline at a time. Every partition has one
// lane, so calls of a partition are never out of order.
type lane struct {
	c     *Client
	limit int
	wake  chan struct{} // capacity 1: something waits

	mu      sync.Mutex
	waiting []*call
	size    int // calls put and not ended
	number  []uint32
	closed  bool

	// Only the lane's goroutine.
	pending []*call          // taken from waiting, oldest first
	strikes int              // pipelines in a row with calls to send again
	broke   bool             // the last one lost its connection
	brokeAt time.Time        // when one did last
	stop    <-chan struct{}  // nil once it was seen closed
	last    <-chan time.Time // then: when to give up
}

func newLane(c *Client) *lane {
	return &lane{c: c, limit: c.opt.Queue, wake: make(chan struct{}, 1), number: make([]uint32, c.opt.Partitions)}
}

// put queues k, or refuses with session.ErrBusy or ErrClosed and then never
// touches it again.
func (l *lane) put(k *call) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return ErrClosed
	}
	if l.size >= l.limit {
		l.mu.Unlock()
		l.c.counts.busy.Inc()
		return session.ErrBusy
	}
	if k.edge > 0 {
		l.number[k.n] = (l.number[k.n] + 1) % numbers
		k.args[k.edge] = l.number[k.n]
	}
	l.size++
	l.waiting = append(l.waiting, k)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

func (l *lane) room() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size < l.limit && !l.closed
}

func (l *lane) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}

// run sends until stop is closed and the queue is empty, at most patience
// after it; what is left then fails.
func (l *lane) run(stop <-chan struct{}) {
	defer l.abandon()
	l.mu.Lock()
	l.closed = false // by an earlier run
	l.mu.Unlock()
	l.stop, l.last, l.strikes, l.broke = stop, nil, 0, false
	for {
		l.take()
		switch {
		case len(l.pending) > 0:
			if !l.goesOn() {
				return
			}
			l.round()
			if l.strikes > 0 && !l.mend() {
				return
			}
		case l.last != nil:
			return // stopped, and nothing is left
		default:
			select {
			case <-l.wake:
			case <-l.stop:
				l.stopping()
			}
		}
	}
}

// goesOn says whether the lane does, and sees that it is told to stop.
func (l *lane) goesOn() bool {
	select {
	case <-l.stop:
		l.stopping()
	default:
	}
	select {
	case <-l.last:
		return false
	default:
		return true
	}
}

// pause waits for d and says whether the lane goes on.
func (l *lane) pause(d time.Duration) bool {
	timer := time.After(d)
	for l.goesOn() {
		select {
		case <-timer:
			return true
		case <-l.last:
			return false
		case <-l.stop:
			l.stopping()
		}
	}
	return false
}

func (l *lane) stopping() { l.stop, l.last = nil, time.After(patience) }

// take moves what waits behind what is pending.
func (l *lane) take() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = append(l.pending, l.waiting...)
	clear(l.waiting)
	l.waiting = l.waiting[:0]
}

// abandon fails what is left, and refuses what comes.
func (l *lane) abandon() {
	l.mu.Lock()
	l.closed = true
	l.pending = append(l.pending, l.waiting...)
	l.waiting = nil
	l.mu.Unlock()
	defer func() {
		if len(l.pending) > 0 {
			l.abandon() // a callback panicked: the others still get their word
		}
	}()
	for len(l.pending) > 0 {
		k := l.pending[0]
		l.pending = l.pending[1:]
		if !k.over {
			k.err = ErrClosed
			l.end(k)
		}
	}
}

// end counts and finishes k; the caller takes it out of pending.
func (l *lane) end(k *call) {
	k.over = true
	l.mu.Lock()
	l.size--
	l.mu.Unlock()
	if k.err != nil {
		l.c.counts.failed.Inc()
		if k.edge > 0 && k.done != nil && !errors.Is(k.err, ErrClosed) {
			l.c.counts.unsure.Inc()
			l.c.opt.OnUnsure(k.n)
		}
	}
	k.finish()
}

// expire ends calls that nobody waits for any more, or that waited enough.
func (l *lane) expire() {
	now := time.Now()
	keep := l.pending[:0]
	for _, k := range l.pending {
		if k.err = k.expired(now); k.err != nil {
			l.end(k)
		} else {
			keep = append(keep, k)
		}
	}
	l.keep(keep)
}

// keep makes rest, a part of pending's array, what is pending.
func (l *lane) keep(rest []*call) {
	clear(l.pending[len(rest):])
	l.pending = rest
	if len(rest) == 0 && cap(rest) > 4*maxCalls {
		l.pending = nil // a storm's array is not kept for ever
	}
}
