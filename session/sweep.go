package session

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

const (
	sweepers   = 16              // partitions swept at a time
	sweepLimit = 5 * time.Second // of one sweep: a dead slot must not hold up the others
	sweepAgain = 5 * time.Second // after one that failed; twice as long after each that fails again
)

// sweepPlan is Run's own: when each partition is due, and which are at work.
type sweepPlan struct {
	due   []time.Duration
	busy  []bool
	again []bool // asked for while busy
	fails []int  // in a row
}

// next is the most overdue partition, or how long to wait for one.
func (p *sweepPlan) next(now time.Duration) (n int, wait time.Duration) {
	n, wait = -1, time.Hour
	for i, due := range p.due {
		if !p.busy[i] && due-now < wait {
			n, wait = i, due-now
		}
	}
	return n, wait
}

// sweepDone is what a sweep says when it has ended.
type sweepDone struct {
	n   int
	ok  bool
	err error // a panic
}

// Run sweeps: each partition's locks and routes are verified every SweepEvery,
// spread over that time, and at once after SweepAll. It also asserts what
// selections found stale. Returns when ctx has ended, or a sweep has panicked
// (its error), and all it started has ended; it may then run again.
func (m *Manager[C]) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.start()
	p := m.o.Partitions
	plan := sweepPlan{due: make([]time.Duration, p), busy: make([]bool, p), again: make([]bool, p), fails: make([]int, p)}
	now := m.o.Now()
	for n := range plan.due {
		plan.due[n] = now + m.o.SweepEvery*time.Duration(n+1)/time.Duration(p)
	}
	var wg sync.WaitGroup
	done := make(chan sweepDone, sweepers)
	var broken error
	working := 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		now = m.o.Now()
		n, wait := plan.next(now)
		if working == sweepers {
			wait = time.Second // the end of one wakes us before
		} else if n >= 0 && wait <= 0 {
			plan.busy[n] = true
			working++
			waiting := m.take(n)
			wg.Go(func() { done <- m.safeSweep(ctx, n, waiting) })
			continue
		}
		timer.Reset(max(wait, time.Millisecond))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-m.wake:
			m.hurry(&plan, now)
		case d := <-done:
			working--
			broken = errors.Join(broken, d.err)
			if d.err != nil {
				cancel()
			}
			plan.busy[d.n] = false
			plan.due[d.n] = m.o.Now()
			if plan.fails[d.n]++; d.ok {
				plan.fails[d.n] = 0
			}
			if !plan.again[d.n] {
				plan.due[d.n] += m.after(d.n, plan.fails[d.n])
			}
			plan.again[d.n] = false
		}
	}
	go func() { wg.Wait(); close(done) }()
	for d := range done {
		broken = errors.Join(broken, d.err)
	}
	m.stop()
	return broken
}

// after is when partition n is due again, which failed so many times in a row:
// sweeps that time out must not be what keeps Redis too slow for them.
func (m *Manager[C]) after(n, fails int) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case len(m.urgent[n]) > 0:
		return 0
	case fails > 0:
		return min(sweepAgain<<min(fails-1, 8), m.o.SweepEvery/2)
	}
	return m.o.SweepEvery
}

// hurry makes due what was asked for.
func (m *Manager[C]) hurry(plan *sweepPlan, now time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := range plan.due {
		if m.all || len(m.urgent[n]) > 0 {
			plan.due[n], plan.again[n] = now, plan.busy[n]
		}
	}
	m.all = false
}

// take hands over the selections that wait for n.
func (m *Manager[C]) take(n int) []*selection[C] {
	m.mu.Lock()
	defer m.mu.Unlock()
	waiting := m.urgent[n]
	delete(m.urgent, n)
	return waiting
}

func (m *Manager[C]) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		m.stopped, m.urgent = false, make(map[int][]*selection[C])
	}
}

// stop ends what waits for nobody any more.
func (m *Manager[C]) stop() {
	m.mu.Lock()
	m.stopped = true
	urgent := m.urgent
	m.urgent = nil
	m.mu.Unlock()
	for _, waiting := range urgent {
		for _, p := range waiting {
			m.drop(p)
			p.done(ErrClosed)
		}
	}
}

// SweepAll has every partition swept now: after kills may have been missed.
func (m *Manager[C]) SweepAll() {
	m.mu.Lock()
	m.all = true
	m.mu.Unlock()
	m.nudge()
}

func (m *Manager[C]) safeSweep(ctx context.Context, n int, waiting []*selection[C]) (d sweepDone) {
	d.n = n
	d.err = safely(func() error {
		d.ok = m.sweep(ctx, n, waiting)
		return nil
	})
	return d
}

// safely makes a panic of a goroutine that nobody else would catch an error.
func safely(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}

// sweep verifies n once; selections that wait for it make it an assert.
func (m *Manager[C]) sweep(ctx context.Context, n int, waiting []*selection[C]) bool {
	ctx, cancel := context.WithTimeout(ctx, sweepLimit)
	defer cancel()
	if len(waiting) > 0 {
		m.finish(ctx, n, waiting)
	}
	inc := m.o.Parts.Inc(n)
	if inc == "" {
		return true // its worker asserts it before it delivers anything
	}
	began := m.o.Now()
	err := m.Reassert(ctx, n, inc)
	if errors.Is(err, ErrStale) {
		err = m.o.Parts.Assert(ctx, n)
	}
	if err != nil {
		if ctx.Err() == nil {
			m.o.Log.Warn().Err(err).Int("partition", n).Msg("sweep failed")
		}
		m.metrics.sweepErrors.Inc()
		return false
	}
	m.metrics.sweep.Update((m.o.Now() - began).Seconds())
	return true
}
