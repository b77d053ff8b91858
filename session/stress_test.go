package session

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
)

// storm lets goroutines log in, select and end on two pods at random while
// events are delivered, and stops when each has done its rounds. Every script
// may be preempted before and after.
func storm(t *testing.T, pods []*pod, rounds int) {
	var users, workers sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, p := range pods {
		p.setFault(func(op string, _ bool) error {
			if rand.IntN(3) == 0 {
				runtime.Gosched()
			}
			if op == "join" && rand.IntN(8) == 0 {
				return errLost // a selection whose outcome is unknown, made or not
			}
			return nil
		})
		for n := range testPartitions {
			workers.Go(func() { deliverAll(ctx, t, p, n) })
		}
	}
	for i := range 8 {
		users.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for range rounds {
				visit(pods[r.IntN(len(pods))], r)
			}
		})
	}
	users.Wait()
	cancel()
	workers.Wait()
}

// deliverAll plays the partition's worker: numbered events, and the order of
// what each socket takes checked.
func deliverAll(ctx context.Context, t *testing.T, p *pod, n int) {
	last := map[*sock]uint64{}
	var d Delivered[*sock]
	for seq := uint64(1); ctx.Err() == nil; seq++ {
		for i := range 2 {
			ev := event(seq, fmt.Sprintf("acme.ag%d.chats", i))
			if Partition("acme", ev.Route.Agent, testPartitions) != n {
				continue
			}
			p.m.Index().Deliver(n, ev, nil, func(s *sock) Put {
				if last[s] >= seq {
					t.Errorf("seq %d after %d", seq, last[s])
				}
				last[s] = seq
				return Queued
			}, &d)
			p.m.Finish(&d)
		}
		if seq%256 == 0 {
			clear(last) // sockets come and go
		}
		if seq%4 == 0 {
			time.Sleep(100 * time.Microsecond) // leave the cores to the others
		}
	}
}

func visit(p *pod, r *rand.Rand) {
	key := Key{"acme", fmt.Sprint("ag", r.IntN(2)), fmt.Sprint("u", r.IntN(3))}
	var opt Login
	if r.IntN(2) == 0 {
		opt.Chat = ptr(fmt.Sprint("c", r.IntN(3)))
	}
	s := p.m.NewSession(&sock{}, key, Profile{})
	if r.IntN(4) == 0 {
		go p.m.Close(s, ReasonDraining, "") // at any step of the login
	}
	if p.m.Open(context.Background(), s, opt, func(*Session[*sock], Ready) {}) != nil {
		return
	}
	for range r.IntN(3) {
		done := make(chan error, 1)
		if p.m.Select(s, ptr(fmt.Sprint("c", r.IntN(3))), func(err error) { done <- err }) == nil {
			<-done
		}
	}
	if r.IntN(4) > 0 {
		p.m.Close(s, ReasonClient, "")
	}
}

// end closes what is left and checks that not a trace remains.
func end(t *testing.T, pods []*pod) {
	t.Helper()
	for _, p := range pods {
		p.setFault(nil)
		p.whole(t)
		for n := range testPartitions {
			for _, s := range p.m.Index().Snapshot(n, nil) {
				p.m.Close(s, ReasonClient, "")
			}
		}
		p.nothing(t)
	}
	for key := range pods[0].w.locks {
		if lock, held := pods[0].w.lock(key); held {
			t.Errorf("lock of %v is left: %+v", key, lock)
		}
	}
}

// I2: the order of edges in Redis is that in the index.
func TestEdgesUnderStress(t *testing.T) {
	w := newWorld()
	pods := []*pod{w.pod(t, "a@1"), w.pod(t, "b@1")}
	storm(t, pods, 1500)
	end(t, pods)
}

// The same with sweeps, lost keys, and everything that follows from them.
func TestSweepsUnderStress(t *testing.T) {
	w := newWorld()
	fast := func(o *Options[*sock]) { o.SweepEvery = 3 * time.Millisecond }
	pods := []*pod{w.pod(t, "a@1", fast), w.pod(t, "b@1", fast)}
	stop := run(t, pods...)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(7 * time.Millisecond)
			w.flush()
		}
	})
	storm(t, pods, 1500)
	cancel()
	wg.Wait()
	stop()
	for _, p := range pods {
		p.setFault(nil)
		for n := range testPartitions {
			if err := p.Assert(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
	}
	end(t, pods)
}
