package session

import (
	"runtime"
	"testing"
	"time"
)

func TestGrants(t *testing.T) {
	if NewGrants(&Claims{}) != nil || NewGrants(&Claims{Admin: true, SubscribedCompany: "*", SubscribedAgent: "*"}) != nil {
		t.Error("claims without limits must cost nothing")
	}
	var all *Grants
	if !all.Select("x") || !all.Receive(KindMessages, "x") || !all.Sees("a", "b") || all.ReadOnly() || all.Role() != "" || all.Kinds() != AllKinds {
		t.Error("nil must allow everything")
	}
	g := NewGrants(&Claims{Chats: []string{"c1", "x*"}, Events: []string{KindMessages, KindChats}, ReadOnly: true})
	f := func(got, want bool, what string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %v", what, got)
		}
	}
	f(g.Select("c1"), true, "select c1")
	f(g.Select("xy"), true, "select xy")
	f(g.Select("x"), true, "select x")
	f(g.Select("c11"), false, "select c11")
	f(g.Receive(KindMessages, "c1"), true, "messages of c1")
	f(g.Receive(KindMessages, "c2"), false, "messages of c2")
	f(g.Receive(KindChats, ""), true, "chats")
	f(g.Receive(KindAgents, ""), false, "agents")
	f(g.Receive("new", ""), false, "new kind")
	f(g.ReadOnly(), true, "read only")

	scope := func(c Claims, company, agent string, want bool) {
		t.Helper()
		c.Admin = true
		if got := NewGrants(&c).Sees(company, agent); got != want {
			t.Errorf("%+v sees %s %s: %v", c, company, agent, got)
		}
	}
	scope(Claims{CompanyRestriction: "a"}, "a", "x", true)
	scope(Claims{CompanyRestriction: "a"}, "b", "x", false)
	scope(Claims{CompanyRestriction: "a", SubscribedCompany: "*"}, "b", "x", false)
	scope(Claims{SubscribedCompany: "a", SubscribedAgent: "x"}, "a", "x", true)
	scope(Claims{SubscribedCompany: "a", SubscribedAgent: "x"}, "a", "y", false)
	scope(Claims{SubscribedAgent: "x"}, "b", "x", true)
	scope(Claims{CompanyRestriction: "a", SubscribedCompany: "b"}, "a", "x", false)
	scope(Claims{CompanyRestriction: "a", SubscribedCompany: "b"}, "b", "x", false)
	if NewGrants(&Claims{Admin: true, Role: "viewer"}).Role() != "viewer" {
		t.Error("role is lost")
	}
}

// Equal limits and key are one Grants for all, given back with the last.
func TestGrantTable(t *testing.T) {
	var table GrantTable
	limited := func(kid string, chats ...string) *Grants {
		return table.Of(&Claims{Company: "a", Agent: "b", User: "c", KID: kid, Chats: chats})
	}
	one, two := limited("k1", "x", "yz"), limited("k1", "x", "yz")
	if one != two || limited("k2", "x", "yz") == one || limited("k1", "xy", "z") == one || limited("", "x", "yz") == one {
		t.Error("not shared as it should be")
	}
	if limited("") != nil || limited("k1") == nil || !limited("k1").Same(nil) || limited("k1").KID() != "k1" {
		t.Error("a key alone is no limit")
	}
	if !one.Same(limited("k2", "x", "yz")) || one.Same(limited("k1", "xy", "z")) || one.Same(nil) {
		t.Error("same limits are not the same")
	}
	runtime.KeepAlive(one)
	one, two = nil, nil
	for end := time.Now().Add(10 * time.Second); table.Len() > 0; runtime.GC() {
		if time.Now().After(end) {
			t.Fatalf("%d are kept though nobody has them", table.Len())
		}
		time.Sleep(time.Millisecond)
	}
}

// A read-only session changes nothing that outlives it.
func TestReadOnlyLeavesTheRememberedChat(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	s := a.mustLogin(t, alice, Login{Chat: ptr("c1")})
	a.m.Close(s, ReasonClient, "")
	look := a.m.NewSession(&sock{}, alice, Profile{Grants: NewGrants(&Claims{ReadOnly: true})})
	if err := a.m.Open(t.Context(), look, Login{Chat: ptr("c2")}, func(*Session[*sock], Ready) {}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	if err := a.m.Select(look, ptr("c3"), func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := a.m.Index().Info(look).Chat; got != "c3" {
		t.Errorf("selected %q", got)
	}
	a.m.Close(look, ReasonClient, "")
	again := a.mustLogin(t, alice, Login{})
	if got := a.m.Index().Info(again).Chat; got != "c1" {
		t.Errorf("restored %q; want what the session that may write had selected", got)
	}
	a.whole(t)
}
