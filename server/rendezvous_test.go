package server

import (
	"fmt"
	"slices"
	"testing"

	"github.com/daisi/daisi-ws/session"
)

func pods(n int) []session.Pod {
	list := make([]session.Pod, n)
	for i := range list {
		list[i] = session.Pod{Owner: session.Owner(fmt.Sprintf("pod-%d@boot%d", i, i))}
	}
	return list
}

func TestOwnerOfMovesOnlyTheLostShare(t *testing.T) {
	const partitions = 4096
	all := pods(8)
	share := map[session.Owner]int{}
	for n := range partitions {
		before, after := ownerOf(n, all), ownerOf(n, all[:7])
		share[before]++
		if before != all[7].Owner && before != after {
			t.Fatalf("partition %d moved from %s to %s though its owner stayed", n, before, after)
		}
	}
	for o, k := range share {
		if k < partitions/8*7/10 || k > partitions/8*13/10 {
			t.Errorf("%s owns %d of %d partitions, want about an eighth", o, k, partitions)
		}
	}
	if got := ownerOf(1, nil); got != "" {
		t.Errorf("owner over an empty list: %q", got)
	}
}

func TestOwnerOfIgnoresOrder(t *testing.T) {
	a := pods(5)
	b := []session.Pod{a[3], a[0], a[4], a[2], a[1]}
	for n := range 256 {
		if ownerOf(n, a) != ownerOf(n, b) {
			t.Fatalf("partition %d: order of the list decides", n)
		}
	}
}

func TestEventsOf(t *testing.T) {
	event := func(seq uint64, kind, chat string) session.Event {
		return session.Event{Seq: seq, Route: session.Route{Company: "c", Agent: "a", Kind: kind, Chat: chat}}
	}
	events := []session.Event{
		event(1, "chats", ""), event(2, "messages", "x"), event(3, "agents", ""), event(4, "messages", "y"), event(5, "contacts", ""),
	}
	at := make([]int, len(events))
	wants := wantsOf(events, at)
	if len(wants) != 3 || at[0] != 0 || at[1] != 1 || at[2] != 0 || at[3] != 2 || at[4] != 0 {
		t.Fatalf("wants %v at %v", wants, at)
	}
	owners := [][]session.Owner{{"p", "q"}, {"q"}, {"r"}}
	f := func(q session.Owner, admins []session.Owner, want ...uint64) {
		t.Helper()
		got := eventsOf(q, events, at, owners, admins)
		if len(got) != len(want) {
			t.Fatalf("%s: %d events, want %v", q, len(got), want)
		}
		for i := range got {
			if got[i].Seq != want[i] {
				t.Fatalf("%s: event %d is %d, want %v", q, i, got[i].Seq, want)
			}
		}
	}
	f("p", nil, 1, 3, 5)
	f("q", nil, 1, 2, 3, 5)
	f("r", nil, 4)
	f("r", []session.Owner{"r"}, 3, 4)
	f("z", nil)
	f("z", []session.Owner{"z"}, 3)
	owners = [][]session.Owner{{"s"}, {"s"}, {"s"}}
	f("s", nil, 1, 2, 3, 4, 5)
}

// ReaderOf is the place in owners of the pod that reads an agent's events, for
// tests of whole clusters.
func ReaderOf(company, agent string, partitions int, owners []session.Owner) int {
	live := make([]session.Pod, len(owners))
	for i, o := range owners {
		live[i].Owner = o
	}
	return slices.Index(owners, ownerOf(session.Partition(company, agent, partitions), live))
}
