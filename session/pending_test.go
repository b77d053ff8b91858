package session

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

// lateRoutes makes joins at once, and answers each when it is given the word:
// an error, or nil for what Redis said. Closed: all that remain are answered.
type lateRoutes struct {
	*pod
	answers chan error
}

func (l lateRoutes) Join(n int, inc string, w *Want, h Held, done func(Verdict, error)) error {
	return l.pod.Join(n, inc, w, h, func(v Verdict, err error) {
		if e := <-l.answers; e != nil {
			err = e
		}
		done(v, err)
	})
}

// late is a pod with lateRoutes.
func (w *world) late(t *testing.T, owner Owner) (*pod, chan error) {
	answers := make(chan error)
	p := w.pod(t, owner, func(o *Options[*sock]) { o.Routes = lateRoutes{o.Routes.(*pod), answers} })
	return p, answers
}

// takes says whether s is given an event of each of the chats, in this order.
func (p *pod) takes(s *Session[*sock], chats ...string) (took []string) {
	n := s.Partition()
	for _, chat := range chats {
		var d Delivered[*sock]
		var e ear
		seq := p.m.Index().Watermark(n) + 1
		p.m.Index().Deliver(n, event(seq, "acme.ag1.messages."+chat), nil, e.put, &d)
		p.m.Finish(&d)
		if slices.Contains(e.got, s.Sock()) {
			took = append(took, chat)
		}
	}
	return took
}

func (p *pod) wantTakes(t *testing.T, when string, s *Session[*sock], want ...string) {
	t.Helper()
	if got := p.takes(s, "old", "new", "old", "new"); !slices.Equal(got, want) {
		t.Errorf("%s: took events of %v; want of %v", when, got, want)
	}
	p.whole(t)
}

// select_chat takes effect with the route's reply: not an event of the old chat
// is missed before, nor ever when it fails; and not one of the new chat comes
// before.
func TestSelectTakesEffectWithReply(t *testing.T) {
	f := func(name string, from, to *string, answer error, after ...string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			a, answers := w.late(t, "a@1")
			running(t, a)
			s := a.mustLogin(t, alice, Login{Chat: from})
			var old []string
			if from != nil {
				old = []string{"old", "old"}
			}
			result := make(chan error, 1)
			if err := a.m.Select(s, to, func(err error) { result <- err }); err != nil {
				t.Fatal(err)
			}
			a.wantTakes(t, name+", before the reply", s, old...)
			if err := a.Assert(t.Context(), s.Partition()); err != nil {
				t.Fatal(err)
			}
			a.wantTakes(t, name+", after an assert", s, old...)
			answers <- answer
			if err := <-result; !errors.Is(err, answer) {
				t.Errorf("%s: answered %v", name, err)
			}
			a.wantTakes(t, name+", after the reply", s, after...)
			close(answers)
			synctest.Wait()
			a.wantTakes(t, name+", in the end", s, after...)
			if got := a.m.Index().Info(s).Chat; w.selected(alice) != got {
				t.Errorf("%s: Redis remembers %q, but %q is selected", name, w.selected(alice), got)
			}
			a.m.Close(s, ReasonClient, "")
			a.nothing(t)
		})
	}
	f("old to new", ptr("old"), ptr("new"), nil, "new", "new")
	f("old to new fails", ptr("old"), ptr("new"), errLost, "old", "old")
	f("none to new", nil, ptr("new"), nil, "new", "new")
	f("none to new fails", nil, ptr("new"), errLost)
	f("old to none", ptr("old"), nil, nil)
	f("old to none fails", ptr("old"), nil, errLost, "old", "old")
	f("old to old", ptr("old"), ptr("old"), nil, "old", "old")
	f("old to old fails", ptr("old"), ptr("old"), errLost, "old", "old")
}

