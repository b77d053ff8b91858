package session

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// podWithAlice is a pod that agrees with Redis about all partitions, and has a
// session.
func podWithAlice(t *testing.T) *pod {
	t.Helper()
	a := newWorld().pod(t, "a@1")
	for n := range testPartitions {
		if err := a.Assert(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	a.mustLogin(t, alice, Login{})
	return a
}

// Each partition is swept every 100 s, and never later than its freshness ends.
func TestRunSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := podWithAlice(t)
		var sweeps atomic.Int64
		a.setFault(func(op string, after bool) error {
			if op == "joinall" && !after {
				sweeps.Add(1)
			}
			return nil
		})
		running(t, a)
		for range 10 {
			time.Sleep(100 * time.Second)
			for n := range testPartitions {
				if age := time.Since(a.m.Swept(n)); age < 0 || age > 101*time.Second {
					t.Errorf("partition %d was swept %v ago", n, age)
				}
			}
		}
		if got := sweeps.Load(); got < 9*testPartitions || got > 11*testPartitions {
			t.Errorf("%d sweeps in 1000 s", got)
		}
		if a.m.Swept(0).IsZero() {
			t.Error("never swept")
		}
		before := sweeps.Load()
		a.m.SweepAll()
		time.Sleep(time.Second)
		if got := sweeps.Load() - before; got < testPartitions {
			t.Errorf("SweepAll made %d sweeps", got)
		}
	})
}

// What was asked for while a sweep is at work is another sweep.
func TestSweepAllWhileBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := w.pod(t, "a@1")
		if err := a.Assert(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		hold := make(chan struct{})
		var sweeps atomic.Int64
		a.setFault(func(op string, after bool) error {
			if op == "joinall" && after {
				sweeps.Add(1)
				<-hold
			}
			return nil
		})
		running(t, a)
		a.m.SweepAll()
		synctest.Wait()
		a.m.SweepAll()
		synctest.Wait()
		close(hold)
		time.Sleep(time.Second)
		if got := sweeps.Load(); got != 2 {
			t.Errorf("%d sweeps; want 2", got)
		}
	})
}

// A dead slot delays nobody else's sweep.
func TestSweepOfDeadPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := w.pod(t, "a@1")
		for n := range testPartitions {
			if err := a.Assert(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
		a.m.o.Renewer = deadSlot{a}
		running(t, a)
		time.Sleep(500 * time.Second)
		for n := range testPartitions {
			if age := time.Since(a.m.Swept(n)); (age > 120*time.Second) != (n == 0) {
				t.Errorf("partition %d was swept %v ago", n, age)
			}
		}
		if got := a.m.metrics.sweepErrors.Get(); got < 10 {
			t.Errorf("%d failed sweeps", got)
		}
	})
}

// A panic in a sweep ends Run with an error; Run can be run again.
func TestRunPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := w.pod(t, "a@1")
		if err := a.Assert(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		a.setFault(func(op string, _ bool) error {
			if op == "inc" {
				panic("in a script")
			}
			return nil
		})
		if err := a.m.Run(t.Context()); err == nil {
			t.Fatal("no error")
		}
		a.setFault(nil)
		running(t, a)
		time.Sleep(200 * time.Second)
		if age := time.Since(a.m.Swept(0)); age > 101*time.Second {
			t.Errorf("swept %v ago", age)
		}
		s := a.mustLogin(t, alice, Login{})
		w.flush()
		if err := a.choose(s, ptr("c1")); err != nil {
			t.Error(err)
		}
	})
}

type deadSlot struct{ *pod }

func (d deadSlot) Inc(ctx context.Context, n int) (string, uint64, error) {
	if n == 0 {
		<-ctx.Done()
		return "", 0, ctx.Err()
	}
	return d.pod.Inc(ctx, n)
}

// Sweeps that fail come again later and later, but often enough that one that
// succeeds keeps the gates open.
func TestSweepsThatFailBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := podWithAlice(t)
		var mu sync.Mutex
		var tries []time.Time
		a.setFault(func(op string, _ bool) error {
			if op == "inc" {
				mu.Lock()
				defer mu.Unlock()
				tries = append(tries, time.Now())
				return errors.New("too slow")
			}
			return nil
		})
		began := time.Now()
		running(t, a)
		time.Sleep(250 * time.Second)
		synctest.Wait()
		mu.Lock()
		if age := tries[0].Sub(began); age > 101*time.Second {
			t.Errorf("first after %v", age)
		}
		perPartition := float64(len(tries)) / float64(testPartitions)
		if perPartition < 4 || perPartition > 12 {
			t.Errorf("%.1f tries of each partition in 250 s", perPartition)
		}
		mu.Unlock()
		a.setFault(nil)
		time.Sleep(51 * time.Second)
		for n := range testPartitions {
			if age := time.Since(a.m.Swept(n)); age > 51*time.Second {
				t.Errorf("partition %d was swept %v ago", n, age)
			}
		}
	})
}
