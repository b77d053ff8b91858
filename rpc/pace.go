package rpc

import (
	"context"
	"math/rand/v2"
	"time"
)

// pace is how a peer that can't be reached is tried again.
type pace struct {
	hello       time.Duration // for connecting and both hellos
	backoffMin  time.Duration // after the first failure; doubles
	backoffMax  time.Duration
	steady      time.Duration // of an open stream, after which backoff starts anew
	refused     time.Duration // after a hello that did not fit
	failures    uint32        // in a row that open the breaker
	breakerOpen time.Duration // before it lets one attempt through
	breakerPoll time.Duration // how often it is asked meanwhile
}

// defaultPace finds a peer that came back within about 3 s, the time in which
// a cut between pods must be whole again.
func defaultPace() pace {
	return pace{
		hello:       3 * time.Second,
		backoffMin:  50 * time.Millisecond,
		backoffMax:  2 * time.Second,
		steady:      5 * time.Second,
		refused:     5 * time.Second,
		failures:    5,
		breakerOpen: 2 * time.Second,
		breakerPoll: 250 * time.Millisecond,
	}
}

// jitter takes off up to half, so that pods that lost the same peer do not come
// back at once.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
