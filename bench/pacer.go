package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Pacer is a schedule of an open model: when each event is due depends on
// nothing but its number, so a slow server can't slow the load down.
type Pacer struct {
	Start time.Time
	Rate  float64 // events a second; <= 0: all are due at once
	Burst int     // so many share one instant; 0: 1
}

// Due is when event i, from 0, is to be sent.
func (p Pacer) Due(i int) time.Time {
	if p.Rate <= 0 {
		return p.Start
	}
	i -= i % max(p.Burst, 1)
	return p.Start.Add(time.Duration(float64(i) / p.Rate * float64(time.Second)))
}

// coarse is how far before the instant the thread, not the runtime's timer,
// takes over: the runtime wakes up to a millisecond late, which would show as
// latency of the server.
const coarse = 2 * time.Millisecond

// Wait sleeps until t, to about 0.1 ms, or until ctx ends.
func Wait(ctx context.Context, t time.Time) error {
	if d := time.Until(t) - coarse; d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
	}
	for d := time.Until(t); d > 0; d = time.Until(t) {
		ts := unix.NsecToTimespec(int64(d))
		if err := unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &ts, nil); err != nil && err != unix.EINTR {
			return fmt.Errorf("sleep %v: %w", d, err)
		}
	}
	return ctx.Err()
}
