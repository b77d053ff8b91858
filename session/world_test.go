package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"
)

// world is Redis as protocols.md has it, for several pods in one test. Scripts
// are atomic; every call first passes the pod's fault.
type world struct {
	mu     sync.Mutex
	incs   int
	inc    map[int]string
	last   uint64
	locks  map[Key]*record
	fences map[Key]uint64
	routes map[edge]map[Owner]bool
	sel    map[Key]string
	pods   map[Owner]*pod
	rev    *Revocations // as Redis has them
}

type record struct {
	Lock
	prev *Lock
	tomb bool
}

type edge struct {
	n int
	w Want
}

const testPartitions = 4

func newWorld() *world {
	w := &world{pods: map[Owner]*pod{}}
	w.flush()
	return w
}

// flush loses all keys.
func (w *world) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inc, w.locks, w.fences = map[int]string{}, map[Key]*record{}, map[Key]uint64{}
	w.routes, w.sel = map[edge]map[Owner]bool{}, map[Key]string{}
}

func (w *world) incOf(n int) string {
	if w.inc[n] == "" {
		w.incs++
		w.inc[n] = fmt.Sprint("inc", w.incs)
	}
	return w.inc[n]
}

func (w *world) joined(n int) map[Want][]Owner {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[Want][]Owner{}
	for e, owners := range w.routes {
		if e.n == n && len(owners) > 0 {
			all[e.w] = slices.Sorted(maps.Keys(owners))
		}
	}
	return all
}

func (w *world) lock(key Key) (Lock, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.locks[key]
	if r == nil || r.tomb {
		return Lock{}, false
	}
	return r.Lock, true
}

func (w *world) fence(key Key) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fences[key]
}

var errLost = errors.New("reply lost")

// pod is one gateway: its manager, and its view of the world.
type pod struct {
	w      *world
	owner  Owner
	m      *Manager[*sock]
	silent bool          // known not to answer kills
	stall  time.Duration // before it looks at a kill

	mu       sync.Mutex
	asserted map[int]string
	// fault runs before (after=false) and after each script; an error of the
	// latter is a lost reply. nil: none.
	fault func(op string, after bool) error
	full  bool // Routes has no room
}

func (w *world) pod(t testing.TB, owner Owner, tune ...func(*Options[*sock])) *pod {
	t.Helper()
	p := &pod{w: w, owner: owner, asserted: map[int]string{}}
	start := time.Now()
	o := Options[*sock]{
		Owner: owner, Partitions: testPartitions, Locks: p, Renewer: p, Routes: p, Killer: p, Parts: delivery{p},
		Now:      func() time.Duration { return time.Hour + time.Since(start) },
		Farewell: func(s *sock, r Reason, _ string) { s.say(r.Code()) },
	}
	for _, f := range tune {
		f(&o)
	}
	m, err := NewManager(o)
	if err != nil {
		t.Fatal(err)
	}
	p.m = m
	w.mu.Lock()
	w.pods[owner] = p
	w.mu.Unlock()
	return p
}

// script runs f atomically between the pod's faults.
func (p *pod) script(op string, f func(w *world)) error {
	p.mu.Lock()
	fault := p.fault
	p.mu.Unlock()
	if fault != nil {
		if err := fault(op, false); err != nil {
			return err
		}
	}
	p.w.mu.Lock()
	f(p.w)
	p.w.mu.Unlock()
	if fault != nil {
		return fault(op, true)
	}
	return nil
}

