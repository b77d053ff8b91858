package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var alice = Key{"acme", "ag1", "alice"}

// login opens a session of key and says how that went.
func (p *pod) login(key Key, opt Login) (*Session[*sock], error) {
	s := p.m.NewSession(&sock{}, key, Profile{})
	err := p.m.Open(context.Background(), s, opt, func(s *Session[*sock], _ Ready) { s.Sock().say("ready") })
	return s, err
}

func (p *pod) mustLogin(t testing.TB, key Key, opt Login) *Session[*sock] {
	t.Helper()
	s, err := p.login(key, opt)
	if err != nil {
		t.Fatalf("login of %v on %s: %v", key, p.owner, err)
	}
	return s
}

// failer is what testing.TB and rapid.T have in common.
type failer interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// whole checks that a pod's index is sound, and that Redis has exactly the
// routes that it wants.
func (p *pod) whole(t failer) {
	t.Helper()
	if err := p.m.Index().Check(); err != nil {
		t.Fatalf("index of %s: %v", p.owner, err)
	}
	for n := range testPartitions {
		wants := p.m.Index().Wants(n)
		joined := p.w.joined(n)
		for want, owners := range joined {
			if slices.Contains(owners, p.owner) && !slices.Contains(wants, want) {
				t.Errorf("%s: %+v is joined but not wanted", p.owner, want)
			}
		}
		for _, want := range wants {
			if !slices.Contains(joined[want], p.owner) {
				t.Errorf("%s: %+v is wanted but not joined", p.owner, want)
			}
		}
	}
}

// nothing checks that not a trace of any session is left on a pod.
func (p *pod) nothing(t testing.TB) {
	t.Helper()
	p.whole(t)
	if n, a := p.m.Index().Len(), p.m.Index().Agents(); n != 0 || a != 0 {
		t.Errorf("%s: %d sessions, %d agents left", p.owner, n, a)
	}
	for i := range p.m.index.shards {
		if l := len(p.m.index.shards[i].logins); l != 0 {
			t.Errorf("%s: %d logins left", p.owner, l)
		}
	}
}

func wantReason(t testing.TB, err error, r Reason) {
	t.Helper()
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Reason != r {
		t.Fatalf("got %v; want a refusal for %v", err, r)
	}
	if refusal.Reason.Status() == 0 && r != ReasonGone {
		t.Fatalf("%v has no HTTP status", r)
	}
}

func TestOpen(t *testing.T) {
	w := newWorld()
	p := w.pod(t, "a@1")
	n := alice.Partition(testPartitions)
	p.m.Index().SetWatermark(n, 41)
	s := p.m.NewSession(&sock{}, alice, Profile{Expires: time.Unix(2_000_000_000, 0)})
	var ready Ready
	err := p.m.Open(t.Context(), s, Login{}, func(_ *Session[*sock], r Ready) { ready = r })
	if err != nil {
		t.Fatal(err)
	}
	lock, ok := w.lock(alice)
	if !ok || !lock.Settled || lock.Epoch != ready.Epoch || ready.Epoch == 0 || ready.Floor != 41 {
		t.Errorf("lock %+v, ready %+v", lock, ready)
	}
	if p.m.Index().State(s) != Live || p.m.Index().Len() != 1 || s.Expires() != 2_000_000_000 {
		t.Errorf("state %v, %d live", p.m.Index().State(s), p.m.Index().Len())
	}
	p.whole(t)

	p.m.Close(s, ReasonKilled, "")
	p.m.Close(s, ReasonSlow, "") // the first reason counts
	if _, ok := w.lock(alice); ok || s.Sock().closed() != ReasonKilled.CloseCode() {
		t.Errorf("after close: lock held %v, code %d", ok, s.Sock().closed())
	}
	if got := s.Sock().heard(); !slices.Equal(got, []string{"SessionKilled"}) {
		t.Errorf("farewell %v", got)
	}
	p.nothing(t)
	wantReason(t, p.m.Open(t.Context(), s, Login{}, nil), ReasonKilled)
}

