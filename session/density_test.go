//go:build !race

package session

import (
	"fmt"
	"runtime"
	"testing"
	"unsafe"
)

// A session and its loop.Conn share 256 bytes.
func TestSessionSize(t *testing.T) {
	if got := unsafe.Sizeof(Session[*sock]{}); got > 144 {
		t.Errorf("a session takes %d bytes; 144 are left beside the conn", got)
	}
	if got := unsafe.Sizeof(agent[*sock]{}); got > 80 {
		t.Errorf("an agent takes %d bytes", got)
	}
}

// fill puts sessions of agents with the given number of members into the
// index, past Redis.
func fill(p *pod, agents, members int, chat func(i int) string) []*Session[*sock] {
	all := make([]*Session[*sock], 0, agents*members)
	for i := range agents * members {
		s := p.m.NewSession(nil, Key{"acme", fmt.Sprint("agent-", i/members), fmt.Sprint("user-", i)}, Profile{})
		sh := p.m.shard(s)
		sh.mu.Lock()
		sh.intern(s)
		sh.insert(s, chat(i))
		s.state, s.epoch, s.verified = Live, uint64(i), 1<<31
		sh.live++
		sh.mu.Unlock()
		all = append(all, s)
	}
	return all
}

// footprint is what the index costs a session, sockets and strings included.
func footprint(t testing.TB, agents, members int, chat func(i int) string) float64 {
	p := newWorld().pod(t, "a@1")
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	all := fill(p, agents, members, chat)
	clear(all)
	per := float64(heap()-before-uint64(8*cap(all))) / float64(agents*members)
	runtime.KeepAlive(p)
	runtime.KeepAlive(all)
	return per
}

func TestFootprint(t *testing.T) {
	none := func(int) string { return "" }
	f := func(name string, agents, members int, chat func(int) string, limit float64) {
		t.Helper()
		got := footprint(t, agents, members, chat)
		t.Logf("%s: %.0f bytes a session", name, got)
		if got > limit {
			t.Errorf("%s: %.0f bytes a session; want <= %.0f", name, got, limit)
		}
	}
	f("50 users an agent", 400, 50, none, 200)
	f("200 users an agent", 100, 200, none, 270)
	f("10 users an agent", 2000, 10, none, 210)
	f("1 user an agent", 20000, 1, none, 380)
	f("10 users an agent, each another chat", 2000, 10, func(i int) string { return fmt.Sprint("chat-", i) }, 350)
}

// Delivery allocates nothing, whoever takes it.
func TestDeliverAllocs(t *testing.T) {
	p := newWorld().pod(t, "a@1")
	fill(p, 2, 100, func(i int) string { return fmt.Sprint("c", i%2) })
	fences := []Fence{{"acme", "agent-0", "user-1", 1}, {"acme", "agent-9", "user-1", 1}}
	var d Delivered[*sock]
	took := 0
	put := func(*sock) Put { took++; return Queued }
	seq := uint64(0)
	for _, route := range []string{"acme.agent-0.chats", "acme.agent-1.messages.c1", "acme.agent-1.agents", "acme.nobody.chats"} {
		ev := event(0, route)
		n := Partition(ev.Route.Company, ev.Route.Agent, testPartitions)
		if got := testing.AllocsPerRun(100, func() {
			seq++
			ev.Seq = seq
			p.m.Index().Deliver(n, ev, fences, put, &d)
			p.m.Index().Advance(n, seq, fences, &d)
			p.m.Finish(&d)
		}); got != 0 {
			t.Errorf("%s: %.0f allocations", route, got)
		}
	}
	if took < 101*(100+50+100) {
		t.Errorf("only %d were delivered", took)
	}
}
