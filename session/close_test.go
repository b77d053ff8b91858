package session

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// I4: wherever a login is when its session is closed, Open returns the reason
// and nothing is left, here or in Redis.
func TestCloseDuringLogin(t *testing.T) {
	for _, c := range []struct {
		op    string
		after bool
	}{{"acquire", false}, {"acquire", true}, {"open", false}, {"open", true}, {"inc", false}, {"reassert", true}, {"joinall", true}} {
		for _, lost := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				a := w.pod(t, "a@1")
				bob := a.mustLogin(t, Key{"acme", "ag1", "bob"}, Login{})
				w.flush() // so that this login has to assert, too
				chat := "c1"
				s := a.m.NewSession(&sock{}, alice, Profile{})
				fired := false
				a.setFault(func(op string, after bool) error {
					if op != c.op || after != c.after {
						return nil
					}
					if !fired {
						fired = true
						a.m.Close(s, ReasonDraining, "")
						a.m.Close(s, ReasonSlow, "")
					}
					if lost {
						return errLost
					}
					return nil
				})
				done := make(chan error)
				go func() {
					done <- a.m.Open(context.Background(), s, Login{Chat: &chat}, func(*Session[*sock], Ready) { t.Error("ready after close") })
				}()
				wantReason(t, <-done, ReasonDraining)
				a.setFault(nil)
				a.m.Close(bob, ReasonClient, "")
				if _, held := w.lock(alice); held || !fired {
					t.Errorf("%+v, lost=%v: lock held %v, fired %v", c, lost, held, fired)
				}
				if s.Sock().closed() != 0 || len(s.Sock().heard()) != 0 {
					t.Errorf("%+v: a login that was refused touched its socket", c)
				}
				a.nothing(t)
			})
		}
	}
}

// While it waits for another pod, and while it waits for a former login.
func TestCloseWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a, b := w.pod(t, "a@1"), w.pod(t, "b@1")
		a.mustLogin(t, alice, Login{})
		a.stall = time.Second
		s := b.m.NewSession(&sock{}, alice, Profile{})
		var slots []bool
		done := make(chan error, 1)
		go func() {
			done <- b.m.Open(context.Background(), s, Login{Waiting: func(on bool) { slots = append(slots, on) }}, nil)
		}()
		time.Sleep(time.Millisecond)
		began := time.Now()
		b.m.Close(s, ReasonDraining, "")
		wantReason(t, <-done, ReasonDraining)
		if time.Since(began) != 0 {
			t.Errorf("it went on waiting for %v", time.Since(began))
		}
		if len(slots) != 2 || !slots[0] || slots[1] {
			t.Errorf("admission slot: %v", slots)
		}
		b.nothing(t)
		time.Sleep(2 * time.Second)
		a.nothing(t)
	})
}

// I3: of logins of one key on one pod the newest wins, and each goes behind
// the release of the one before.
func TestLoginsOfOneKeyGoOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := w.pod(t, "a@1")
		hold := make(chan struct{})
		var mu sync.Mutex
		var order []string
		a.setFault(func(op string, after bool) error {
			mu.Lock()
			first := len(order) == 0
			if !after && (op == "acquire" || op == "release") {
				order = append(order, op)
			}
			mu.Unlock()
			if op == "acquire" && !after && first {
				<-hold
			}
			return nil
		})
		results := make([]error, 5)
		var last *Session[*sock]
		var wg sync.WaitGroup
		for i := range results {
			s := a.m.NewSession(&sock{}, alice, Profile{})
			last = s
			wg.Go(func() { results[i] = a.m.Open(context.Background(), s, Login{}, func(*Session[*sock], Ready) {}) })
			synctest.Wait()
		}
		close(hold)
		wg.Wait()
		for _, err := range results[:4] {
			wantReason(t, err, ReasonReplaced)
		}
		if results[4] != nil || a.m.Index().Find(alice) != last {
			t.Errorf("the newest login: %v", results[4])
		}
		if got := len(order); got != 3 || order[1] != "release" {
			t.Errorf("order in Redis: %v", order)
		}
		a.whole(t)
	})
}

// A waiting login gives up in time, and leaves the queue in order.
func TestWaitingLoginTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := w.pod(t, "a@1")
		hold := make(chan struct{})
		a.setFault(func(op string, after bool) error {
			if op == "acquire" && !after {
				<-hold
			}
			return nil
		})
		first := make(chan error, 1)
		go func() { _, err := a.login(alice, Login{}); first <- err }()
		synctest.Wait()
		_, err := a.login(alice, Login{})
		wantReason(t, err, ReasonOverloaded)
		close(hold)
		wantReason(t, <-first, ReasonReplaced)
		a.setFault(nil)
		a.nothing(t)
		a.mustLogin(t, alice, Login{})
	})
}

