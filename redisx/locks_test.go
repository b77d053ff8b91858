package redisx

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/session"
)

func testAcquireFirst(t *testing.T, e *env) {
	h := hold(t, e.pod(t, "a@1"))
	before := uint64(time.Now().Add(-time.Minute).UnixMicro())
	e.do(t, "SET", selKey(part, alice), "chat 1\nx")
	e.do(t, "SET", revVersionKey, "77")
	got := h.acquire(1)
	want := session.Acquired{Epoch: got.Epoch, Chat: "chat 1\nx", RevVersion: 77}
	if !reflect.DeepEqual(got, want) || got.Epoch < before {
		t.Errorf("got %+v, want %+v with an epoch of about now", got, want)
	}
	if v := e.get(t, lockKey(part, alice)); v != fmt.Sprintf("1 %d 1 1 a@1", got.Epoch) {
		t.Errorf("lock value %q", v)
	}
	e.wantTTL(t, lockKey(part, alice), 300)
	if v := e.get(t, epochKey(part)); v != decimal(got.Epoch) {
		t.Errorf("last epoch issued %q, want %d", v, got.Epoch)
	}
}

func testAcquireAgain(t *testing.T, e *env) {
	a, b := hold(t, e.pod(t, "a@1")), hold(t, e.pod(t, "b@1"))
	a.login(1)
	first := b.acquire(2)
	if again := b.acquire(2); !reflect.DeepEqual(again, first) {
		t.Errorf("acquire after a lost answer: %+v, want %+v", again, first)
	}
	if again := b.acquireWith(2, true, 0); !reflect.DeepEqual(again, first) {
		t.Errorf("in reject mode: %+v, want %+v", again, first)
	}
}

func testAcquireTakeover(t *testing.T, e *env) {
	a, b, c := hold(t, e.pod(t, "a@1")), hold(t, e.pod(t, "b@1")), hold(t, e.pod(t, "c@1"))
	old := a.login(1)
	got := b.acquire(9)
	if got.Epoch <= old || got.Prev == nil || *got.Prev != (session.Lock{Owner: "a@1", Conn: 1, Epoch: old, Settled: true}) {
		t.Errorf("takeover of a settled lock: %+v, prev %+v", got, got.Prev)
	}
	// b did not open: c must learn that b's lock is unsettled.
	next := c.acquire(3)
	if next.Prev == nil || *next.Prev != (session.Lock{Owner: "b@1", Conn: 9, Epoch: got.Epoch}) {
		t.Errorf("takeover of an unsettled lock: prev %+v", next.Prev)
	}
}

// A session may be taken over ten times a minute, on whichever pods; the one
// that holds it then keeps it, and others are not concerned.
func testAcquireTakeovers(t *testing.T, e *env) {
	a, b := hold(t, e.pod(t, "a@1")), hold(t, e.pod(t, "b@1"))
	a.login(1)
	for i := range 10 {
		h := []*holder{b, a}[i%2]
		if got := h.acquire(uint64(i + 2)); got.Verdict != session.OK || got.Prev == nil && i%2 == 0 {
			t.Fatalf("takeover %d: %+v", i+1, got)
		}
	}
	before := e.get(t, lockKey(part, alice))
	for range 3 {
		got := b.acquire(99)
		if got.Verdict != session.Limited || got.Again < time.Second || got.Again > time.Minute {
			t.Errorf("takeover 11: %+v", got)
		}
	}
	if v := e.get(t, lockKey(part, alice)); v != before {
		t.Errorf("a refused takeover changed the lock: %q to %q", before, v)
	}
	if again := a.acquire(11); again.Verdict != session.OK { // its own answer, lost
		t.Errorf("the holder: %+v", again)
	}
	e.do(t, "DEL", takeoversKey(part, alice)) // a minute later
	if got := b.acquire(99); got.Verdict != session.OK {
		t.Errorf("a minute later: %+v", got)
	}
}

func testAcquireSamePod(t *testing.T, e *env) {
	a, b := hold(t, e.pod(t, "a@1")), hold(t, e.pod(t, "b@1"))
	first := b.login(1)
	if got := b.acquire(2); got.Prev != nil || got.Epoch <= first {
		t.Errorf("a pod's second, the first being settled: %+v, want no prev", got)
	}
	b.release(2)
	old := a.login(1)
	b.acquire(3)
	got := b.acquire(4)
	if got.Prev == nil || *got.Prev != (session.Lock{Owner: "a@1", Conn: 1, Epoch: old, Settled: true}) {
		t.Errorf("a pod's second, the first being unsettled: prev %+v, want a's: its end is still unconfirmed", got.Prev)
	}
}

