package session

import "testing"

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
