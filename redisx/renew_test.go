package redisx

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/session"
)

func testReassertMine(t *testing.T, e *env) {
	a, b := hold(t, e.pod(t, "a@1")), hold(t, e.pod(t, "b@1"))
	epoch := a.login(1)
	lock, sel := lockKey(part, alice), selKey(part, alice)
	e.do(t, "SET", sel, "chosen meanwhile")
	e.do(t, "EXPIRE", lock, 10)
	e.do(t, "EXPIRE", sel, 10)
	got := a.reassert(0, session.Held{Key: alice, Conn: 1, Epoch: epoch, Chat: "before"}, session.Held{Key: alice, Conn: 1})
	if got[0] != (session.Reasserted{}) || got[1] != (session.Reasserted{}) {
		t.Errorf("mine: %+v, want OK, with an unknown epoch too", got)
	}
	e.wantTTL(t, lock, 300)
	e.wantTTL(t, sel, 7*24*3600)
	if v := e.get(t, sel); v != "chosen meanwhile" {
		t.Errorf("a sweep's memory of the chat won over a newer choice: %q", v)
	}
	// Unsettled: whoever takes over has to end a's session, also when the
	// answer that said so was lost.
	taken := b.acquire(2)
	for range 2 {
		got = b.reassert(0, session.Held{Key: alice, Conn: 2, Epoch: taken.Epoch})
		if got[0].Verdict != session.OK || got[0].Prev == nil || got[0].Prev.Epoch != epoch {
			t.Errorf("mine but unsettled: %+v, want OK and a's lock", got[0])
		}
	}
}

func testReassertLost(t *testing.T, e *env) {
	a, b := hold(t, e.pod(t, "a@1")), hold(t, e.pod(t, "b@1"))
	epoch := a.login(1)
	held := session.Held{Key: alice, Conn: 1, Epoch: epoch, Fresh: true}
	b.acquire(2)
	lost := func(what string) {
		t.Helper()
		if got := a.reassert(1<<60, held); got[0] != (session.Reasserted{Verdict: session.Lost}) {
			t.Errorf("%s: %+v, want Lost", what, got[0])
		}
	}
	lost("a higher lock")
	b.release(2)
	lost("a higher tombstone")
	e.do(t, "DEL", lockKey(part, alice))
	lost("a higher fence")
	if v := e.get(t, lockKey(part, alice)); v != "" {
		t.Errorf("the loser wrote a lock: %q", v)
	}
}

// The lock is gone: whether somebody came and went meanwhile decides.
func testReassertGone(t *testing.T, e *env) {
	a := hold(t, e.pod(t, "a@1"))
	epoch := a.login(1)
	lock := lockKey(part, alice)
	try := func(fresh bool, seen uint64) session.Reasserted {
		t.Helper()
		e.do(t, "DEL", lock, selKey(part, alice))
		return a.reassert(seen, session.Held{Key: alice, Conn: 1, Epoch: epoch, Fresh: fresh, Chat: "c"})[0]
	}
	if v := try(true, 0); v != (session.Reasserted{}) {
		t.Errorf("fresh, logins since: %+v, want OK", v)
	}
	if v := try(false, epoch); v != (session.Reasserted{}) {
		t.Errorf("not fresh, no login since: %+v, want OK", v)
	}
	if v := e.get(t, lock); v != fmt.Sprintf("1 %d 1 1 a@1", epoch) {
		t.Errorf("lock %q, want it back as it was", v)
	}
	if v := e.get(t, selKey(part, alice)); v != "c" {
		t.Errorf("selected chat %q, want it back", v)
	}
	unconfirmed := session.Reasserted{Verdict: session.Lost, Unconfirmed: true}
	if v := try(false, epoch-1); v != unconfirmed {
		t.Errorf("not fresh, a login since: %+v, want Lost, but outranked by nobody", v)
	}
	if v := e.get(t, lock); v != "" {
		t.Errorf("the loser wrote a lock: %q", v)
	}
	e.do(t, "HSET", fenceKey(part, "acme", "ag1"), "alice", decimal(epoch+1)+" 1795411297")
	if v := try(false, epoch-1); v != (session.Reasserted{Verdict: session.Lost}) {
		t.Errorf("not fresh, a login since, a higher fence: %+v, want Lost and outranked", v)
	}
}

