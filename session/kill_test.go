package session

import (
	"context"
	"testing"
	"testing/synctest"
)

// The table of protocols.md, "Kill at pod A".
func TestKilled(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	kill := func(epoch uint64) bool {
		answered := false
		a.m.Killed(alice, epoch, func() { answered = true })
		return answered
	}
	if !kill(1 << 40) {
		t.Error("absent: no answer")
	}
	s := a.mustLogin(t, alice, Login{})
	if !kill(s.Epoch()) || a.m.Index().Find(alice) != s {
		t.Error("an equal epoch must be answered, and nothing closed")
	}
	closedFirst := false
	a.m.Killed(alice, s.Epoch()+1, func() { closedFirst = a.m.Index().Find(alice) == nil && s.Sock().closed() == 4402 })
	if !closedFirst {
		t.Error("the answer must come after the end")
	}
	a.nothing(t)
}

// P5: while the epoch is unknown a kill is noted; its answer comes when the
// epoch is known and higher, or the login has ended.
func TestKilledWhileOpening(t *testing.T) {
	f := func(name string, kill uint64, after bool, lost bool, opened bool) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.last = 100 // the login gets 101
			a := w.pod(t, "a@1")
			answers, atKill := 0, false
			once := false
			a.setFault(func(op string, aft bool) error {
				if op != "acquire" || aft != after {
					return nil
				}
				if !once {
					once = true
					a.m.Killed(alice, kill, func() { answers++ })
					a.m.Killed(alice, kill-1, func() { answers++ })
					atKill = answers > 0
				}
				if lost {
					return errLost
				}
				return nil
			})
			_, err := a.login(alice, Login{})
			if atKill || answers != 2 {
				t.Errorf("%s: %d answers, early=%v", name, answers, atKill)
			}
			if opened {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				a.whole(t)
				return
			}
			if lost {
				wantReason(t, err, ReasonOverloaded)
			} else {
				wantReason(t, err, ReasonReplaced)
			}
			a.setFault(nil)
			a.nothing(t)
			if _, held := w.lock(alice); held {
				t.Errorf("%s: lock is still held", name)
			}
		})
	}
	f("lower kill before the acquire", 50, false, false, true)
	f("lower kill, reply on its way", 50, true, false, true)
	f("higher kill before the acquire", 500, false, false, false)
	f("higher kill, reply on its way", 500, true, false, false)
	f("acquire never answered", 500, false, true, false)
}

// A kill that comes when the epoch is known ends the login there and then.
func TestKilledWhileJoining(t *testing.T) {
	for _, after := range []bool{false, true} {
		w := newWorld()
		a := w.pod(t, "a@1")
		a.setFault(func(op string, aft bool) error {
			if op == "open" && aft == after {
				answered := false
				a.m.Killed(alice, 1<<40, func() { answered = true })
				if !answered || a.m.Index().Find(alice) != nil {
					t.Error("not ended at once")
				}
			}
			return nil
		})
		_, err := a.login(alice, Login{})
		wantReason(t, err, ReasonReplaced)
		a.setFault(nil)
		a.nothing(t)
	}
}

// A takeover that begins while the former login of another pod has its reply
// on the way: exactly one of the two survives, and it holds the lock.
func TestTwoPodsOpenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a, b := w.pod(t, "a@1"), w.pod(t, "b@1")
		hold := make(chan struct{})
		a.setFault(func(op string, after bool) error {
			if op == "acquire" && after {
				<-hold
			}
			return nil
		})
		first := make(chan error, 1)
		go func() { _, err := a.login(alice, Login{}); first <- err }()
		synctest.Wait()
		second := make(chan *Session[*sock], 1)
		go func() {
			s := b.m.NewSession(&sock{}, alice, Profile{})
			if err := b.m.Open(context.Background(), s, Login{}, func(*Session[*sock], Ready) {}); err != nil {
				t.Error(err)
			}
			second <- s
		}()
		synctest.Wait()
		close(hold) // a learns its epoch, and that it is outranked
		wantReason(t, <-first, ReasonReplaced)
		s := <-second
		if lock, _ := w.lock(alice); lock.Conn != s.Conn() || lock.Owner != b.owner {
			t.Errorf("lock is %+v", lock)
		}
		a.setFault(nil)
		a.nothing(t)
		b.whole(t)
	})
}
