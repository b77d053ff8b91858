package redisx

import (
	"fmt"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/session"
)

func (h *holder) join(w *session.Want, held session.Held) session.Verdict {
	h.Helper()
	type answer struct {
		v   session.Verdict
		err error
	}
	joined := make(chan answer, 1)
	if err := h.c.Join(part, h.inc, w, held, func(v session.Verdict, err error) { joined <- answer{v, err} }); err != nil {
		h.Fatalf("Join: %v", err)
	}
	select {
	case a := <-joined:
		if a.err != nil {
			h.Fatalf("Join: %v", a.err)
		}
		return a.v
	case <-time.After(10 * time.Second):
		h.Fatal("Join was never done")
		return 0
	}
}

func testJoinLeave(t *testing.T, e *env) {
	a, b := hold(t, e.pod(t, "a@1")), hold(t, e.pod(t, "b@1"))
	w := session.Want{Company: "acme", Agent: "ag1", Chat: "c"}
	a.join(&w, session.Held{})
	b.join(&w, session.Held{})
	wantOwners(t, a.c, part, w, "a@1", "b@1")
	a.c.Leave(part, w)
	a.c.Leave(part, w) // again, as a repeated pipeline does
	a.join(nil, session.Held{})
	wantOwners(t, a.c, part, w, "b@1")
	b.c.Leave(part, w)
	if v := b.join(&w, session.Held{}); v != session.OK {
		t.Errorf("Join: %v", v)
	}
	wantOwners(t, a.c, part, w, "b@1")
	if !a.c.Room(part) {
		t.Error("no room in an empty queue")
	}
}

func testJoinChat(t *testing.T, e *env) {
	a, b := hold(t, e.pod(t, "a@1")), hold(t, e.pod(t, "b@1"))
	epoch := a.login(1)
	w := session.Want{Company: "acme", Agent: "ag1", Chat: "c"}
	held := session.Held{Key: alice, Conn: 1, Epoch: epoch, Chat: "c"}
	sel := selKey(part, alice)
	a.join(&w, held)
	if v := e.get(t, sel); v != "c" {
		t.Errorf("selected %q, want c", v)
	}
	e.wantTTL(t, sel, 7*24*3600)
	b.acquire(2)
	held.Chat = "late"
	a.join(&w, held)
	if v := e.get(t, sel); v != "c" {
		t.Errorf("an outranked session selected %q", v)
	}
	b.join(nil, session.Held{Key: alice, Conn: 2})
	if v := e.get(t, sel); v != "" {
		t.Errorf("unselected, but %q stands there", v)
	}
}

// A command whose connection was given up may be executed after newer ones.
func testLateEdges(t *testing.T, e *env) {
	c := create(t, Options{URL: e.url, Owner: "a@1"})
	for _, l := range c.lanes {
		l.brokeAt = time.Now()
	}
	run(t, c)
	a := hold(t, c)
	w := session.Want{Company: "acme", Agent: "ag1"}
	key := routeKey(part, w)
	late := func(s *script, args ...any) {
		t.Helper()
		keys := []string{key}
		if s == a.c.scripts.joinAll {
			keys = []string{incKey(part), key}
		}
		if err := a.c.rdb.Eval(within(t, 5*time.Second), s.body, keys, args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	var numbers []uint32
	for range 3 {
		a.join(&w, session.Held{})
		numbers = append(numbers, a.c.lane(part).number[part])
	}
	late(a.c.scripts.leave, "a@1", numbers[1])
	wantOwners(t, a.c, part, w, "a@1")
	late(a.c.scripts.joinAll, a.inc, "n", "a@1", 300, numbers[0])
	late(a.c.scripts.leave, "a@1", numbers[1])
	wantOwners(t, a.c, part, w, "a@1")
	late(a.c.scripts.leave, "a@1", numbers[2]+1)
	wantOwners(t, a.c, part, w)

	// Around the end of the circle.
	e.do(t, "ZADD", key, fmt.Sprintf("%d.000001", time.Now().Unix()+300), "a@1")
	late(a.c.scripts.leave, "a@1", 999999)
	wantOwners(t, a.c, part, w, "a@1")
	e.do(t, "ZADD", key, fmt.Sprintf("%d.999999", time.Now().Unix()+300), "a@1")
	late(a.c.scripts.leave, "a@1", 0)
	wantOwners(t, a.c, part, w)
}

func testJoinAll(t *testing.T, e *env) {
	a := hold(t, e.pod(t, "a@1"))
	var wants []session.Want
	for i := range 2*routesACall + 5 {
		wants = append(wants, session.Want{Company: "acme", Agent: fmt.Sprint("ag", i)})
	}
	wants = append(wants, session.AdminWant())
	gone := routeKey(part, wants[0])
	e.do(t, "ZADD", gone, time.Now().Unix()-1, "dead@1", time.Now().Unix()+100, "b@1")
	if stale, err := a.c.JoinAll(within(t, 10*time.Second), part, a.inc, wants); stale || err != nil {
		t.Fatalf("JoinAll: %v, %v", stale, err)
	}
	for _, w := range wants[1:] {
		wantOwners(t, a.c, part, w, "a@1")
	}
	wantOwners(t, a.c, part, wants[0], "b@1", "a@1")
	if n := e.do(t, "ZCARD", gone); n != int64(2) {
		t.Errorf("%v owners in the route, want the expired one cleared", n)
	}
}
