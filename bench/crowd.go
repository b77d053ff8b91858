package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daisi/daisi-ws/loop"
)

// Crowd lets the users of a Fleet come again when their socket ended and they
// did not end it: after a moment, at another door when the one they know does
// not take them. One a run; Run owns its goroutines.
type Crowd struct {
	// Static after newCrowd.
	fleet   *Fleet
	oracle  *Oracle
	pace    LoginPace
	workers int

	again Hist         // from the end of a socket to the ready of the next
	came  atomic.Int64 // how many came again
	tries atomic.Int64 // that failed
	away  atomic.Int64 // users without a socket

	mu      sync.Mutex
	waiting []returning   // at most one for each user
	wake    chan struct{} // capacity 1: some wait
	open    bool          // Run runs
}

// returning is a user on the way back.
type returning struct {
	login Login
	since time.Time // end of the socket
	at    time.Time // of the next try
	tries int
}

// Times of a client that comes again, as README tells clients to.
const (
	againFirst = time.Second // at most, drawn, before the first try
	againMost  = 2 * time.Second
)

func newCrowd(f *Fleet, o *Oracle, pace LoginPace) *Crowd {
	pace.Rate, pace.Retries = 0, 0
	return &Crowd{fleet: f, oracle: o, pace: pace, workers: max(pace.Workers, 1), wake: make(chan struct{}, 1)}
}

// Run brings users back until ctx ends.
func (c *Crowd) Run(ctx context.Context) error {
	c.mu.Lock()
	c.open = true
	c.mu.Unlock()
	var workers sync.WaitGroup
	for range c.workers {
		workers.Go(func() {
			for {
				r, ok := c.next(ctx)
				if !ok {
					return
				}
				c.try(ctx, r)
			}
		})
	}
	workers.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open, c.waiting = false, nil
	return nil
}

// lost is told by a poller of a socket that ended without us.
func (c *Crowd) lost(l Login) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.open {
		return
	}
	c.away.Add(1)
	c.put(returning{login: l, since: now, at: now.Add(rand.N(againFirst))})
}

// put is called with mu held.
func (c *Crowd) put(r returning) {
	c.waiting = append(c.waiting, r)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// next waits for one whose time has come.
func (c *Crowd) next(ctx context.Context) (returning, bool) {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for ctx.Err() == nil {
		r, wait, ok := c.due()
		if ok {
			return r, true
		}
		t.Reset(wait)
		select {
		case <-ctx.Done():
		case <-c.wake:
		case <-t.C:
		}
	}
	return returning{}, false
}

// due takes out one whose time has come, or says how long that takes.
func (c *Crowd) due() (returning, time.Duration, bool) {
	now, wait := time.Now(), 50*time.Millisecond
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range c.waiting {
		if !r.at.After(now) {
			last := len(c.waiting) - 1
			c.waiting[i] = c.waiting[last]
			c.waiting = c.waiting[:last]
			if last > 0 { // another worker may have one too
				select {
				case c.wake <- struct{}{}:
				default:
				}
			}
			return r, 0, true
		}
	}
	if len(c.waiting) == 0 {
		wait = time.Hour
	}
	return returning{}, wait, false
}

func (c *Crowd) try(ctx context.Context, r returning) {
	err := c.fleet.once(ctx, c.oracle, r.login, c.pace.Timeout)
	if err == nil {
		c.away.Add(-1)
		c.came.Add(1)
		c.fleet.logins.Add(1)
		c.again.Record(uint32(c.came.Load()), time.Since(r.since))
		return
	}
	c.tries.Add(1)
	r.tries++
	wait := min(100*time.Millisecond<<min(r.tries, 5), againMost)
	if refusal := (*loop.DialError)(nil); errors.As(err, &refusal) {
		wait = retryAfter(refusal.Header)
	}
	r.login.Door = rand.IntN(len(c.fleet.opts.Doors))
	r.at = time.Now().Add(wait/2 + rand.N(wait))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open {
		c.put(r)
	}
}

// AwaitAll waits until nobody is away, at most limit.
func (c *Crowd) AwaitAll(ctx context.Context, limit time.Duration) error {
	for end := time.Now().Add(limit); c.away.Load() > 0 && time.Now().Before(end); {
		if err := Wait(ctx, time.Now().Add(20*time.Millisecond)); err != nil {
			return err
		}
	}
	return nil
}
