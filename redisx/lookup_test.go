package redisx

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/session"
)

func lookup(t *testing.T, c *Client, wants []session.Want, admins bool) session.Lookup {
	t.Helper()
	l, err := c.Lookup(within(t, 5*time.Second), part, wants, admins)
	if err != nil {
		t.Fatalf("Lookup: %v", err)
	}
	return l
}

func testLookupOwners(t *testing.T, e *env) {
	a := hold(t, e.pod(t, "a@1"))
	chats, chat := session.Want{Company: "acme", Agent: "ag1"}, session.Want{Company: "acme", Agent: "ag1", Chat: "c"}
	now := time.Now().Unix()
	e.do(t, "ZADD", routeKey(part, chats), now+100, "a@1", now-1, "dead@1", now+200, "b@1")
	e.do(t, "ZADD", routeKey(part, session.AdminWant()), now+100, "c@1")
	got := lookup(t, a.c, []session.Want{chat, chats, {Company: "acme", Agent: "ag2"}, chats}, true)
	want := session.Lookup{Inc: a.inc, Owners: [][]session.Owner{nil, {"a@1", "b@1"}, nil, {"a@1", "b@1"}, {"c@1"}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := lookup(t, a.c, nil, false); got.Inc != a.inc || len(got.Owners) != 0 {
		t.Errorf("nothing asked: %v", got)
	}
	e.flush(t)
	if got := lookup(t, a.c, []session.Want{chats}, false); got.Inc == a.inc || got.Inc == "" || got.Owners[0] != nil {
		t.Errorf("after a loss of keys: %v, want another incarnation", got)
	}
}

func testLookupFences(t *testing.T, e *env) {
	a := hold(t, e.pod(t, "a@1"))
	for i, agent := range []string{"ag1", "ag3"} {
		for _, user := range []string{"u 1", "%", "ü"} {
			key := session.Key{Company: "acme", Agent: agent, User: user}
			h := session.Held{Key: key, Conn: 1, Epoch: uint64(1795411297285854 + i)}
			a.reassert(0, h)
			a.open(h, true)
		}
	}
	got := lookup(t, a.c, []session.Want{{Company: "acme", Agent: "ag2"}, {Company: "acme", Agent: "ag1", Chat: "c"}, {Company: "acme", Agent: "ag1"}, {Company: "acme", Agent: "ag3"}}, true)
	seen := make(map[session.Fence]int)
	for _, f := range got.Fences {
		seen[f]++
	}
	if len(got.Fences) != 6 {
		t.Errorf("%d fences, want each of 6 once: %v", len(got.Fences), got.Fences)
	}
	for i, agent := range []string{"ag1", "ag3"} {
		for _, user := range []string{"u 1", "%", "ü"} {
			f := session.Fence{Company: "acme", Agent: agent, User: user, Epoch: uint64(1795411297285854 + i)}
			if seen[f] != 1 {
				t.Errorf("fence %+v: %d times", f, seen[f])
			}
		}
	}
}

func testLookupMany(t *testing.T, e *env) {
	a := hold(t, e.pod(t, "a@1"))
	var wants []session.Want
	for i := range 2*wantsACall + 7 {
		wants = append(wants, session.Want{Company: "acme", Agent: fmt.Sprint(i), Chat: "c"})
	}
	if _, err := a.c.JoinAll(within(t, 10*time.Second), part, a.inc, wants); err != nil {
		t.Fatal(err)
	}
	last := session.Held{Key: session.Key{Company: "acme", Agent: fmt.Sprint(2*wantsACall + 6), User: "u"}, Conn: 1, Epoch: 5}
	a.reassert(0, last)
	a.open(last, true)
	got := lookup(t, a.c, wants, true)
	if len(got.Owners) != len(wants)+1 || len(got.Fences) != 1 {
		t.Fatalf("%d owners, %d fences, want %d and 1", len(got.Owners), len(got.Fences), len(wants)+1)
	}
	for i := range wants {
		if len(got.Owners[i]) != 1 || got.Owners[i][0] != "a@1" {
			t.Fatalf("want %d: %v", i, got.Owners[i])
		}
	}
}

func testLookupStrange(t *testing.T, e *env) {
	owner := session.Owner("pod 1%|{x}:\n@boot")
	h := hold(t, e.pod(t, owner))
	for _, w := range []session.Want{
		{Company: "a:b", Agent: "c"},
		{Company: "a", Agent: "b:c"},
		{Company: "{p9}", Agent: "}"},
		{Company: "a", Agent: "b", Chat: "chats"},
		{Company: "ü", Agent: "日本", Chat: " x\ty %20"},
	} {
		wantOwners(t, h.c, part, w)
		h.join(&w, session.Held{})
		wantOwners(t, h.c, part, w, owner)
	}
}
