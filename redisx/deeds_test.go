package redisx

import (
	"fmt"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/session"
)

func (c *Client) lift(t *testing.T, r session.Revocation, want bool) {
	t.Helper()
	if ok, err := c.Lift(within(t, 5*time.Second), r); ok != want || err != nil {
		t.Fatalf("lift: %v, %v; want %v", ok, err, want)
	}
}

func wantRevoked(t *testing.T, what string, set *session.Revocations, names ...string) {
	t.Helper()
	got := map[session.Revoked]bool{}
	for _, r := range set.List() {
		got[r.Revoked] = true
	}
	if len(got) != len(names) {
		t.Errorf("%s: %d stand, want %v: %+v", what, len(got), names, set.List())
	}
	for _, n := range names {
		if !got[revokedCompany(n).Revoked] {
			t.Errorf("%s: %s does not stand", what, n)
		}
	}
}

// A lift stays one, wherever the keys are lost about it, and whoever still has
// what was lifted.
func testLiftLost(t *testing.T, e *env) {
	a, b := e.pod(t, "a@1"), e.pod(t, "b@1")
	f := func(name string, lose func(inA *session.Revocations)) {
		t.Helper()
		e.flush(t)
		a.deeds.list, b.deeds.list = nil, nil
		a.mustRevoke(t, revokedCompany(name))
		a.mustRevoke(t, revokedCompany("stays"))
		inA, inB := a.mustRevocations(t, nil), b.mustRevocations(t, nil)
		lose(inA)
		inB = b.mustRevocations(t, inB) // it writes again what is missing
		inA = a.mustRevocations(t, inA)
		wantRevoked(t, name+": here", inA, "stays")
		wantRevoked(t, name+": there", b.mustRevocations(t, inB), "stays")
		a.mustRevoke(t, revokedCompany(name)) // of the same moment, by a clock that is behind
		wantRevoked(t, name+": revoked again", b.mustRevocations(t, inB), "stays", name)
		inA = a.mustRevocations(t, inA)
		e.flush(t)
		wantRevoked(t, name+": revoked again, and lost", a.mustRevocations(t, inA), "stays", name)
	}
	f("after-the-loss", func(inA *session.Revocations) {
		e.flush(t)
		a.mustRevocations(t, inA)
		a.lift(t, revokedCompany("after-the-loss"), true)
	})
	f("in-the-empty-Redis", func(*session.Revocations) {
		e.flush(t)
		a.lift(t, revokedCompany("in-the-empty-Redis"), true)
	})
	f("before-the-loss", func(*session.Revocations) {
		a.lift(t, revokedCompany("before-the-loss"), true)
		e.flush(t)
	})
	never := revokedCompany("never")
	never.At = time.Time{}
	a.lift(t, never, false)
}

// Redis fails over and loses what an operator did last; then another one does
// something, so that the set looks newer than what is known.
func testDeedsLost(t *testing.T, e *env) {
	a, b := e.pod(t, "a@1"), e.pod(t, "b@1")
	a.mustRevoke(t, revokedCompany("first"))
	a.mustRevoke(t, revokedCompany("lifted"))
	version, hash := e.get(t, revVersionKey), e.do(t, "HGETALL", revKey)
	a.mustRevoke(t, revokedCompany("late"))
	a.lift(t, revokedCompany("lifted"), true)
	inA := a.mustRevocations(t, nil)
	wantRevoked(t, "before", inA, "first", "late")
	restore(t, e, version, hash)
	e.do(t, "DEL", revLiftedKey)
	b.mustRevoke(t, revokedCompany("other"))
	inA = a.mustRevocations(t, inA)
	wantRevoked(t, "after", inA, "first", "late", "other")
	wantRevoked(t, "there", b.mustRevocations(t, nil), "first", "late", "other")
	// What another pod lifts is not written again.
	b.lift(t, revokedCompany("late"), true)
	inA = a.mustRevocations(t, inA)
	wantRevoked(t, "lifted there", inA, "first", "other")
	wantRevoked(t, "and still", a.mustRevocations(t, inA), "first", "other")
}

// Deeds are remembered for a while, and not without end.
func TestDeedsAreBounded(t *testing.T) {
	var d deeds
	for i := range maxDeeds + 10 {
		d.add(deed{r: revokedCompany(fmt.Sprint("x", i))}, 0)
		d.add(deed{r: revokedCompany(fmt.Sprint("x", i)), lifted: true}, 0)
	}
	if len(d.list) != maxDeeds || !d.list[0].lifted {
		t.Errorf("%d deeds, %+v the first", len(d.list), d.list[0])
	}
	d.add(deed{r: revokedCompany("y")}, deedLife)
	if len(d.list) != 1 {
		t.Errorf("%d deeds after their time", len(d.list))
	}
}
