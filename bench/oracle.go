package bench

import (
	"sync"
	"sync/atomic"
	"time"
)

// Oracle compares what sockets were given with the Book. One a run; its Watches
// are fed by the pollers, its Verdict is asked for once they are quiet.
type Oracle struct {
	// Static after NewOracle.
	book     *Book
	rough    bool // the run breaks things: gaps have a cause
	secluded bool // its companies are the run's own, so nobody else has events for them

	// Any goroutine.
	received, foreign, gaps, takeovers atomic.Int64
	counts                             [breaches]atomic.Int64
	overlaps                           overlaps

	mu       sync.Mutex
	watches  []*Watch
	findings []Finding
}

// NewOracle judges by book.
func NewOracle(book *Book) *Oracle { return &Oracle{book: book} }

// judgeOverlaps makes it a breach when an older socket of a key is told of its
// end only after the newer one's ready was seen, unless its pod may have been
// waited for in vain. after must run its argument when all that had reached this
// machine was handled. Before the first Watch.
func (o *Oracle) judgeOverlaps(after func(do func())) { o.overlaps.after = after }

// Excuse takes gaps for explained: the run breaks things. Before the first Watch.
func (o *Oracle) Excuse() { o.rough = true }

// User is a key (company, agent, user): at most one of its sockets may live.
type User struct {
	// Static.
	Page *Page
	Name string
	Chat uint16 // topic of the chat to select, 0: none

	mu     sync.Mutex
	newest *Watch  // the socket with the highest epoch that was ready
	client *client // the one that was ready last; nil outside of a Fleet
}

func (u *User) took(c *client) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.client = c
}

// Watch makes the record of one socket of u, at the door with this name; call
// it before the socket is dialled.
func (o *Oracle) Watch(u *User, pod string) *Watch {
	w := &Watch{oracle: o, user: u, pod: pod, began: time.Now()}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.watches = append(o.watches, w)
	return w
}

// breach counts b and, while there is room, keeps what is known of it.
func (o *Oracle) breach(b Breach, f Finding) {
	o.counts[b].Add(1)
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.findings) < MaxFindings {
		f.Breach, f.At = b.String(), time.Now()
		o.findings = append(o.findings, f)
	}
}

// Breached counts the breaches seen so far; losses are known only at the end.
func (o *Oracle) Breached() (n int64) {
	for i := range o.counts {
		n += o.counts[i].Load()
	}
	return n
}

// Received counts the event frames of this run so far.
func (o *Oracle) Received() int64 { return o.received.Load() }

func (o *Oracle) all() []*Watch {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.watches[:len(o.watches):len(o.watches)]
}

// Outstanding counts copies owed to open sockets that have not come yet.
func (o *Oracle) Outstanding() (n int64) {
	for _, w := range o.all() {
		n += w.settle(false).lost
	}
	return n
}

// Verdict counts all there is. Call it when nothing more is to come: what is
// outstanding then is lost.
func (o *Oracle) Verdict() Verdict {
	v := Verdict{
		Published: o.book.Published(), Unsure: o.book.Unsure(),
		Received: o.received.Load(), Foreign: o.foreign.Load(), Gaps: o.gaps.Load(),
		Takeovers: o.takeovers.Load(), Breaches: make(map[string]int64, breaches),
	}
	var lost, undead int64
	var late []Finding
	for _, w := range o.all() {
		s := w.settle(len(late) < MaxFindings)
		if s.ready {
			v.Sessions++
		}
		v.Expected += s.expected
		v.Told += s.told
		v.Met += s.expected - s.told - s.lost
		lost += s.lost
		late = append(late, s.findings...)
		if w.undead() {
			undead++
			f := w.finding(Mark{}, 0, "never closed although a newer socket of its key was ready")
			f.Breach, f.At = TwoOwners.String(), time.Now()
			late = append(late, f)
		}
	}
	for b := range breaches {
		if b != Ledger { // which is not always looked at
			v.Breaches[b.String()] = o.counts[b].Load()
		}
	}
	v.Breaches[Lost.String()] += lost
	all, overlapped := o.overlaps.verdict()
	v.Overlaps, v.Excused = all, all-int64(len(overlapped))
	v.Breaches[TwoOwners.String()] += undead + int64(len(overlapped))
	late = append(overlapped, late...)
	o.mu.Lock()
	defer o.mu.Unlock()
	v.Findings = append(append(v.Findings, o.findings...), late...)
	v.Findings = v.Findings[:min(len(v.Findings), MaxFindings)]
	return v
}
