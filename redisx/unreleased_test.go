package redisx

import (
	"testing"
	"time"

	"github.com/daisi/daisi-ws/redisx/redistest"
	"github.com/daisi/daisi-ws/session"
)

// free says whether a newcomer that must not take over gets in, trying as conn.
func (h *holder) free(conn uint64) bool {
	h.Helper()
	return h.acquireWith(conn, true, 0).Verdict == session.OK
}

// A release that found the queue full is done with the next assert or sweep:
// where the oldest session wins, its lock would keep the user out till it expires.
func testReleaseAgain(t *testing.T, e *env) {
	c := create(t, Options{URL: e.url, Owner: "a@1", Addr: "127.0.0.1:50051", Lanes: 1, Queue: 1})
	h, b := &holder{t, c, ""}, hold(t, e.pod(t, "b@1"))
	h.inc = b.inc
	epoch := b.acquire(7).Epoch // as if it were a's: nothing of a's may run yet
	e.do(t, "SET", lockKey(part, alice), "1 "+decimal(epoch)+" 1 1 a@1")
	w := edgeWant(1)
	if err := c.Join(part, b.inc, &w, session.Held{}, func(session.Verdict, error) {}); err != nil {
		t.Fatal(err)
	}
	c.Release(part, alice, 1) // finds no room
	run(t, c)
	eventually(t, "room", func() bool { return c.Room(part) })
	if b.free(8) {
		t.Fatal("the fixture: the release must have found no room")
	}
	if _, err := c.JoinAll(within(t, 5*time.Second), part, h.inc, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the release", func() bool { return b.free(9) })
}

// The same when Redis was away for longer than a release is repeated.
func TestReleaseWhileRedisIsAway(t *testing.T) {
	s := redistest.Start(t)
	a := hold(t, start(t, Options{URL: s.URL, Owner: "a@1"}))
	b := hold(t, start(t, Options{URL: s.URL, Owner: "b@1"}))
	a.login(1)
	s.Kill()
	a.c.Release(part, alice, 1)
	eventually(t, "the end of the release", func() bool { return a.c.counts.failed.Get() > 0 })
	s.Restart(true)
	eventually(t, "an assert", func() bool {
		stale, err := a.c.JoinAll(within(t, time.Second), part, incOf(t, a.c, part), []session.Want{edgeWant(1)})
		return err == nil && !stale
	})
	eventually(t, "the release", func() bool {
		b.inc = incOf(t, b.c, part) // another master, another incarnation
		return b.free(2)
	})
}

// What is kept is bounded, nothing is kept twice, and what can't be repeated
// with any better end is not kept at all.
func TestUnreleasedBounds(t *testing.T) {
	c := create(t, Options{URL: "redis://127.0.0.1:1", Lanes: 1, Queue: 1})
	c.Leave(part, edgeWant(1)) // fills it
	for i := range maxUnreleased + 10 {
		c.Release(part, alice, uint64(i))
		c.Release(part, alice, 0)
	}
	u := c.part[part].unreleased
	if len(u.locks) != maxUnreleased || c.counts.droppedLock.Get() != 10 {
		t.Errorf("%d kept, %d dropped; want %d and 10", len(u.locks), c.counts.droppedLock.Get(), maxUnreleased)
	}
	if u := c.part[part+1].unreleased; len(u.locks) != 0 {
		t.Errorf("%d kept for another partition", len(u.locks))
	}
	c.releaseAgain(part) // finds no room either
	if len(u.locks) != maxUnreleased || c.counts.droppedLock.Get() != 10 {
		t.Errorf("then %d kept, %d dropped", len(u.locks), c.counts.droppedLock.Get())
	}

	other := create(t, Options{URL: "redis://127.0.0.1:1"})
	other.released(part, unreleased1, replyError("ERR DWSVERSION lock of an unknown version"))
	if u := other.part[part].unreleased; len(u.locks) != 0 {
		t.Error("kept what Redis will refuse again")
	}
}

var unreleased1 = heldLock{alice, 1}
