package session

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// Each case does something to Redis, asserts alice's partition, and says how
// her session must have ended.
func TestReassert(t *testing.T) {
	f := func(name string, do func(w *world, a, b *pod, s *Session[*sock]), code uint16) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			a, b := w.pod(t, "a@1"), w.pod(t, "b@1")
			s := a.mustLogin(t, alice, Login{Chat: ptr("c1")})
			do(w, a, b, s)
			if err := a.Assert(t.Context(), alice.Partition(testPartitions)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := s.Sock().closed(); got != code {
				t.Errorf("%s: close code %d; want %d", name, got, code)
			}
			lock, held := w.lock(alice)
			if mine := held && lock.Owner == a.owner && lock.Conn == s.Conn(); mine != (code == 0) {
				t.Errorf("%s: lock %+v, %v", name, lock, held)
			}
			if code == 0 && !lock.Settled {
				t.Errorf("%s: the lock is not settled: %+v", name, lock)
			}
			a.whole(t)
		})
	}
	f("nothing happened", func(*world, *pod, *pod, *Session[*sock]) {}, 0)
	f("all keys lost", func(w *world, _, _ *pod, _ *Session[*sock]) { w.flush() }, 0)
	f("outranked by a live one", func(_ *world, a, b *pod, _ *Session[*sock]) {
		a.silent = true
		b.mustLogin(t, alice, Login{})
	}, 4402)
	f("outranked by one that ended", func(_ *world, a, b *pod, _ *Session[*sock]) {
		a.silent = true
		b.m.Close(b.mustLogin(t, alice, Login{}), ReasonClient, "")
	}, 4402)
	f("lock expired, all is fresh", func(w *world, _, _ *pod, _ *Session[*sock]) {
		delete(w.locks, alice)
		w.last += 10
	}, 0)
	f("lock expired, not verified for long, somebody logged in", func(w *world, _, _ *pod, _ *Session[*sock]) {
		time.Sleep(freshFor + time.Second)
		delete(w.locks, alice)
		w.last += 10
	}, 1013)
	f("lock expired, swept since", func(w *world, a, _ *pod, _ *Session[*sock]) {
		time.Sleep(freshFor + time.Second)
		if err := a.Assert(context.Background(), alice.Partition(testPartitions)); err != nil {
			t.Fatal(err)
		}
		delete(w.locks, alice)
		w.last += 10
	}, 0)
}

// After the keys were lost the lower one of two rivals may write its lock
// first: the higher one overwrites it, fences, and has it ended (S1), whatever
// happens to the replies.
func TestReassertOverLowerRival(t *testing.T) {
	for name, fault := range map[string]func(w *world) func(string, bool) error{
		"no trouble":       func(*world) func(string, bool) error { return nil },
		"reassert's reply": func(*world) func(string, bool) error { return faults("reassert", true, 1) },
		"open's call":      func(*world) func(string, bool) error { return faults("open", false, 1) },
		"open's reply":     func(*world) func(string, bool) error { return faults("open", true, 1) },
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			a, b := w.pod(t, "a@1"), w.pod(t, "b@1")
			n := alice.Partition(testPartitions)
			low := a.mustLogin(t, alice, Login{})
			a.silent = true
			high := b.mustLogin(t, alice, Login{})
			w.flush()
			if err := a.Assert(t.Context(), n); err != nil { // a missed everything
				t.Fatal(err)
			}
			if low.Sock().closed() != 0 {
				t.Fatal("the fixture: low must be alive")
			}
			a.silent = false
			b.setFault(fault(w))
			if err := b.Assert(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			if w.fence(alice) < high.Epoch() || high.Sock().closed() != 0 {
				t.Errorf("%s: fence %d, epochs %d < %d, high's code %d", name, w.fence(alice), low.Epoch(), high.Epoch(), high.Sock().closed())
			}
			if lock, _ := w.lock(alice); lock.Epoch != high.Epoch() || !lock.Settled {
				t.Errorf("%s: lock %+v", name, lock)
			}
			var d Delivered[*sock]
			var e ear
			a.m.Index().Deliver(n, event(1, "acme.ag1.chats"), []Fence{{"acme", "ag1", "alice", w.fence(alice)}}, e.put, &d)
			a.m.Finish(&d)
			if len(e.got) != 0 || low.Sock().closed() != 4402 {
				t.Errorf("%s: low took %d events, code %d", name, len(e.got), low.Sock().closed())
			}
			a.nothing(t)
			b.whole(t)
		})
	}
}

