package session

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func ptr(s string) *string { return &s }

// choose selects and waits for the reply.
func (p *pod) choose(s *Session[*sock], chat *string) error {
	done := make(chan error, 1)
	if err := p.m.Select(s, chat, func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

func (w *world) selected(key Key) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sel[key]
}

func TestSelect(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	s := a.mustLogin(t, alice, Login{})
	bob := a.mustLogin(t, Key{"acme", "ag1", "bob"}, Login{Chat: ptr("c1")})
	f := func(chat *string, want string) {
		t.Helper()
		if err := a.choose(s, chat); err != nil {
			t.Fatal(err)
		}
		if got := a.m.Index().Info(s).Chat; got != want || w.selected(alice) != want {
			t.Errorf("chat is %q here, %q in Redis; want %q", got, w.selected(alice), want)
		}
		a.whole(t)
	}
	f(ptr("c1"), "c1")
	f(ptr("c1"), "c1")
	f(ptr("c2"), "c2")
	f(ptr("c1"), "c1")
	f(nil, "")
	f(nil, "")
	f(ptr("c2"), "c2")
	a.m.Close(bob, ReasonClient, "")
	a.whole(t)
	a.m.Close(s, ReasonClient, "")
	if err := a.choose(s, ptr("c1")); !errors.Is(err, ErrClosed) {
		t.Errorf("select after close: %v", err)
	}
	a.nothing(t)
}

// A full queue is refused before anything changes.
func TestSelectBusy(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	s := a.mustLogin(t, alice, Login{Chat: ptr("c1")})
	a.full = true
	if err := a.choose(s, ptr("c2")); !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v; want ErrBusy", err)
	}
	a.m.o.Routes = fullLater{a} // the room went between question and join
	if err := a.choose(s, ptr("c2")); !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v; want ErrBusy", err)
	}
	if got := a.m.Index().Info(s).Chat; got != "c1" || w.selected(alice) != "c1" {
		t.Errorf("chat is %q", got)
	}
	a.whole(t)
}

type fullLater struct{ *pod }

func (fullLater) Room(int) bool { return true }

func TestSelectDenied(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	s := a.m.NewSession(&sock{}, alice, Profile{Grants: NewGrants(&Claims{Chats: []string{"c1", "x*"}})})
	if err := a.m.Open(t.Context(), s, Login{}, func(*Session[*sock], Ready) {}); err != nil {
		t.Fatal(err)
	}
	if err := a.choose(s, ptr("c2")); !errors.Is(err, ErrDenied) {
		t.Errorf("got %v; want ErrDenied", err)
	}
	if err := a.choose(s, ptr("xyz")); err != nil {
		t.Error(err)
	}
}

// run runs managers until stop is called.
func run(t *testing.T, pods ...*pod) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, len(pods))
	for _, p := range pods {
		go func() { done <- p.m.Run(ctx) }()
	}
	return func() {
		cancel()
		for range pods {
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		}
	}
}

// running runs managers until the test ends.
func running(t *testing.T, pods ...*pod) { t.Cleanup(run(t, pods...)) }

// A selection that meets another incarnation is made again after an assert.
func TestSelectStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := w.pod(t, "a@1")
		running(t, a)
		s := a.mustLogin(t, alice, Login{Chat: ptr("c1")})
		w.flush()
		if err := a.choose(s, ptr("c2")); err != nil {
			t.Fatal(err)
		}
		if w.selected(alice) != "c2" {
			t.Errorf("Redis has %q", w.selected(alice))
		}
		a.whole(t)
	})
}

// An unknown outcome puts the old chat back, route and all, before the client
// hears of it.
func TestSelectUnknownOutcome(t *testing.T) {
	for _, after := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			a := w.pod(t, "a@1")
			running(t, a)
			s := a.mustLogin(t, alice, Login{Chat: ptr("c1")})
			a.setFault(faults("join", after, 1))
			if err := a.choose(s, ptr("c2")); !errors.Is(err, errLost) {
				t.Fatalf("got %v", err)
			}
			if got := a.m.Index().Info(s).Chat; got != "c1" {
				t.Errorf("chat is %q; want the old one", got)
			}
			synctest.Wait()
			joined := w.joined(alice.Partition(testPartitions))
			if _, ok := joined[Want{"acme", "ag1", "c1"}]; !ok {
				t.Errorf("the old chat's route is gone: %v", joined)
			}
		})
	}
}

// When nothing can be asserted either, the client hears of that.
func TestSelectWhileRedisIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := w.pod(t, "a@1")
		running(t, a)
		s := a.mustLogin(t, alice, Login{Chat: ptr("c1")})
		w.flush()
		a.setFault(faults("inc", false, 1e6))
		if err := a.choose(s, ptr("c2")); err == nil {
			t.Fatal("no error")
		}
		if got := a.m.Index().Info(s).Chat; got != "c1" {
			t.Errorf("chat is %q; want the old one", got)
		}
		a.setFault(nil)
		time.Sleep(time.Minute)
		if err := a.Assert(t.Context(), alice.Partition(testPartitions)); err != nil {
			t.Fatal(err)
		}
		a.whole(t)
	})
}

// Who waits for Run when it ends is told.
func TestSelectAfterRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := w.pod(t, "a@1")
		s := a.mustLogin(t, alice, Login{})
		w.flush()
		result := make(chan error, 2)
		if err := a.m.Select(s, ptr("c1"), func(err error) { result <- err }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // waits for a Run
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.m.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if err := <-result; !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
		if err := a.choose(s, ptr("c3")); !errors.Is(err, ErrClosed) {
			t.Errorf("after Run: %v", err)
		}
	})
}