// P5: the former socket is out of its index before the newcomer's ready.
func TestTakeover(t *testing.T) {
	type fixture struct {
		w    *world
		a, b *pod
		old  *Session[*sock]
	}
	f := func(name string, second func(f *fixture) *pod, oldCode uint16, fenced bool, took time.Duration) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := &fixture{w: newWorld()}
				x.a, x.b = x.w.pod(t, "a@1"), x.w.pod(t, "b@1")
				x.old = x.a.mustLogin(t, alice, Login{})
				on := second(x)
				began := time.Now()
				s := on.m.NewSession(&sock{}, alice, Profile{})
				err := on.m.Open(t.Context(), s, Login{}, func(*Session[*sock], Ready) {
					if got := x.old.Sock().closed(); got != oldCode {
						t.Errorf("at ready the old socket's close code was %d; want %d", got, oldCode)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				if got := time.Since(began); got != took {
					t.Errorf("took %v; want %v", got, took)
				}
				if got := x.w.fence(alice) >= s.Epoch(); got != fenced {
					t.Errorf("fenced %v; want %v", got, fenced)
				}
				if lock, _ := x.w.lock(alice); lock.Conn != s.Conn() || lock.Owner != on.owner || !lock.Settled {
					t.Errorf("lock is %+v", lock)
				}
				on.whole(t)
				time.Sleep(2 * x.a.stall) // a late kill still ends the old one, and it alone
				synctest.Wait()
				if x.a.stall > 0 && x.old.Sock().closed() != 4402 || s.Sock().closed() != 0 {
					t.Errorf("after a late kill: old %d, new %d", x.old.Sock().closed(), s.Sock().closed())
				}
			})
		})
	}
	f("same pod", func(x *fixture) *pod { return x.a }, 4402, false, 0)
	f("other pod answered", func(x *fixture) *pod { return x.b }, 4402, false, 0)
	f("other pod silent, known", func(x *fixture) *pod { x.a.silent = true; return x.b }, 0, true, 0)
	f("other pod unanswered", func(x *fixture) *pod { x.a.stall = time.Second; return x.b }, 0, true, 250*time.Millisecond)
	f("other pod answered, but unsettled", func(x *fixture) *pod {
		x.w.locks[alice].Settled = false // P6
		return x.b
	}, 4402, true, 0)
	f("former life of the same pod", func(x *fixture) *pod { return x.w.pod(t, "a@2") }, 0, true, 0)
}

func TestReject(t *testing.T) {
	reject := func(o *Options[*sock]) { o.Reject = true }
	w := newWorld()
	gone := map[Owner]bool{}
	live := func(o *Options[*sock]) { o.Live = func(o Owner) bool { return !gone[o] } }
	a, b := w.pod(t, "a@1", reject, live), w.pod(t, "b@1", reject, live)
	old := a.mustLogin(t, alice, Login{})
	for _, p := range []*pod{a, b} {
		_, err := p.login(alice, Login{})
		wantReason(t, err, ReasonConflict)
	}
	if old.Sock().closed() != 0 {
		t.Fatal("the holder was closed")
	}
	a.whole(t)
	b.nothing(t)
	gone[a.owner], a.silent = true, true
	s := b.mustLogin(t, alice, Login{})
	if w.fence(alice) < s.Epoch() {
		t.Error("a dead holder was taken over without a fence")
	}
	// A lock of ours that no session here has (its release was dropped).
	b.m.o.Locks = dropRelease{b}
	b.m.Close(s, ReasonGone, "")
	b.m.o.Locks = b
	b.mustLogin(t, alice, Login{})
}

type dropRelease struct{ *pod }

func (dropRelease) Release(int, Key, uint64) {}

// faults fails a script the given number of times, before or after it runs.
func faults(op string, after bool, times int) func(string, bool) error {
	var mu sync.Mutex
	return func(o string, a bool) error {
		mu.Lock()
		defer mu.Unlock()
		if o == op && a == after && times > 0 {
			times--
			return errLost
		}
		return nil
	}
}

func TestOpenUnknownOutcomes(t *testing.T) {
	f := func(op string, after bool, times int, reason Reason) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			a, b := w.pod(t, "a@1"), w.pod(t, "b@1")
			old := a.mustLogin(t, alice, Login{})
			b.setFault(faults(op, after, times))
			s, err := b.login(alice, Login{})
			if times < 100 {
				if err != nil {
					t.Fatalf("%s, after=%v: %v", op, after, err)
				}
				if lock, _ := w.lock(alice); lock.Conn != s.Conn() || lock.Owner != b.owner || old.Sock().closed() != 4402 {
					t.Errorf("lock %+v", lock)
				}
				b.whole(t)
				return
			}
			wantReason(t, err, reason)
			b.setFault(nil)
			b.nothing(t)
			if lock, ok := w.lock(alice); ok && lock.Owner == b.owner {
				t.Errorf("%s, after=%v: the lock is still held: %+v", op, after, lock)
			}
		})
	}
	for _, after := range []bool{false, true} {
		f("acquire", after, 3, 0)
		f("open", after, 3, 0)
		f("acquire", after, 1e6, ReasonOverloaded)
		f("open", after, 1e6, ReasonOverloaded)
	}
}