// The same while the higher one is still a login: its own open fences (P6).
func TestReassertDuringLogin(t *testing.T) {
	for _, at := range []struct {
		op    string
		after bool
	}{{"kill", false}, {"open", false}, {"open", true}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			a, b := w.pod(t, "a@1"), w.pod(t, "b@1")
			n := alice.Partition(testPartitions)
			low := a.mustLogin(t, alice, Login{})
			a.silent = true
			disturbed := false
			disturb := func() { // no sync.Once: the asserts come by here again
				if disturbed {
					return
				}
				disturbed = true
				w.flush()
				if err := a.Assert(t.Context(), n); err != nil {
					t.Error(err)
				}
				if err := b.Assert(t.Context(), n); err != nil {
					t.Error(err)
				}
			}
			b.m.o.Killer = killHook{b, func() {
				if at.op == "kill" {
					disturb()
				}
			}}
			b.setFault(func(op string, after bool) error {
				if op == at.op && after == at.after {
					disturb()
				}
				return nil
			})
			high := b.mustLogin(t, alice, Login{})
			if w.fence(alice) < high.Epoch() {
				t.Errorf("%+v: fence %d; want %d", at, w.fence(alice), high.Epoch())
			}
			if lock, _ := w.lock(alice); lock.Epoch != high.Epoch() || !lock.Settled {
				t.Errorf("%+v: lock %+v", at, lock)
			}
			var d Delivered[*sock]
			var e ear
			a.m.Index().Deliver(n, event(1, "acme.ag1.chats"), []Fence{{"acme", "ag1", "alice", w.fence(alice)}}, e.put, &d)
			a.m.Finish(&d)
			if len(e.got) != 0 || low.Sock().closed() != 4402 {
				t.Errorf("%+v: the lower one took %d events, code %d", at, len(e.got), low.Sock().closed())
			}
		})
	}
}

// A login whose former owner answers needs no fence, unless the keys were lost
// meanwhile and a third, lower one wrote its lock first.
func TestReassertWhileOpening(t *testing.T) {
	w := newWorld()
	a, b, c := w.pod(t, "a@1"), w.pod(t, "b@1"), w.pod(t, "c@1")
	n := alice.Partition(testPartitions)
	c.mustLogin(t, alice, Login{})
	c.silent = true
	a.mustLogin(t, alice, Login{})
	b.m.o.Killer = killHook{b, func() {
		w.flush()
		for _, p := range []*pod{c, b} {
			if err := p.Assert(t.Context(), n); err != nil {
				t.Error(err)
			}
		}
	}}
	high := b.mustLogin(t, alice, Login{})
	if w.fence(alice) < high.Epoch() {
		t.Errorf("fence %d; want %d", w.fence(alice), high.Epoch())
	}
}

type killHook struct {
	*pod
	before func()
}

func (k killHook) Kill(ctx context.Context, o Owner, key Key, epoch, conn uint64) bool {
	k.before()
	return k.pod.Kill(ctx, o, key, epoch, conn)
}

