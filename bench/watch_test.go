package bench

import (
	"maps"
	"testing"
	"time"
)

// bed is one agent with two sessions' worth of oracle, without sockets.
type bed struct {
	t      *testing.T
	book   *Book
	page   *Page
	oracle *Oracle
	seq    uint64
	sent   []Mark
}

func newBed(t *testing.T) *bed {
	b, p := testPage()
	return &bed{t: t, book: b, page: p, oracle: NewOracle(b)}
}

func (b *bed) watch(name string, chat uint16) *Watch {
	return b.oracle.Watch(&User{Page: b.page, Name: name, Chat: chat}, "door")
}

// publish enters an event and gives its number.
func (b *bed) publish(topic uint16) int {
	n, k := b.page.add(topic)
	b.sent = append(b.sent, Mark{Run: b.book.Run, Page: b.page.index, Topic: topic, N: n, K: k})
	return len(b.sent) - 1
}

// give hands events to a socket by their numbers.
func (b *bed) give(w *Watch, numbers ...int) {
	for _, n := range numbers {
		b.seq++
		w.Event(AppendBody(nil, b.page, b.sent[n], 0), b.seq)
	}
}

// want checks what was breached, and that the sums agree.
func (b *bed) want(want map[string]int64, expected, told int64) {
	b.t.Helper()
	v := b.oracle.Verdict()
	maps.DeleteFunc(v.Breaches, func(_ string, n int64) bool { return n == 0 })
	if !maps.Equal(v.Breaches, want) || v.Expected != expected || v.Told != told {
		b.t.Fatalf("breaches %v, expected %d, told %d; want %v, %d, %d\n%+v", v.Breaches, v.Expected, v.Told, want, expected, told, v.Findings)
	}
	if v.Expected != v.Met+v.Told+v.Breaches["lost"] {
		b.t.Fatalf("sums differ: %+v", v)
	}
}

var fine = map[string]int64{}

func TestWatchOwed(t *testing.T) {
	b := newBed(t)
	early := b.publish(0)
	w := b.watch("u", 1)
	w.Ready(1, "", 1)
	all, mine, other := b.publish(0), b.publish(1), b.publish(2)
	if n := b.oracle.Outstanding(); n != 2 {
		t.Fatalf("%d outstanding, want 2", n)
	}
	b.give(w, early, all, mine)
	b.want(fine, 2, 0)
	b.give(w, other)
	b.want(map[string]int64{"wrong_chat": 1}, 2, 0)
}

func TestWatchLost(t *testing.T) {
	b := newBed(t)
	w := b.watch("u", 0)
	w.Ready(1, "", 0)
	b.publish(0)
	b.give(w, b.publish(0))
	b.publish(0)
	b.want(map[string]int64{"lost": 2}, 3, 0)
	w.Closed() // the one at the end was told by the close; the hole was not
	b.want(map[string]int64{"lost": 1}, 3, 1)
}

func TestWatchUnsure(t *testing.T) {
	b := newBed(t)
	w := b.watch("u", 0)
	w.Ready(1, "", 0)
	first, second, third := b.publish(0), b.publish(0), b.publish(0)
	b.give(w, second)
	for _, n := range []int{first, second, third} {
		b.page.doubt(uint32(n))
	}
	b.want(fine, 1, 0)
	if v := b.oracle.Verdict(); v.Unsure != 3 {
		t.Fatalf("%d unsure, want 3", v.Unsure)
	}
}

func TestWatchOrder(t *testing.T) {
	b := newBed(t)
	w := b.watch("u", 0)
	w.Ready(1, "", 0)
	x, y, z := b.publish(0), b.publish(0), b.publish(0)
	b.give(w, y, x, x, z)
	b.want(map[string]int64{"out_of_order": 1, "repeated": 1}, 3, 0)
}

func TestWatchGap(t *testing.T) {
	b := newBed(t)
	b.oracle.Excuse()
	w := b.watch("u", 0)
	w.Ready(1, "", 0)
	b.publish(0)
	w.Gap()
	b.give(w, b.publish(0))
	b.want(fine, 2, 1)
	b.publish(0) // after the gap: a loss again
	b.want(map[string]int64{"lost": 1}, 3, 1)

	b = newBed(t)
	w = b.watch("u", 0)
	w.Ready(1, "", 0)
	b.publish(0)
	w.Gap()
	b.want(map[string]int64{"unexplained_gap": 1}, 1, 1)
}

func TestWatchTenant(t *testing.T) {
	b := newBed(t)
	w := b.watch("u", 0)
	w.Ready(1, "", 0)
	q := b.book.pages[0]
	n, _ := q.add(0)
	w.Event(AppendBody(nil, q, Mark{Run: b.book.Run, Page: q.index, N: n}, 0), 1)
	w.Event(AppendBody(nil, b.page, Mark{Run: b.book.Run, Page: b.page.index, N: 5}, 0), 2)
	w.Event(AppendBody(nil, b.page, Mark{Run: b.book.Run + 1, Page: b.page.index, N: 5}, 0), 3)
	w.Event([]byte(`{"by":"somebody else"}`), 4)
	b.want(map[string]int64{"wrong_tenant": 1, "forged": 1}, 0, 0)
	if v := b.oracle.Verdict(); v.Foreign != 2 || v.Received != 2 {
		t.Fatalf("foreign %d, received %d; want 2, 2", v.Foreign, v.Received)
	}
	w.Event([]byte(`{"company_id":"`+b.page.Company+`","by":"somebody else"}`), 5)
	b.want(map[string]int64{"wrong_tenant": 1, "forged": 1}, 0, 0)
	w.Event([]byte(`{"company_id":"umbrella","by":"somebody else"}`), 6) // of another company
	b.want(map[string]int64{"wrong_tenant": 2, "forged": 1}, 0, 0)
	b.oracle.secluded = true
	w.Event([]byte(`{"by":"somebody else"}`), 7) // nobody else publishes here
	b.want(map[string]int64{"wrong_tenant": 3, "forged": 1}, 0, 0)
}

