package redisx

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/redisx/redistest"
	"github.com/daisi/daisi-ws/session"
)

// Answers are cut off after the script ran: the caller must get the first
// run's answer, not "somebody else has it".
func TestLostAnswers(t *testing.T) {
	s := redistest.Start(t)
	cut := newCutter(t, s.Addr)
	c := start(t, Options{URL: "redis://" + cut.addr, Owner: "a@1", Takeovers: 1000})
	h := hold(t, c)
	other := hold(t, start(t, Options{URL: s.URL, Owner: "b@1", Takeovers: 1000}))
	var before uint64
	for i := range 10 {
		old := other.login(uint64(100 + i))
		cut.dropAnswers(1 + i%3)
		a := h.acquire(uint64(i))
		if a.Verdict != session.OK || a.Epoch <= old || a.Prev == nil || a.Prev.Owner != "b@1" || a.Prev.Epoch != old {
			t.Fatalf("round %d: %+v, prev %+v", i, a, a.Prev)
		}
		if epoch, _ := s.Do("GET", epochKey(part)).(string); epoch != decimal(a.Epoch) {
			t.Errorf("round %d: epoch %d, but %s was issued: the script took the lock twice", i, a.Epoch, epoch)
		}
		cut.dropAnswers(1)
		if o := h.open(session.Held{Key: alice, Conn: uint64(i), Epoch: a.Epoch}, true); o != (session.Opened{}) {
			t.Fatalf("round %d: open %+v", i, o)
		}
		cut.dropAnswers(1)
		if r := h.reassert(before, session.Held{Key: alice, Conn: uint64(i), Epoch: a.Epoch}); r[0] != (session.Reasserted{}) {
			t.Fatalf("round %d: reassert %+v", i, r)
		}
		before = a.Epoch
	}
}

// A leave that the network keeps back is repeated, a join follows, and then the
// first leave arrives after all: the join stands.
func TestLateLeave(t *testing.T) {
	s := redistest.Start(t)
	cut := newCutter(t, s.Addr)
	c := start(t, Options{URL: "redis://" + cut.addr + "?read_timeout=100ms", Owner: "a@1"})
	h := hold(t, c)
	w := edgeWant(1)
	h.join(&w, session.Held{})
	key := routeKey(part, w)
	release := cut.holdNext(key)
	t.Cleanup(release)
	c.Leave(part, w)
	eventually(t, "the repeated leave", func() bool { return s.Do("EXISTS", key) == int64(0) })
	h.join(&w, session.Held{})
	wantOwners(t, c, part, w, "a@1")
	calls := func() string { return field(s.Do("INFO", "commandstats"), "cmdstat_zscore") }
	before := calls()
	release()
	eventually(t, "the late leave", func() bool { return calls() != before })
	wantOwners(t, c, part, w, "a@1")
}

func field(info any, name string) string {
	text, _ := info.(string)
	return infoField(text, name)
}

// The order of edges of a route survives connections that are cut in the
// middle of pipelines: what is asked last stands at the end.
func TestEdgeOrderUnderCuts(t *testing.T) {
	s := redistest.Start(t)
	cut := newCutter(t, s.Addr)
	var unsure atomic.Int64
	c := start(t, Options{URL: "redis://" + cut.addr, Owner: "a@1", Partitions: 8, OnUnsure: func(int) { unsure.Add(1) }})
	checkEdgeOrder(t, c, 1500*time.Millisecond, func() {
		switch rand.IntN(3) {
		case 0:
			cut.cutAll()
		default:
			cut.dropAnswers(1)
		}
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
	})
	if unsure.Load() > 0 {
		t.Errorf("%d edges were given up", unsure.Load())
	}
}

// The same while Redis stands still again and again: what it finds in its
// buffers afterwards is older than what it is told then.
func TestEdgeOrderUnderPauses(t *testing.T) {
	s := redistest.Start(t)
	c := start(t, Options{URL: s.URL + "?read_timeout=100ms", Owner: "a@1", Partitions: 8})
	checkEdgeOrder(t, c, 2*time.Second, func() {
		s.Stop()
		time.Sleep(time.Duration(50+rand.IntN(200)) * time.Millisecond)
		s.Cont()
		time.Sleep(time.Duration(50+rand.IntN(100)) * time.Millisecond)
	})
}

// The same while slots move from node to node, key by key.
func TestEdgeOrderUnderMoves(t *testing.T) {
	cl := redistest.StartCluster(t, 3)
	c := create(t, Options{URL: cl.URL, Owner: "a@1", Partitions: 4})
	// A slot that moves has another master, so a new incarnation: not here,
	// for it would only interrupt what this test looks at.
	c.watch.node = nil
	run(t, c)
	checkEdgeOrder(t, c, 2*time.Second, func() {
		key := incKey(rand.IntN(4))
		from := cl.Owner(key)
		to := cl.Nodes[rand.IntN(3)]
		if to == from {
			return
		}
		cl.BeginMove(key, to)
		for cl.MoveKeys(key, from, to, 1) > 0 {
			time.Sleep(2 * time.Millisecond)
		}
		cl.EndMove(key, to)
	})
}