// A session that ends while a sweep has it in hand leaves neither its lock nor
// its routes behind (I2).
func TestCloseDuringSweep(t *testing.T) {
	for _, op := range []string{"reassert", "joinall"} {
		for _, after := range []bool{false, true} {
			w := newWorld()
			a := w.pod(t, "a@1")
			s := a.mustLogin(t, alice, Login{Chat: ptr("c1")})
			a.setFault(func(o string, aft bool) error {
				if o == op && aft == after {
					a.m.Close(s, ReasonClient, "")
				}
				return nil
			})
			if err := a.Assert(t.Context(), alice.Partition(testPartitions)); err != nil {
				t.Fatal(err)
			}
			a.setFault(nil)
			if lock, held := w.lock(alice); held {
				t.Errorf("%s, after=%v: lock %+v", op, after, lock)
			}
			a.nothing(t)
		}
	}
}

// A selection that overtakes a sweep stays the remembered one.
func TestSelectDuringSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := w.pod(t, "a@1")
		s := a.mustLogin(t, alice, Login{Chat: ptr("c1")})
		a.setFault(func(op string, after bool) error {
			if op == "reassert" && !after {
				if err := a.choose(s, ptr("c2")); err != nil {
					t.Error(err)
				}
			}
			return nil
		})
		if err := a.Assert(t.Context(), alice.Partition(testPartitions)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if w.selected(alice) != "c2" {
			t.Errorf("Redis has %q", w.selected(alice))
		}
		a.whole(t)
	})
}

// A fence is written with what was known at the start of the sweep: it must not
// undo what was chosen since.
func TestSelectDuringFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a, b := w.pod(t, "a@1"), w.pod(t, "b@1")
		n := alice.Partition(testPartitions)
		a.mustLogin(t, alice, Login{})
		a.silent = true
		s := b.mustLogin(t, alice, Login{Chat: ptr("c1")})
		w.flush()
		if err := a.Assert(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		b.asserted[n] = w.incOf(n) // or the selection waits for the very assert it comes in
		b.setFault(func(op string, after bool) error {
			if op == "reassert" && after {
				if err := b.choose(s, ptr("c2")); err != nil {
					t.Error(err)
				}
			}
			return nil
		})
		if err := b.Assert(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		if w.fence(alice) < s.Epoch() || w.selected(alice) != "c2" {
			t.Errorf("fence %d of %d, remembered chat %q; want c2", w.fence(alice), s.Epoch(), w.selected(alice))
		}
		b.whole(t)
	})
}

// An assert that hangs keeps nobody else beyond his own time: not a sweep, and
// so not the end of Run.
func TestRunEndsDuringAssert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newWorld().pod(t, "a@1")
		if err := a.Assert(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		inc, free := a.asserted[0], make(chan struct{})
		a.setFault(func(op string, after bool) error {
			if op == "joinall" && !after {
				<-free // Redis is away
			}
			return nil
		})
		worker := make(chan error, 1)
		go func() { worker <- a.m.Reassert(context.Background(), 0, inc) }()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- a.m.Run(ctx) }()
		a.m.SweepAll()
		synctest.Wait() // a sweep wants its turn
		cancel()
		time.Sleep(time.Second)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		default:
			t.Error("Run has not ended a second after its context")
		}
		if err := a.m.Reassert(ctx, 0, inc); err == nil {
			t.Error("an ended context got its turn")
		}
		close(free)
		if err := <-worker; err != nil {
			t.Errorf("the assert that had hung: %v", err)
		}
		if err := a.Assert(t.Context(), 0); err != nil {
			t.Errorf("the next one: %v", err)
		}
	})
}

func TestReassertManyInChunks(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	const many = 2*chunk + 7
	for i := range many {
		a.mustLogin(t, Key{"acme", "ag1", fmt.Sprint("u", i)}, Login{})
	}
	calls := 0
	a.setFault(func(op string, after bool) error {
		if op == "reassert" && after {
			calls++
		}
		return nil
	})
	w.flush()
	if err := a.Assert(t.Context(), alice.Partition(testPartitions)); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.locks) != many || calls != 3 {
		t.Errorf("%d locks in %d calls; want %d in 3", len(w.locks), calls, many)
	}
}
