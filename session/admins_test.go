package session

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

func (p *pod) admin(t testing.TB, id string, c Claims) *Session[*sock] {
	t.Helper()
	c.Admin = true
	s := p.m.NewSession(&sock{}, AdminKey(id), Profile{Grants: NewGrants(&c)})
	if err := p.m.Open(t.Context(), s, Login{}, func(*Session[*sock], Ready) {}); err != nil {
		t.Fatal(err)
	}
	return s
}

// adminRoutes counts the partitions whose admin route p has joined.
func (p *pod) adminRoutes() int {
	n := 0
	for i := range testPartitions {
		if slices.Contains(p.w.joined(i)[AdminWant()], p.owner) {
			n++
		}
	}
	return n
}

func TestAdmins(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	all := a.admin(t, "all", Claims{})
	acme := a.admin(t, "acme", Claims{CompanyRestriction: "acme", SubscribedCompany: "*"})
	nothing := a.admin(t, "nothing", Claims{CompanyRestriction: "acme", SubscribedCompany: "other"})
	if got := a.adminRoutes(); got != testPartitions {
		t.Errorf("%d admin routes joined; want all", got)
	}
	a.whole(t)
	seq := uint64(0)
	f := func(route string, want ...*Session[*sock]) {
		t.Helper()
		seq++
		var d Delivered[*sock]
		var e ear
		ev := event(seq, route)
		a.m.Index().Deliver(Partition(ev.Route.Company, ev.Route.Agent, testPartitions), ev, nil, e.put, &d)
		for _, s := range want {
			if !slices.Contains(e.got, s.Sock()) {
				t.Errorf("%s did not reach %v", route, s.Key())
			}
		}
		if len(e.got) != len(want) || d.Receivers != len(want) {
			t.Errorf("%s reached %d; want %d", route, len(e.got), len(want))
		}
	}
	for i := range 8 { // all partitions
		f(fmt.Sprintf("acme.ag%d.agents", i), all, acme)
		f(fmt.Sprintf("other.ag%d.agents", i), all)
		f(fmt.Sprintf("acme.ag%d.chats", i))
	}
	a.m.Close(acme, ReasonClient, "")
	f("acme.ag1.agents", all)
	a.m.Close(nothing, ReasonClient, "")
	again := a.admin(t, "all", Claims{}) // takeover
	if all.Sock().closed() != 4402 {
		t.Errorf("former admin's close code is %d", all.Sock().closed())
	}
	if got := a.adminRoutes(); got != testPartitions {
		t.Errorf("%d admin routes after a takeover; want all", got)
	}
	a.m.Close(again, ReasonClient, "")
	if got := a.adminRoutes(); got != 0 {
		t.Errorf("the last admin left %d routes", got)
	}
	a.nothing(t)
}

// An admin that can't keep up is closed, and takes nothing newer.
func TestAdminSlow(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	s := a.admin(t, "slow", Claims{})
	e := ear{answers: map[*sock]Put{s.Sock(): Slow}}
	var d Delivered[*sock]
	a.m.Index().Deliver(0, event(1, "acme.ag1.agents"), nil, e.put, &d)
	clear(e.answers)
	a.m.Index().Deliver(1, event(1, "acme.ag1.agents"), nil, e.put, &d)
	if len(e.got) != 0 || len(d.Slow) != 1 {
		t.Errorf("%d events after the drop, %d slow", len(e.got), len(d.Slow))
	}
	a.m.Finish(&d)
	if s.Sock().closed() != 4408 {
		t.Errorf("close code %d", s.Sock().closed())
	}
}

// A login of an admin that is closed while it joins leaves no route behind.
func TestAdminClosedWhileJoining(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	s := a.m.NewSession(&sock{}, AdminKey("root"), Profile{})
	once := sync.OnceFunc(func() { a.m.Close(s, ReasonDraining, "") })
	a.setFault(func(op string, after bool) error {
		if op == "joinall" && !after {
			once()
		}
		return nil
	})
	wantReason(t, a.m.Open(t.Context(), s, Login{}, nil), ReasonDraining)
	a.setFault(nil)
	if got := a.adminRoutes(); got != 0 {
		t.Errorf("%d routes left", got)
	}
	a.nothing(t)
}

// An admin's login survives a partition that changes its incarnation.
func TestAdminStale(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	once := sync.OnceFunc(w.flush)
	a.setFault(func(op string, after bool) error {
		if op == "joinall" && after {
			once()
		}
		return nil
	})
	a.admin(t, "root", Claims{})
	a.setFault(nil)
	for n := range testPartitions {
		if err := a.Assert(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.adminRoutes(); got != testPartitions {
		t.Errorf("%d routes; want all", got)
	}
}

// A fence ends the admins that it outranks, also one that is still being logged
// in, and is obeyed in all partitions before they are closed.
func TestFenceAdmins(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	x := a.m.Index()
	if _, some := x.Admins(); some {
		t.Error("admins where there are none")
	}
	root, other := a.admin(t, "root", Claims{}), a.admin(t, "other", Claims{})
	joining := a.m.NewSession(&sock{}, AdminKey("late"), Profile{})
	var d Delivered[*sock]
	fences := []Fence{
		{Company: AdminCompany, Agent: AdminAgent, User: "root", Epoch: root.Epoch() + 1},
		{Company: AdminCompany, Agent: AdminAgent, User: "other", Epoch: other.Epoch()},
		{Company: AdminCompany, Agent: AdminAgent, User: "late", Epoch: 1<<64 - 1},
	}
	once := sync.OnceFunc(func() { x.FenceAdmins(fences, &d) })
	a.setFault(func(op string, after bool) error {
		if op == "joinall" && !after {
			once()
		}
		return nil
	})
	wantReason(t, a.m.Open(t.Context(), joining, Login{}, nil), ReasonReplaced)
	a.setFault(nil)
	if n, some := x.Admins(); !some || n != AdminKey("root").Partition(testPartitions) {
		t.Errorf("admins of partition %d, %v", n, some)
	}
	for n := range testPartitions {
		var e ear
		var seen Delivered[*sock]
		x.Deliver(n, event(1, "acme.ag1.agents"), nil, e.put, &seen)
		if !slices.Equal(e.got, []*sock{other.Sock()}) {
			t.Errorf("partition %d: %d sockets were given an event, want the one that is not outranked", n, len(e.got))
		}
	}
	a.m.Finish(&d)
	if root.Sock().closed() != 4402 || other.Sock().closed() != 0 {
		t.Errorf("closed %d and %d", root.Sock().closed(), other.Sock().closed())
	}
}

// What Redis said of a partition's locks stands under the incarnation that was
// asserted, for a while.
func TestStands(t *testing.T) {
	w := newWorld()
	a := w.pod(t, "a@1")
	if a.m.Stands(0, a.m.o.Parts.Inc(0)) {
		t.Error("never swept, and stands")
	}
	if err := a.Assert(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if !a.m.Stands(0, a.m.o.Parts.Inc(0)) || a.m.Stands(0, "another") {
		t.Errorf("stands: %v, under another incarnation: %v", a.m.Stands(0, a.m.o.Parts.Inc(0)), a.m.Stands(0, "another"))
	}
}