// checkEdgeOrder joins and leaves routes at random for some milliseconds while
// disturb does its worst, and looks when all is calm whether Redis has what was
// asked last, and whether answers came in the order of questions; again and
// again for a time. Only the end of each round can show a late command: later
// ones would put it right.
func checkEdgeOrder(t *testing.T, c *Client, d time.Duration, disturb func()) {
	t.Helper()
	w := &wanter{
		t: t, c: c, last: make([][edgeRoutes]bool, c.opt.Partitions), asked: make([]int, c.opt.Partitions),
		seen: make([]int, c.opt.Partitions), incs: make([]string, c.opt.Partitions), answers: make(chan joined, 1<<16),
	}
	for n := range w.incs {
		w.incs[n] = incOf(t, c, n)
	}
	for until := time.Now().Add(d); time.Now().Before(until) && !t.Failed(); {
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.run(time.After(time.Duration(rand.IntN(30)) * time.Millisecond))
		}()
		disturb()
		<-done
		w.check()
	}
	if c.counts.again.Get() == 0 {
		t.Error("nothing was ever sent again: the test disturbed nothing")
	}
}

const edgeRoutes = 5

type joined struct{ n, number int }

// wanter wants routes and no longer wants them.
type wanter struct {
	t       *testing.T
	c       *Client
	incs    []string
	last    [][edgeRoutes]bool // by partition and route: asked last to be joined
	asked   []int              // joins by partition
	seen    []int              // of them, answered
	answers chan joined
}

func edgeWant(i int) session.Want { return session.Want{Company: "acme", Agent: fmt.Sprint(i)} }

func (w *wanter) run(stop <-chan time.Time) {
	for {
		for range 5 {
			n, i := rand.IntN(len(w.last)), rand.IntN(edgeRoutes)
			w.last[n][i] = rand.IntN(2) == 0
			if w.last[n][i] {
				w.join(n, edgeWant(i))
			} else {
				w.c.Leave(n, edgeWant(i))
			}
		}
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func (w *wanter) join(n int, want session.Want) {
	number := w.asked[n]
	w.asked[n]++
	err := w.c.Join(n, w.incs[n], &want, session.Held{}, func(v session.Verdict, err error) {
		if err != nil || v != session.OK {
			w.t.Errorf("join in partition %d: %v, %v", n, v, err)
		}
		w.answers <- joined{n, number}
	})
	if err != nil {
		w.t.Error(err)
	}
}

func (w *wanter) check() {
	t := w.t
	t.Helper()
	total := 0
	for n := range w.asked {
		total += w.asked[n] - w.seen[n]
	}
	for range total {
		select {
		case a := <-w.answers:
			if a.number != w.seen[a.n] {
				t.Fatalf("partition %d: answer to join %d, want %d", a.n, a.number, w.seen[a.n])
			}
			w.seen[a.n]++
		case <-time.After(10 * time.Second):
			t.Fatalf("answers to %v joins of %v", w.seen, w.asked)
		}
	}
	for n := range w.last {
		incOf(t, w.c, n) // behind the last leave
		for i, want := range w.last[n] {
			l, err := w.c.Lookup(within(t, 5*time.Second), n, []session.Want{edgeWant(i)}, false)
			if err != nil {
				t.Fatal(err)
			}
			if (len(l.Owners[0]) == 1) != want {
				t.Errorf("partition %d, route %d: owners %v, but what was asked last is joined=%v", n, i, l.Owners[0], want)
			}
		}
	}
}

// While Redis stands still: calls with a context end with it, edges are given
// up after 2 s and said to be unsure, nothing blocks; then all works again.
func TestStopped(t *testing.T) {
	s := redistest.Start(t)
	var unsure atomic.Int64
	c := start(t, Options{URL: s.URL, Owner: "a@1", OnUnsure: func(n int) { unsure.Store(int64(n)) }})
	h := hold(t, c)
	epoch := h.login(1)
	s.Stop()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.Acquire(ctx, part, h.inc, alice, 2, false, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Acquire: %v, want the context's error", err)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("Acquire with 200 ms came back after %v", took)
	}
	given := make(chan error, 1)
	w := session.Want{Company: "acme", Agent: "ag1", Chat: "c"}
	if err := c.Join(part, h.inc, &w, session.Held{}, func(_ session.Verdict, err error) { given <- err }); err != nil {
		t.Fatalf("Join: %v", err)
	}
	select {
	case err := <-given:
		if err == nil {
			t.Error("a stopped Redis took an edge")
		}
	case <-time.After(6 * time.Second):
		t.Fatal("the edge was not given up within 6 s")
	}
	if unsure.Load() != part {
		t.Errorf("OnUnsure was not told of partition %d", part)
	}
	eventually(t, "an old beat", func() bool { return c.BeatAge() > 3*time.Second })
	if c.Healthy() != nil {
		t.Error("unhealthy after 3 s, the lease is 10 s")
	}
	s.Cont()
	if a := h.acquire(3); a.Verdict != session.OK || a.Epoch <= epoch {
		t.Errorf("afterwards: %+v", a)
	}
	eventually(t, "a beat", func() bool { return c.BeatAge() < time.Second })
}

func TestNoScript(t *testing.T) {
	s := redistest.Start(t)
	c := start(t, Options{URL: s.URL, Owner: "a@1"})
	h := hold(t, c)
	w := session.Want{Company: "acme", Agent: "ag1"}
	for i := range 20 {
		s.Do("SCRIPT", "FLUSH")
		a := h.acquire(uint64(i))
		s.Do("SCRIPT", "FLUSH")
		h.open(session.Held{Key: alice, Conn: uint64(i), Epoch: a.Epoch}, false)
		c.Leave(part, w)
		s.Do("SCRIPT", "FLUSH")
		h.join(&w, session.Held{})
		wantOwners(t, c, part, w, "a@1")
	}
	before := c.counts.beats.Get()
	eventually(t, "beats", func() bool { return c.counts.beats.Get() > before+1 })
}
