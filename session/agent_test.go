package session

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// Small and large agents find the same; a large one has a map, and gives it
// back when it is small again.
func TestAgentMembers(t *testing.T) {
	a := &agent[*sock]{company: "acme", id: "ag1"}
	r := rand.New(rand.NewPCG(1, 2))
	var in []*Session[*sock]
	for i := range 4 * mapAt {
		s := &Session[*sock]{agent: a, user: fmt.Sprint("u", i)}
		a.add(s)
		in = append(in, s)
		if mapped := len(in) > mapAt; mapped != (a.byUser != nil) {
			t.Fatalf("%d members, map %v", len(in), a.byUser != nil)
		}
	}
	if other := a.find("nobody"); other != nil {
		t.Error("found nobody")
	}
	r.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
	for len(in) > 0 {
		s := in[0]
		in = in[1:]
		if !a.remove(s) || a.remove(s) {
			t.Fatal("a member is removed once")
		}
		for _, o := range in {
			if a.find(o.user) != o || a.members[o.slot] != o {
				t.Fatalf("%s is lost after %s left", o.user, s.user)
			}
		}
		if a.find(s.user) != nil || len(a.members) != len(in) {
			t.Fatalf("%s is still there", s.user)
		}
	}
	if a.byUser != nil || a.members != nil {
		t.Error("an empty agent keeps memory")
	}
}

// I1: removal compares identity, not the user or the place.
func TestAgentRemoveByIdentity(t *testing.T) {
	for _, many := range []int{1, 2 * mapAt} {
		a := &agent[*sock]{}
		for i := range many {
			a.add(&Session[*sock]{agent: a, user: fmt.Sprint("u", i)})
		}
		late := &Session[*sock]{agent: a, user: "u0"} // a predecessor at the same place
		if a.remove(late) || len(a.members) != many || a.find("u0") == nil {
			t.Errorf("%d members: a late close removed its successor", many)
		}
	}
}