// The edges of both chats stand while a selection is on its way, whoever else
// comes to want them or ceases to.
func TestEdgesOfPendingSelection(t *testing.T) {
	bob := Key{"acme", "ag1", "bob"}
	for _, answer := range []error{nil, errLost} {
		for _, chat := range []string{"old", "new"} {
			for _, before := range []bool{true, false} {
				synctest.Test(t, func(t *testing.T) {
					a, answers := newWorld().late(t, "a@1")
					running(t, a)
					s := a.mustLogin(t, alice, Login{Chat: ptr("old")})
					var other *Session[*sock]
					visit := func() { other = a.mustLogin(t, bob, Login{Chat: ptr(chat)}) }
					if before {
						visit()
					}
					result := make(chan error, 1)
					if err := a.m.Select(s, ptr("new"), func(err error) { result <- err }); err != nil {
						t.Fatal(err)
					}
					if !before {
						visit()
					}
					a.m.Close(other, ReasonClient, "")
					a.wantTakes(t, "before the reply", s, "old", "old")
					answers <- answer
					<-result
					close(answers)
					synctest.Wait()
					a.whole(t)
					a.m.Close(s, ReasonClient, "")
					a.nothing(t)
				})
			}
		}
	}
}

// A session that ends meanwhile leaves nothing, and the selection is told so.
func TestCloseDuringSelect(t *testing.T) {
	for _, answer := range []error{nil, errLost} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			a, answers := w.late(t, "a@1")
			running(t, a)
			s := a.mustLogin(t, alice, Login{Chat: ptr("old")})
			result := make(chan error, 1)
			if err := a.m.Select(s, ptr("new"), func(err error) { result <- err }); err != nil {
				t.Fatal(err)
			}
			a.m.Close(s, ReasonClient, "")
			a.nothing(t)
			next := a.mustLogin(t, alice, Login{Chat: ptr("old")})
			answers <- answer
			if err := <-result; !errors.Is(err, ErrClosed) {
				t.Errorf("answered %v; want ErrClosed", err)
			}
			close(answers)
			synctest.Wait()
			a.wantTakes(t, "its successor", next, "old", "old")
			if w.selected(alice) != "old" {
				t.Errorf("Redis remembers %q; want the successor's choice", w.selected(alice))
			}
		})
	}
}

// One at a time: a second one is refused until the first one is answered, and
// then a late repair of the first one does not touch it.
func TestSelectDuringSelect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a, answers := w.late(t, "a@1")
		s := a.mustLogin(t, alice, Login{Chat: ptr("old")})
		result := make(chan error, 2)
		choose := func(chat string) error {
			return a.m.Select(s, ptr(chat), func(err error) { result <- err })
		}
		if err := choose("third"); err != nil {
			t.Fatal(err)
		}
		if err := choose("new"); !errors.Is(err, ErrBusy) {
			t.Errorf("a second one: %v; want ErrBusy", err)
		}
		answers <- errLost
		if err := <-result; !errors.Is(err, errLost) {
			t.Errorf("answered %v", err)
		}
		if err := choose("new"); err != nil { // before anything of the first one is repaired
			t.Fatal(err)
		}
		running(t, a)
		synctest.Wait()
		a.wantTakes(t, "before the reply", s, "old", "old")
		answers <- nil
		if err := <-result; err != nil {
			t.Error(err)
		}
		close(answers)
		synctest.Wait()
		a.wantTakes(t, "after the reply", s, "new", "new")
		if w.selected(alice) != "new" {
			t.Errorf("Redis remembers %q", w.selected(alice))
		}
	})
}

// The keys are lost after the join was made and before its answer is there:
// what was chosen is what Redis remembers in the end.
func TestKeysLostDuringSelect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a, answers := w.late(t, "a@1")
		s := a.mustLogin(t, alice, Login{Chat: ptr("old")})
		result := make(chan error, 1)
		if err := a.m.Select(s, ptr("new"), func(err error) { result <- err }); err != nil {
			t.Fatal(err)
		}
		w.flush()
		if err := a.Assert(t.Context(), s.Partition()); err != nil {
			t.Fatal(err)
		}
		answers <- nil
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		a.wantTakes(t, "afterwards", s, "new", "new")
		if w.selected(alice) != "new" {
			t.Errorf("Redis remembers %q", w.selected(alice))
		}
	})
}

// Nothing of a selection is left when Run ends before it can be made again.
func TestRunEndsDuringSelect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		a := w.pod(t, "a@1")
		s := a.mustLogin(t, alice, Login{Chat: ptr("old")})
		w.flush()
		result := make(chan error, 1)
		if err := a.m.Select(s, ptr("new"), func(err error) { result <- err }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.m.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if err := <-result; !errors.Is(err, ErrClosed) {
			t.Errorf("answered %v", err)
		}
		if err := a.Assert(t.Context(), s.Partition()); err != nil {
			t.Fatal(err)
		}
		a.wantTakes(t, "afterwards", s, "old", "old")
	})
}