// A lower lock stands there: after keys were lost, the lower one came first.
func testReassertTaken(t *testing.T, e *env) {
	a, b := hold(t, e.pod(t, "a@1")), hold(t, e.pod(t, "b@1"))
	low, high := uint64(1795411297285854), uint64(1795411297285855)
	if got := a.reassert(0, session.Held{Key: alice, Conn: 1, Epoch: low}); got[0] != (session.Reasserted{}) {
		t.Fatalf("nothing there: %+v", got[0])
	}
	held := session.Held{Key: alice, Conn: 2, Epoch: high}
	got := b.reassert(0, held)
	if got[0].Prev == nil || *got[0].Prev != (session.Lock{Owner: "a@1", Conn: 1, Epoch: low, Settled: true}) {
		t.Fatalf("a lower lock: %+v, want OK and the lock", got[0])
	}
	if v := e.get(t, lockKey(part, alice)); v != fmt.Sprintf("1 %d 2 0 b@1 %d 1 1 a@1", high, low) {
		t.Errorf("lock %q", v)
	}
	if o := b.open(held, true); o != (session.Opened{}) {
		t.Errorf("open after it: %+v", o)
	}
	if f := a.fences(); f["alice"] != high {
		t.Errorf("fences %v", f)
	}
	if got := a.reassert(0, session.Held{Key: alice, Conn: 1, Epoch: low}); got[0].Verdict != session.Lost {
		t.Errorf("the lower one again: %+v, want Lost", got[0])
	}
	e.do(t, "SET", lockKey(part, alice), "1 "+decimal(low))
	if got := b.reassert(0, held); got[0] != (session.Reasserted{}) {
		t.Errorf("a lower tombstone: %+v, want OK without prev", got[0])
	}
}

func testReassertMany(t *testing.T, e *env) {
	a := hold(t, e.pod(t, "a@1"))
	var held []session.Held
	for i := range 2*sessionsACall + 3 {
		key := session.Key{Company: "acme", Agent: "ag1", User: strconv.Itoa(i)}
		held = append(held, session.Held{Key: key, Conn: uint64(i), Epoch: uint64(1000 + i), Fresh: true})
		if i%7 == 0 {
			e.do(t, "SET", lockKey(part, key), "1 2000 9 1 b@1")
		}
	}
	for i, r := range a.reassert(0, held...) {
		want := session.OK
		if i%7 == 0 {
			want = session.Lost
		}
		if r.Verdict != want || r.Prev != nil {
			t.Errorf("session %d: %+v, want %v", i, r, want)
		}
	}
	if got := a.reassert(0); len(got) != 0 {
		t.Errorf("nothing held: %v", got)
	}
}

func testStale(t *testing.T, e *env) {
	h := hold(t, e.pod(t, "a@1"))
	epoch := h.login(1)
	held := session.Held{Key: alice, Conn: 1, Epoch: epoch}
	want := session.Want{Company: "acme", Agent: "ag1"}
	ctx := within(t, 10*time.Second)
	check := func() {
		t.Helper()
		if a := h.acquire(2); a.Verdict != session.Stale {
			t.Errorf("Acquire: %+v, want Stale", a)
		}
		if o := h.open(held, true); o.Verdict != session.Stale {
			t.Errorf("Open: %+v, want Stale", o)
		}
		if _, stale, err := h.c.Reassert(ctx, part, h.inc, 0, []session.Held{held}); !stale || err != nil {
			t.Errorf("Reassert: %v, %v, want stale", stale, err)
		}
		if stale, err := h.c.JoinAll(ctx, part, h.inc, []session.Want{want}); !stale || err != nil {
			t.Errorf("JoinAll: %v, %v, want stale", stale, err)
		}
		joined := make(chan session.Verdict, 1)
		if err := h.c.Join(part, h.inc, &want, held, func(v session.Verdict, _ error) { joined <- v }); err != nil {
			t.Fatal(err)
		}
		if v := <-joined; v != session.Stale {
			t.Errorf("Join: %v, want Stale", v)
		}
	}
	e.do(t, "SET", incKey(part), "another")
	check()
	e.flush(t)
	check() // missing: the first of them made one
	if inc := incOf(t, h.c, part); inc == h.inc || inc == "" || inc != e.get(t, incKey(part)) {
		t.Errorf("incarnation after a loss of keys: %q, before %q", inc, h.inc)
	}
	if v := e.get(t, lockKey(part, alice)); v != "" {
		t.Errorf("a stale call wrote: %q", v)
	}
}

// A session that reasserts after hours fences with its old epoch: the fence is
// new all the same. Told by the epoch's own time it would be dropped by the
// next fence written, and the session it is for might get events.
func testFenceAge(t *testing.T, e *env) {
	h := hold(t, e.pod(t, "a@1"))
	key := fenceKey(part, "acme", "ag1")
	old := uint64(time.Now().Add(-5 * time.Hour).UnixMicro())
	held := session.Held{Key: alice, Conn: 1, Epoch: old}
	h.reassert(0, held)
	h.open(held, true)
	past := func(s int) string { return decimal(uint64(time.Now().Unix() - int64(s))) }
	e.do(t, "HSET", key, "bob", "1795411297285854 "+past(700), "carol", "1795411297285854 "+past(500), pruned, "0 "+past(61))
	bert := session.Key{Company: "acme", Agent: "ag1", User: "bert"}
	second := session.Held{Key: bert, Conn: 2, Epoch: 1795411297285855}
	h.reassert(0, second)
	h.open(second, true)
	got := h.fences()
	want := map[string]uint64{"alice": old, "bert": second.Epoch, "carol": 1795411297285854}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("fences %v, want %v: bob's was written 700 s ago", got, want)
	}
	// A lower one never replaces a higher one.
	e.do(t, "HSET", key, "bert", "1795411297285999 "+past(0))
	h.open(second, true)
	if got := h.fences()["bert"]; got != 1795411297285999 {
		t.Errorf("fence of bert %d, want the higher one", got)
	}
}