// Around a selection neither chat is owed what was on its way, and the agent's
// other events are owed throughout.
func TestWatchSelect(t *testing.T) {
	b := newBed(t)
	w := b.watch("u", 2)
	w.Ready(1, "", 1)
	b.give(w, b.publish(1))
	all, old := b.publish(0), b.publish(1)
	w.Selecting(2)
	mine := b.publish(2)
	w.Selected()
	b.give(w, all, old, mine) // overtaken by the barrier, all of them
	b.give(w, b.publish(2))
	b.want(fine, 3, 0)
	b.give(w, b.publish(1))
	b.want(map[string]int64{"wrong_chat": 1}, 3, 0)
	b.publish(2)
	b.want(map[string]int64{"wrong_chat": 1, "lost": 1}, 4, 0)
}

func TestWatchTakeover(t *testing.T) {
	b := newBed(t)
	u := &User{Page: b.page, Name: "u"}
	old, new := b.oracle.Watch(u, "a"), b.oracle.Watch(u, "b")
	old.Ready(1, "", 0)
	before := b.publish(0)
	new.Ready(2, "", 0)
	b.give(old, before) // published before: may still come
	after := b.publish(0)
	b.give(new, after)
	old.Closed()
	b.want(fine, 2, 0)
	b.give(old, after)
	b.want(map[string]int64{"two_owners": 1}, 2, 0)
}

// The epoch decides who is newer, not the order in which readies are seen.
func TestWatchEpoch(t *testing.T) {
	b := newBed(t)
	u := &User{Page: b.page, Name: "u"}
	older, newer := b.oracle.Watch(u, "a"), b.oracle.Watch(u, "b")
	newer.Ready(9, "", 0)
	older.Ready(8, "", 0)
	b.give(newer, b.publish(0))
	older.Closed()
	b.want(fine, 1, 0)
	same := b.oracle.Watch(u, "c")
	same.Ready(9, "", 0)
	newer.Closed()
	b.want(map[string]int64{"two_owners": 1}, 1, 0)
}

// An older socket that hears of its end after the newer one's ready is a breach,
// unless a pod may have been waited for in vain then.
func TestWatchOverlap(t *testing.T) {
	f := func(what string, closedBefore bool, took, ago time.Duration, breaches, excused int64) {
		t.Helper()
		b := newBed(t)
		var judge func()
		b.oracle.judgeOverlaps(func(do func()) { judge = do })
		other := b.oracle.Watch(&User{Page: b.page, Name: "other"}, "a")
		other.began = time.Now().Add(-took)
		other.Ready(1, "", 0)
		for i := range b.oracle.overlaps.silent {
			b.oracle.overlaps.silent[i].to = b.oracle.overlaps.silent[i].to.Add(-ago)
		}
		u := &User{Page: b.page, Name: "u"}
		old, new := b.oracle.Watch(u, "a"), b.oracle.Watch(u, "b")
		old.Ready(1, "", 0)
		new.Ready(2, "", 0)
		if closedBefore {
			old.Closed()
		}
		judge()
		old.Closed()
		v := b.oracle.Verdict()
		if v.Overlaps != breaches+excused || v.Excused != excused || v.Breaches["two_owners"] != breaches || len(v.Findings) != int(breaches) {
			t.Errorf("%s: overlaps %d, excused %d, breaches %v; want %d and %d excused", what, v.Overlaps, v.Excused, v.Breaches, breaches, excused)
		}
	}
	f("told in time", true, 0, 0, 0, 0)
	f("told late", false, 0, 0, 1, 0)
	f("told late, another login took 200 ms", false, 200*time.Millisecond, 0, 1, 0)
	f("told late, another took 300 ms", false, 300*time.Millisecond, 0, 0, 1)
	f("told late, another had taken 300 ms long before", false, 300*time.Millisecond, 2*silenceLeft, 1, 0)
}

func TestOverlapsMerge(t *testing.T) {
	o := overlaps{after: func(func()) {}}
	now := time.Now()
	at := func(s float64) time.Time { return now.Add(time.Duration(s * float64(time.Second))) }
	o.ready(at(0), at(1))
	o.ready(at(1.5), at(1.6)) // too short to count
	o.ready(at(0.5), at(1.9))
	o.ready(at(10), at(11))
	if len(o.silent) != 2 {
		t.Errorf("%d stretches, want 2", len(o.silent))
	}
	for s, want := range map[float64]bool{-0.1: false, 0.1: true, 2.8: true, 3: false, 9.9: false, 10.1: true, 11.9: true, 12.1: false} {
		if o.excused(at(s)) != want {
			t.Errorf("at %v s excused %v, want %v", s, !want, want)
		}
	}
}