func testAcquireReject(t *testing.T, e *env) {
	a, b := hold(t, e.pod(t, "a@1")), hold(t, e.pod(t, "b@1"))
	old := a.login(1)
	got := b.acquireWith(2, true, 0)
	if got.Verdict != session.Taken || got.Prev == nil || *got.Prev != (session.Lock{Owner: "a@1", Conn: 1, Epoch: old, Settled: true}) {
		t.Fatalf("got %+v, holder %+v", got, got.Prev)
	}
	if got := b.acquireWith(2, true, old+1); got.Verdict != session.Taken {
		t.Errorf("expecting another holder: %+v, want Taken", got)
	}
	if got := b.acquireWith(2, true, old); got.Verdict != session.OK || got.Prev == nil {
		t.Errorf("expecting this holder: %+v, want it taken over", got)
	}
	b.release(2)
	if got := a.acquireWith(3, true, 0); got.Verdict != session.OK || got.Prev != nil {
		t.Errorf("after a release: %+v, want OK", got)
	}
}

func testAcquireEpoch(t *testing.T, e *env) {
	h := hold(t, e.pod(t, "a@1"))
	const ahead = 4795411297285854 // more digits than Lua prints
	e.do(t, "SET", epochKey(part), decimal(ahead))
	if got := h.acquire(1).Epoch; got != ahead+1 {
		t.Errorf("after the partition's last epoch %d: %d", uint64(ahead), got)
	}
	e.do(t, "SET", lockKey(part, alice), fmt.Sprintf("1 %d", ahead+10))
	if got := h.acquire(2); got.Epoch != ahead+11 || got.Prev != nil {
		t.Errorf("after the tombstone's epoch %d: %+v", uint64(ahead+10), got)
	}
	if got := e.get(t, epochKey(part)); got != decimal(ahead+11) {
		t.Errorf("last epoch issued: %s", got)
	}
	const top = 1<<53 - 2
	e.do(t, "SET", epochKey(part), decimal(top))
	if got := h.acquire(3).Epoch; got != top+1 {
		t.Errorf("at the end of exact numbers: %d, want %d", got, uint64(top+1))
	}
}

func testAcquireVersion(t *testing.T, e *env) {
	h := hold(t, e.pod(t, "a@1"))
	e.do(t, "SET", lockKey(part, alice), "2 something new")
	_, err := h.c.Acquire(within(t, 5*time.Second), part, h.inc, alice, 1, false, 0)
	if err == nil || !strings.Contains(err.Error(), "DWSVERSION") {
		t.Errorf("a lock of another version: %v, want DWSVERSION", err)
	}
	if got := h.reassert(0, session.Held{Key: alice, Conn: 1, Epoch: 5}); got[0].Verdict != session.Lost {
		t.Errorf("reassert: %+v, want Lost", got)
	}
	if v := e.get(t, lockKey(part, alice)); v != "2 something new" {
		t.Errorf("it was touched: %q", v)
	}
}

func testOpenSettles(t *testing.T, e *env) {
	a, b := hold(t, e.pod(t, "a@1")), hold(t, e.pod(t, "b@1"))
	a.login(1)
	got := b.acquire(2)
	held := session.Held{Key: alice, Conn: 2, Epoch: got.Epoch, Chat: "c.1"}
	for range 2 { // the second as after a lost answer
		if o := b.open(held, true); o != (session.Opened{}) {
			t.Fatalf("Open: %+v", o)
		}
		if v := e.get(t, lockKey(part, alice)); v != fmt.Sprintf("1 %d 2 1 b@1", got.Epoch) {
			t.Errorf("lock after open: %q, want it settled and without predecessor", v)
		}
		if f := b.fences(); len(f) != 1 || f["alice"] != got.Epoch {
			t.Errorf("fences %v, want alice's at %d", f, got.Epoch)
		}
	}
	e.wantTTL(t, fenceKey(part, "acme", "ag1"), 600)
	chats, chat := session.Want{Company: "acme", Agent: "ag1"}, session.Want{Company: "acme", Agent: "ag1", Chat: "c.1"}
	wantOwners(t, b.c, part, chats, "a@1", "b@1")
	wantOwners(t, b.c, part, chat, "b@1")
	e.wantTTL(t, routeKey(part, chats), 300)
	e.wantTTL(t, routeKey(part, chat), 300)
}