// An unsettled lock is never released without a fence (P6): the release of a
// login that failed after acquire writes one.
func TestReleaseOfUnsettledLockFences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a, b := w.pod(t, "a@1"), w.pod(t, "b@1")
		a.silent = true
		old := a.mustLogin(t, alice, Login{})
		b.setFault(faults("open", false, 1e6))
		_, err := b.login(alice, Login{})
		wantReason(t, err, ReasonOverloaded)
		if w.fence(alice) <= old.Epoch() {
			t.Errorf("fence %d does not outrank epoch %d", w.fence(alice), old.Epoch())
		}
	})
}

func TestOpenStale(t *testing.T) {
	for _, op := range []string{"acquire", "open"} {
		w := newWorld()
		a := w.pod(t, "a@1")
		other := a.mustLogin(t, Key{"acme", "ag1", "bob"}, Login{})
		once := sync.OnceFunc(w.flush)
		a.setFault(func(o string, after bool) error {
			if o == op && !after {
				once()
			}
			return nil
		})
		a.mustLogin(t, alice, Login{})
		if lock, ok := w.lock(other.Key()); !ok || lock.Epoch != other.Epoch() {
			t.Errorf("%s: the other session's lock is %+v, %v", op, lock, ok)
		}
		a.whole(t)
	}
}

func TestOpenChat(t *testing.T) {
	w := newWorld()
	a, b := w.pod(t, "a@1"), w.pod(t, "b@1")
	chat := "628@s.whatsapp.net"
	a.mustLogin(t, alice, Login{Chat: &chat})
	s := b.mustLogin(t, alice, Login{}) // moves to another pod
	if got := b.m.Index().Info(s).Chat; got != chat {
		t.Errorf("restored chat is %q", got)
	}
	a.nothing(t)
	b.whole(t)
	none := ""
	s = b.mustLogin(t, alice, Login{Chat: &none})
	if got := b.m.Index().Info(s).Chat; got != "" {
		t.Errorf("chat is %q; none was asked for", got)
	}
	b.whole(t)
	limited := b.m.NewSession(&sock{}, alice, Profile{Grants: NewGrants(&Claims{Chats: []string{"x*"}})})
	if err := b.m.Open(t.Context(), limited, Login{Chat: &chat}, func(*Session[*sock], Ready) {}); err != nil {
		t.Fatal(err)
	}
	if got := b.m.Index().Info(limited).Chat; got != "" {
		t.Errorf("chat %q is not granted", got)
	}
}

// A login that took the lock from a socket of its own pod, and fails without
// knowing it, takes that socket with it: otherwise nobody would, for what it
// leaves is a tombstone, and the next login on another pod asks nobody (S1).
func TestOpenThatFailedUnsurely(t *testing.T) {
	for _, stale := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			a, b := w.pod(t, "a@1"), w.pod(t, "b@1")
			old := a.mustLogin(t, alice, Login{})
			a.setFault(func(op string, after bool) error {
				if op != "acquire" || !after {
					return nil
				}
				if stale {
					w.flush()
				}
				return errLost
			})
			if _, err := a.login(alice, Login{}); err == nil {
				t.Fatal("a login whose acquire is never answered went live")
			}
			a.setFault(nil)
			synctest.Wait()
			b.mustLogin(t, alice, Login{})
			if st := a.m.Index().State(old); st != Closing {
				t.Errorf("the older socket is %v beside a newer one of another pod", st)
			}
			if code := old.Sock().code; code != ReasonLost.CloseCode() {
				t.Errorf("it was closed with %d, want %d: its client is to come back", code, ReasonLost.CloseCode())
			}
			a.whole(t)
		})
	}
}

// A login that took the lock from a socket of its own pod, and was itself
// overtaken before it knew, leaves that socket replaced: told to come back (1013)
// its client would take the session from whoever overtook them both.
func TestOpenThatWasOvertakenUnsurely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := w.pod(t, "a@1")
		old := a.mustLogin(t, alice, Login{})
		newest := make(chan *Session[*sock], 1)
		first := true
		a.setFault(func(op string, after bool) error {
			if op == "acquire" && after && first {
				first = false
				go func() { newest <- a.mustLogin(t, alice, Login{}) }()
				synctest.Wait() // it ended this one, and waits for its turn
			}
			return nil
		})
		_, err := a.login(alice, Login{})
		wantReason(t, err, ReasonReplaced)
		s := <-newest
		if code := old.Sock().code; code != ReasonReplaced.CloseCode() {
			t.Errorf("the oldest was closed with %d, want %d", code, ReasonReplaced.CloseCode())
		}
		if lock, ok := w.lock(alice); !ok || lock.Conn != s.Conn() || a.m.Index().Find(alice) != s {
			t.Errorf("lock %+v %v", lock, ok)
		}
		a.whole(t)
	})
}