func (p *pod) setFault(f func(op string, after bool) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

func (p *pod) Acquire(_ context.Context, n int, inc string, key Key, conn uint64, reject bool, expect uint64) (a Acquired, err error) {
	err = p.script("acquire", func(w *world) {
		if w.incOf(n) != inc {
			a.Verdict = Stale
			return
		}
		cur := w.locks[key]
		a.Chat = w.sel[key]
		if w.rev != nil {
			a.RevVersion = w.rev.Version
		}
		if cur != nil && !cur.tomb && cur.Owner == p.owner && cur.Conn == conn {
			a.Epoch, a.Prev = cur.Epoch, cur.prev
			return
		}
		if reject && cur != nil && !cur.tomb && cur.Epoch != expect {
			held := cur.Lock
			a.Verdict, a.Prev = Taken, &held
			return
		}
		w.last++
		next := &record{Lock: Lock{Owner: p.owner, Conn: conn, Settled: true}}
		if cur != nil {
			w.last = max(w.last, cur.Epoch+1)
		}
		next.Epoch = w.last
		switch {
		case cur == nil || cur.tomb:
		case cur.Owner == p.owner:
			next.Settled = cur.Settled
			if !cur.Settled {
				next.prev = cur.prev
			}
		default:
			held := cur.Lock
			next.Settled, next.prev = false, &held
		}
		w.locks[key] = next
		a.Epoch, a.Prev = next.Epoch, next.prev
	})
	return a, err
}

func (p *pod) Open(_ context.Context, n int, inc string, h Held, fence bool) (o Opened, err error) {
	err = p.script("open", func(w *world) {
		if w.incOf(n) != inc {
			o.Verdict = Stale
			return
		}
		cur := w.locks[h.Key]
		if cur == nil || cur.tomb || cur.Owner != p.owner || cur.Conn != h.Conn || cur.Epoch != h.Epoch {
			o.Verdict, o.Higher = Lost, cur != nil && cur.Epoch >= h.Epoch
			return
		}
		if fence {
			w.fences[h.Key] = max(w.fences[h.Key], h.Epoch)
		}
		cur.Settled, cur.prev = true, nil
		w.join(n, p.owner, h.wants()...)
		switch {
		case h.KeepChat:
		case h.Chat != "":
			w.sel[h.Key] = h.Chat
		default:
			delete(w.sel, h.Key)
		}
	})
	return o, err
}

// wants are the routes a lock's session needs.
func (h Held) wants() []Want {
	if h.Key.IsAdmin() {
		return []Want{AdminWant()}
	}
	ws := []Want{{Company: h.Key.Company, Agent: h.Key.Agent}}
	if h.Chat != "" {
		ws = append(ws, Want{Company: h.Key.Company, Agent: h.Key.Agent, Chat: h.Chat})
	}
	return ws
}

func (w *world) join(n int, o Owner, wants ...Want) {
	for _, want := range wants {
		e := edge{n, want}
		if w.routes[e] == nil {
			w.routes[e] = map[Owner]bool{}
		}
		w.routes[e][o] = true
	}
}

func (p *pod) Release(_ int, key Key, conn uint64) {
	_ = p.script("release", func(w *world) {
		cur := w.locks[key]
		if cur == nil || cur.tomb || cur.Owner != p.owner || cur.Conn != conn {
			return
		}
		if !cur.Settled {
			w.fences[key] = max(w.fences[key], cur.Epoch)
		}
		w.locks[key] = &record{Lock: Lock{Epoch: cur.Epoch, Settled: true}, tomb: true}
	})
}

func (p *pod) Inc(_ context.Context, n int) (inc string, seen uint64, err error) {
	err = p.script("inc", func(w *world) { inc, seen = w.incOf(n), w.last })
	return inc, seen, err
}

func (p *pod) Reassert(_ context.Context, n int, inc string, seen uint64, held []Held) (as []Reasserted, stale bool, err error) {
	err = p.script("reassert", func(w *world) {
		if stale = w.incOf(n) != inc; stale {
			return
		}
		for _, h := range held {
			as = append(as, w.reassert(p.owner, h, seen))
		}
	})
	return as, stale, err
}

func (w *world) reassert(me Owner, h Held, seen uint64) Reasserted {
	cur := w.locks[h.Key]
	if cur != nil && !cur.tomb && cur.Owner == me && cur.Conn == h.Conn {
		return Reasserted{Prev: cur.prev} // unsettled: the answer that named it may have been lost
	}
	if cur != nil && cur.Epoch > h.Epoch || w.fences[h.Key] > h.Epoch {
		return Reasserted{Verdict: Lost}
	}
	if cur == nil && !h.Fresh && w.last > seen {
		return Reasserted{Verdict: Lost, Unconfirmed: true}
	}
	next := &record{Lock: Lock{Owner: me, Conn: h.Conn, Epoch: h.Epoch, Settled: true}}
	w.last = max(w.last, h.Epoch)
	if cur != nil && !cur.tomb {
		held := cur.Lock
		next.Settled, next.prev = false, &held
	}
	w.locks[h.Key] = next
	if _, ok := w.sel[h.Key]; !ok && h.Chat != "" {
		w.sel[h.Key] = h.Chat
	}
	return Reasserted{Prev: next.prev}
}

func (p *pod) JoinAll(_ context.Context, n int, inc string, wants []Want) (stale bool, err error) {
	err = p.script("joinall", func(w *world) {
		if stale = w.incOf(n) != inc; !stale {
			w.join(n, p.owner, wants...)
		}
	})
	return stale, err
}

func (p *pod) Leave(n int, want Want) {
	_ = p.script("leave", func(w *world) { delete(w.routes[edge{n, want}], p.owner) })
}

func (p *pod) Join(n int, inc string, want *Want, h Held, done func(Verdict, error)) error {
	p.mu.Lock()
	full := p.full
	p.mu.Unlock()
	if full {
		return ErrBusy
	}
	v := OK
	err := p.script("join", func(w *world) {
		if w.incOf(n) != inc {
			v = Stale
			return
		}
		if want != nil {
			w.join(n, p.owner, *want)
		}
		switch {
		case h.KeepChat:
		case want != nil:
			w.sel[h.Key] = want.Chat
		default:
			delete(w.sel, h.Key)
		}
	})
	go done(v, err)
	return nil
}

func (p *pod) Room(int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.full
}

func (p *pod) Kill(ctx context.Context, owner Owner, key Key, epoch, _ uint64) bool {
	p.w.mu.Lock()
	to := p.w.pods[owner]
	p.w.mu.Unlock()
	if to == nil || to.silent {
		return false
	}
	answered := make(chan struct{})
	go func() {
		time.Sleep(to.stall)
		to.m.Killed(key, epoch, sync.OnceFunc(func() { close(answered) }))
	}()
	select {
	case <-answered:
		return true
	case <-time.After(250 * time.Millisecond):
	case <-ctx.Done():
	}
	return false
}

// delivery is pod's Partitions, whose Inc has another shape than Renewer's.
type delivery struct{ *pod }

func (p delivery) Inc(n int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asserted[n]
}

// Assert is what a partition's worker does.
func (p *pod) Assert(ctx context.Context, n int) error {
	for ctx.Err() == nil {
		inc, _, err := p.Inc(ctx, n)
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		switch err := p.m.Reassert(ctx, n, inc); {
		case err == nil:
			p.mu.Lock()
			p.asserted[n] = inc
			p.mu.Unlock()
			return nil
		case !errors.Is(err, ErrStale) && !errors.Is(err, errLost):
			return err
		}
	}
	return ctx.Err()
}