func testOpenLost(t *testing.T, e *env) {
	a, b := hold(t, e.pod(t, "a@1")), hold(t, e.pod(t, "b@1"))
	epoch := a.acquire(1).Epoch
	held := session.Held{Key: alice, Conn: 1, Epoch: epoch}
	higher := b.acquire(2).Epoch
	if o := a.open(held, true); o != (session.Opened{Verdict: session.Lost, Higher: true}) {
		t.Errorf("a higher lock: %+v", o)
	}
	b.release(2)
	if o := a.open(held, true); o != (session.Opened{Verdict: session.Lost, Higher: true}) {
		t.Errorf("a higher tombstone: %+v", o)
	}
	e.do(t, "DEL", lockKey(part, alice))
	if o := a.open(held, true); o != (session.Opened{Verdict: session.Lost}) {
		t.Errorf("no lock: %+v", o)
	}
	e.do(t, "SET", lockKey(part, alice), fmt.Sprintf("1 %d 8 1 b@1", epoch-1))
	if o := a.open(held, true); o != (session.Opened{Verdict: session.Lost}) {
		t.Errorf("a lower lock: %+v", o)
	}
	if f := a.fences(); f["alice"] != higher {
		t.Errorf("fences %v: want only that of the unsettled release", f)
	}
	wantOwners(t, a.c, part, session.Want{Company: "acme", Agent: "ag1"})
}

func testOpenChat(t *testing.T, e *env) {
	h := hold(t, e.pod(t, "a@1"))
	epoch := h.acquire(1).Epoch
	held := session.Held{Key: alice, Conn: 1, Epoch: epoch, Chat: "628@s.whatsapp.net"}
	h.open(held, false)
	if got := h.acquire(2).Chat; got != held.Chat {
		t.Errorf("restored chat %q, want %q", got, held.Chat)
	}
	e.wantTTL(t, selKey(part, alice), 7*24*3600)
	h.open(session.Held{Key: alice, Conn: 2, Epoch: h.acquire(2).Epoch}, false)
	if got := h.acquire(3).Chat; got != "" {
		t.Errorf("opened without a chat, restored %q", got)
	}
}

// A fence that a sweep writes must not undo what was chosen since it began.
func testOpenKeepsChat(t *testing.T, e *env) {
	h := hold(t, e.pod(t, "a@1"))
	held := session.Held{Key: alice, Conn: 1, Epoch: h.acquire(1).Epoch, Chat: "chosen"}
	h.open(held, false)
	for _, chat := range []string{"older", ""} {
		held.Chat, held.KeepChat = chat, true
		h.open(held, true)
		if v := e.get(t, selKey(part, alice)); v != "chosen" {
			t.Errorf("open with chat %q: remembered is %q, want it left alone", chat, v)
		}
	}
}

func testOpenAdmin(t *testing.T, e *env) {
	h := hold(t, e.pod(t, "a@1"))
	root := session.AdminKey("root")
	a, err := h.c.Acquire(within(t, 5*time.Second), part, h.inc, root, 1, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	if o := h.open(session.Held{Key: root, Conn: 1, Epoch: a.Epoch}, true); o != (session.Opened{}) {
		t.Fatalf("Open: %+v", o)
	}
	wantOwners(t, h.c, part, session.AdminWant(), "a@1")
	if v := e.do(t, "EXISTS", selKey(part, root)); v != int64(0) {
		t.Error("an admin selected a chat")
	}
}

func testRelease(t *testing.T, e *env) {
	a, b := hold(t, e.pod(t, "a@1")), hold(t, e.pod(t, "b@1"))
	lock := lockKey(part, alice)
	epoch := a.login(1)
	held := e.get(t, lock)
	a.release(2) // a conn of ours that is not the holder
	b.release(1) // another's
	if v := e.get(t, lock); v != held {
		t.Errorf("released by somebody else: %q, want %q", v, held)
	}
	a.release(1)
	if v := e.get(t, lock); v != "1 "+decimal(epoch) {
		t.Errorf("released: %q, want the tombstone of %d", v, epoch)
	}
	e.wantTTL(t, lock, 300)
	if f := a.fences(); len(f) != 0 {
		t.Errorf("the release of a settled lock fenced: %v", f)
	}

	a.login(8)
	unsettled := b.acquire(9)
	b.release(9)
	if v := e.get(t, lock); v != "1 "+decimal(unsettled.Epoch) {
		t.Errorf("released unsettled: %q, want the tombstone of %d", v, unsettled.Epoch)
	}
	if f := b.fences(); f["alice"] != unsettled.Epoch {
		t.Errorf("fences after it: %v, want %d: nobody knows that the older one has ended", f, unsettled.Epoch)
	}
	if got := a.acquire(10); got.Prev != nil || got.Epoch <= unsettled.Epoch {
		t.Errorf("after a tombstone: %+v, want a higher epoch and no prev", got)
	}
}