// I1: a late Close of a former session touches neither its successor nor the
// successor's lock.
func TestLateCloseLeavesSuccessor(t *testing.T) {
	w := newWorld()
	a, b := w.pod(t, "a@1"), w.pod(t, "b@1")
	a.silent = true
	first := a.mustLogin(t, alice, Login{})
	second := b.mustLogin(t, alice, Login{}) // a did not hear of it
	a.m.Close(first, ReasonGone, "")
	if lock, ok := w.lock(alice); !ok || lock.Conn != second.Conn() || lock.Owner != b.owner {
		t.Errorf("lock is %+v, %v", lock, ok)
	}
	third := b.mustLogin(t, alice, Login{})
	b.m.Close(second, ReasonGone, "")
	b.m.Close(second, ReasonTimeout, "")
	b.Release(alice.Partition(testPartitions), alice, second.Conn())
	if lock, ok := w.lock(alice); !ok || lock.Conn != third.Conn() || b.m.Index().Find(alice) != third || third.Sock().closed() != 0 {
		t.Errorf("lock is %+v, %v; successor's close code %d", lock, ok, third.Sock().closed())
	}
	// A late kill of a lower epoch does nothing either.
	b.m.Killed(alice, second.Epoch(), func() {})
	if b.m.Index().Find(alice) != third {
		t.Error("a stale kill closed the successor")
	}
	b.whole(t)
}

func TestCloseBeforeOpen(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	s := a.m.NewSession(&sock{}, alice, Profile{})
	a.m.Close(s, ReasonDraining, "")
	wantReason(t, a.m.Open(t.Context(), s, Login{}, nil), ReasonDraining)
	a.nothing(t)
}

func TestOpenEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := w.pod(t, "a@1", func(o *Options[*sock]) { o.LoginTimeout = time.Second })
		a.setFault(faults("inc", false, 1e6)) // can't be asserted
		began := time.Now()
		_, err := a.login(alice, Login{})
		wantReason(t, err, ReasonOverloaded)
		if took := time.Since(began); took < time.Second || took > 1100*time.Millisecond {
			t.Errorf("gave up after %v", took)
		}
		a.nothing(t)
	})
}

// A panic in what a login calls leaves neither a lock nor a place taken.
func TestOpenPanics(t *testing.T) {
	w := newWorld()
	panics := false
	var a *pod
	a = w.pod(t, "a@1", func(o *Options[*sock]) {
		o.Refresh = func(context.Context) error {
			if panics {
				panic("in Refresh")
			}
			a.m.SetRevocations(NewRevocations(0, "", nil))
			return nil
		}
	})
	for _, panics = range []bool{true, false} {
		s := a.m.NewSession(&sock{}, alice, Profile{})
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = a.m.Open(t.Context(), s, Login{Chat: ptr("c")}, func(*Session[*sock], Ready) { panic("in greet") })
		}()
		if _, held := w.lock(alice); held {
			t.Error("lock is held")
		}
		a.nothing(t)
	}
	a.mustLogin(t, alice, Login{})
}

// Whoever watches both sockets sees the former one's close before the
// newcomer's ready, unless that can't be had in 250 ms.
func TestReadyWaitsForTheFormersClose(t *testing.T) {
	f := func(other bool, slow, want time.Duration, fenced bool) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			a := w.pod(t, "a@1")
			on := a
			if other {
				on = w.pod(t, "b@1")
			}
			a.mustLogin(t, alice, Login{}).Sock().slow = slow
			began := time.Now()
			s := on.mustLogin(t, alice, Login{})
			if got := time.Since(began); got != want {
				t.Errorf("other=%v, slow %v: took %v; want %v", other, slow, got, want)
			}
			if got := w.fence(alice) >= s.Epoch(); got != fenced {
				t.Errorf("other=%v, slow %v: fenced %v", other, slow, got)
			}
		})
	}
	f(false, 0, 0, false)
	f(false, 20*time.Millisecond, 20*time.Millisecond, false)
	f(false, -1, 250*time.Millisecond, false)
	f(true, 20*time.Millisecond, 20*time.Millisecond, false)
	f(true, -1, 250*time.Millisecond, true) // no answer, so it can't be sure
}
