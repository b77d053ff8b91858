package session

import (
	"context"
	"testing"
	"testing/synctest"
)

// LOST at open: what stands in the lock's place decides.
func TestOpenLost(t *testing.T) {
	f := func(name string, put func(w *world, l *record), reason Reason, fenced bool) {
		t.Helper()
		w := newWorld()
		a := w.pod(t, "a@1")
		done := false
		a.setFault(func(op string, after bool) error {
			if op == "open" && !after && !done {
				done = true
				w.mu.Lock()
				defer w.mu.Unlock()
				put(w, w.locks[alice])
			}
			return nil
		})
		w.last = 100
		s, err := a.login(alice, Login{})
		if reason != 0 {
			wantReason(t, err, reason)
			a.nothing(t)
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		lock, _ := w.lock(alice)
		if lock.Conn != s.Conn() || lock.Epoch != s.Epoch() || !lock.Settled || (w.fence(alice) >= s.Epoch()) != fenced {
			t.Errorf("%s: lock %+v, fence %d", name, lock, w.fence(alice))
		}
		a.whole(t)
	}
	f("absent", func(w *world, _ *record) { delete(w.locks, alice) }, 0, false)
	f("lower, live", func(w *world, _ *record) {
		w.locks[alice] = &record{Lock: Lock{Owner: "z@1", Conn: 7, Epoch: 50, Settled: true}}
	}, 0, true)
	f("lower tombstone", func(w *world, _ *record) { w.locks[alice] = &record{Lock: Lock{Epoch: 50}, tomb: true} }, 0, false)
	f("higher, live", func(w *world, _ *record) {
		w.locks[alice] = &record{Lock: Lock{Owner: "z@1", Conn: 7, Epoch: 500, Settled: true}}
	}, ReasonConflict, false)
	f("higher tombstone", func(w *world, _ *record) { w.locks[alice] = &record{Lock: Lock{Epoch: 500}, tomb: true} }, ReasonConflict, false)
	f("absent, but fenced", func(w *world, _ *record) { delete(w.locks, alice); w.fences[alice] = 500 }, ReasonConflict, false)
}

// A lock that nobody outranks but nobody can confirm either is no conflict.
func TestOpenUnconfirmed(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	a.m.o.Renewer = unsureRenewer{a}
	a.setFault(func(op string, after bool) error {
		if op == "open" && !after {
			w.mu.Lock()
			defer w.mu.Unlock()
			delete(w.locks, alice)
		}
		return nil
	})
	_, err := a.login(alice, Login{})
	wantReason(t, err, ReasonLost)
	a.nothing(t)
}

type unsureRenewer struct{ *pod }

func (unsureRenewer) Reassert(_ context.Context, _ int, _ string, _ uint64, held []Held) ([]Reasserted, bool, error) {
	as := make([]Reasserted, len(held))
	for i := range as {
		as[i] = Reasserted{Verdict: Lost, Unconfirmed: true}
	}
	return as, false, nil
}

// What follows a LOST may itself meet lost replies and lost keys.
func TestOpenLostAgain(t *testing.T) {
	for name, trouble := range map[string]func(w *world, times *int) error{
		"flushed":    func(w *world, times *int) error { w.flush(); *times = 0; return nil },
		"reply lost": func(_ *world, times *int) error { *times--; return errLost },
	} {
		for _, after := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				a := w.pod(t, "a@1")
				opens, times := 1, 1
				a.setFault(func(op string, aft bool) error {
					switch {
					case op == "open" && !aft && opens > 0:
						opens--
						w.mu.Lock()
						delete(w.locks, alice)
						w.mu.Unlock()
					case op == "reassert" && aft == after && times > 0:
						return trouble(w, &times)
					}
					return nil
				})
				s := a.mustLogin(t, alice, Login{})
				if lock, _ := w.lock(alice); lock.Conn != s.Conn() || !lock.Settled || opens+times != 0 {
					t.Errorf("%s: lock %+v, %d faults unused", name, lock, opens+times)
				}
				a.whole(t)
			})
		}
	}
}
