package server

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// Times of owning partitions.
const (
	settleEvery = 500 * time.Millisecond // the live list is followed
	handover    = time.Second            // a partition that is another's now is read on for so long at most
)

// readers keeps one dispatch running for every partition this pod believes to
// own, by rendezvous over the live list. One that is another's now goes on until
// batches of another reader come, so that nobody waits for the change.
type readers struct {
	env        *dispatchEnv
	partitions int
	run        func(ctx context.Context, name string, f func(context.Context) error) // runs, restarts, counts
	others     func(n int) int64                                                     // when another pod's batch was taken last, monotonic ns
	ending     func(own time.Duration) time.Duration                                 // bounds the last hand-over

	wg      sync.WaitGroup
	reading map[int]*reading // owned by Run
	settled []session.Pod    // the live list it was settled by; owned by Run
}

// reading is one dispatch.
type reading struct {
	cancel context.CancelFunc
	lost   int64 // monotonic ns since when it is another's; 0: it is ours
}

// Run follows the live list until ctx ends, hands over what it reads, and
// returns when all readers have ended.
func (r *readers) Run(ctx context.Context) error {
	r.reading, r.settled = map[int]*reading{}, nil
	defer r.wg.Wait()
	defer func() { // a panic too must not leave them running
		for _, d := range r.reading {
			d.cancel()
		}
	}()
	for {
		r.settle()
		if !pause(ctx, settleEvery) {
			break
		}
	}
	for range r.ending(handover) / (50 * time.Millisecond) {
		for _, d := range r.reading {
			d.lose()
		}
		r.end()
		if len(r.reading) == 0 {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

// settle starts what is ours and gives up what is another's.
func (r *readers) settle() {
	live := r.env.live()
	if r.settled != nil && slices.Equal(live, r.settled) {
		r.end()
		return
	}
	r.settled = append(r.settled[:0], live...)
	for n := range r.partitions {
		d := r.reading[n]
		switch mine := ownerOf(n, live) == r.env.self; {
		case mine && d == nil:
			ctx, cancel := context.WithCancel(context.Background())
			r.reading[n] = &reading{cancel: cancel}
			r.wg.Go(func() { r.run(ctx, "dispatch", newDispatch(n, r.env).Run) })
		case mine:
			d.lost = 0
		case d != nil:
			d.lose()
		}
	}
	r.end()
}

func (d *reading) lose() {
	if d.lost == 0 {
		d.lost = monotonic()
	}
}

// end ends the readers of partitions that another pod reads by now, or should.
func (r *readers) end() {
	now := monotonic()
	for n, d := range r.reading {
		if d.lost != 0 && (r.others(n) > d.lost || now-d.lost >= int64(handover)) {
			d.cancel()
			delete(r.reading, n)
		}
	}
}
