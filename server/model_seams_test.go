package server

import (
	"context"
	"fmt"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// modelPod is to session and to the partitions what redisx.Client is: writes of
// a partition go through a lane, in order; look-ups by themselves.

var (
	_ session.Locks   = (*modelPod)(nil)
	_ session.Renewer = (*modelPod)(nil)
	_ session.Routes  = (*modelPod)(nil)
	_ session.Killer  = (*modelPod)(nil)
)

func laneCall(n int, format string, args ...any) *modelCall {
	return &modelCall{part: n, queue: true, name: fmt.Sprintf(format, args...)}
}

// edge numbers the next change of an edge of n.
func (p *modelPod) edge(n int) edgeCall {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.numbers[n]++
	return edgeCall{number: p.numbers[n]}
}

func (p *modelPod) Acquire(ctx context.Context, n int, inc string, key session.Key, conn uint64, reject bool, expect uint64) (session.Acquired, error) {
	c := laneCall(n, "acquire %s conn %d", key.Agent, conn)
	a, err := ask(ctx, p, c, func() session.Acquired {
		a := p.w.redis.acquire(n, inc, p.owner, key, conn, reject, expect)
		p.w.issued(key, a.Epoch)
		return a
	})
	if p.w.cut == ruleUnsettledPrevIsFenced && a.Prev != nil {
		settled := *a.Prev
		settled.Settled = true
		a.Prev = &settled
	}
	return a, err
}

func (p *modelPod) Open(ctx context.Context, n int, inc string, h session.Held, fence bool) (session.Opened, error) {
	c, e := laneCall(n, "open %s conn %d epoch %d fence %v", h.Key.Agent, h.Conn, h.Epoch, fence), p.edge(n)
	run := func() session.Opened { return p.w.redis.open(n, inc, p.owner, h, fence, e) }
	if p.w.cut == ruleReadyAfterOpen {
		c.run, c.then, c.due = func() { run() }, func(error) {}, time.Now().Add(time.Hour)
		p.put(c)
		return session.Opened{}, nil
	}
	return ask(ctx, p, c, run)
}

const modelPatience = 2 * time.Second

func (p *modelPod) Release(n int, key session.Key, conn uint64) {
	c := laneCall(n, "release %s conn %d", key.Agent, conn)
	c.run = func() { p.w.redis.release(n, p.owner, key, conn) }
	c.due = time.Now().Add(modelPatience)
	c.then = func(err error) {
		if err != nil {
			p.mu.Lock()
			p.freed[n] = append(p.freed[n], heldOf{key, conn})
			p.mu.Unlock()
		}
	}
	p.put(c)
}

func (p *modelPod) Reassert(ctx context.Context, n int, inc string, seen uint64, held []session.Held) ([]session.Reasserted, bool, error) {
	type answer struct {
		list  []session.Reasserted
		stale bool
	}
	c := laneCall(n, "reassert %d of %d", len(held), n)
	a, err := ask(ctx, p, c, func() (a answer) {
		a.list, a.stale = p.w.redis.reassert(n, inc, p.owner, seen, held)
		return a
	})
	return a.list, a.stale, err
}

func (p *modelPod) JoinAll(ctx context.Context, n int, inc string, wants []session.Want) (bool, error) {
	e := p.edge(n)
	stale, err := ask(ctx, p, laneCall(n, "join all of %d: %v", n, wants), func() bool {
		return p.w.redis.joinAll(n, inc, p.owner, wants, e.number)
	})
	if err == nil && !stale {
		p.asserted[n].Store(true)
		p.mu.Lock()
		freed := p.freed[n]
		p.freed[n] = nil
		p.mu.Unlock()
		for _, h := range freed {
			p.Release(n, h.key, h.conn)
		}
	}
	return stale, err
}

type incSeen struct {
	inc  string
	seen uint64
}

// Inc is session.Renewer's.
func (p *modelPod) Inc(ctx context.Context, n int) (string, uint64, error) {
	got, err := ask(ctx, p, laneCall(n, "inc of %d", n), func() incSeen {
		return incSeen{p.w.redis.incOf(n), p.w.redis.parts[n].epoch}
	})
	return got.inc, got.seen, err
}

// unsure is redisx.Options.OnUnsure.
func (p *modelPod) unsure(n int, err error) {
	if err != nil {
		p.parts[n].Doubt()
	}
}

func (p *modelPod) Leave(n int, w session.Want) {
	c, e := laneCall(n, "leave %v", w), p.edge(n)
	c.run = func() { p.w.redis.leave(n, p.owner, w, e.number) }
	c.due, c.then = time.Now().Add(modelPatience), func(err error) { p.unsure(n, err) }
	p.put(c)
}

func (p *modelPod) Join(n int, inc string, want *session.Want, h session.Held, done func(session.Verdict, error)) error {
	c, e := laneCall(n, "join %v", want), p.edge(n)
	var v session.Verdict
	c.run = func() {
		if got := p.w.redis.join(n, inc, p.owner, want, h, e); !c.ran {
			v = got
		}
	}
	c.due, c.then = time.Now().Add(modelPatience), func(err error) {
		p.unsure(n, err)
		done(v, err)
	}
	if p.w.cut == ruleSelectionWaits {
		c.then = func(error) {}
		go done(session.OK, nil)
	}
	if !p.put(c) {
		return session.ErrBusy
	}
	return nil
}

func (p *modelPod) Room(int) bool { return true }

const modelKillWait = 250 * time.Millisecond

// Kill is redisx.Client.Kill without its memory of who was silent.
func (p *modelPod) Kill(ctx context.Context, owner session.Owner, key session.Key, epoch, _ uint64) bool {
	w := p.w
	answered := make(chan struct{})
	if w.cut == ruleKillNamesEpoch {
		epoch = 1<<64 - 1
	}
	if w.step()*7919%100 < w.cfg.deaf {
		owner += "?" // nobody hears it
	}
	w.send(&mail{from: p.owner, to: owner, lossy: true, name: fmt.Sprintf("kill %s below %d", key.Agent, epoch), run: func(q *modelPod) {
		once := false
		answer := func() {
			w.send(&mail{from: q.owner, to: p.owner, lossy: true, name: "answer", run: func(*modelPod) {
				if !once {
					once = true
					close(answered)
				}
			}})
		}
		if w.cut == ruleAnswerAfterTheEnd {
			answer()
			w.send(&mail{from: q.owner, to: q.owner, name: "kill, later", run: func(q *modelPod) { q.m.Killed(key, epoch, func() {}) }})
			return
		}
		q.m.Killed(key, epoch, answer)
	}})
	if live := p.liveList(); w.cfg.deaf == 0 && len(live) > 0 && !isLive(live, owner) {
		return w.cut == ruleSilenceIsFenced
	}
	t := time.NewTimer(modelKillWait)
	defer t.Stop()
	select {
	case <-answered:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return w.cut == ruleSilenceIsFenced
}

// lookup is redisx.Client.Lookup.
func (p *modelPod) lookup(ctx context.Context, n int, wants []session.Want) (session.Lookup, error) {
	c := &modelCall{name: fmt.Sprintf("look-up %d", n), redis: true}
	return ask(ctx, p, c, func() session.Lookup { return p.w.redis.lookup(n, wants) })
}

// partRedis is Redis as the partition asks it.
type partRedis struct {
	*modelPod
	n int
}

func (r partRedis) Inc(ctx context.Context, n int) (string, uint64, error) {
	if r.w.cut == ruleRepairBeginsAgain {
		r.parts[n].asserts-- // hides the assert from the repair it interrupts
	}
	return r.modelPod.Inc(ctx, n)
}

func (r partRedis) Lookup(ctx context.Context, n int, wants []session.Want, _ bool) (session.Lookup, error) {
	l, err := r.lookup(ctx, n, wants)
	if r.w.cut == ruleFencesReadAfterEvents {
		l.Fences = r.earlyFences[n]
	}
	return l, err
}

// readerRedis is Redis as a reader asks it.
type readerRedis struct{ partRedis }

func (r readerRedis) Inc(ctx context.Context, n int) (string, uint64, error) {
	return r.modelPod.Inc(ctx, n)
}

func (r readerRedis) Lookup(ctx context.Context, n int, wants []session.Want, _ bool) (session.Lookup, error) {
	switch r.w.cut {
	case ruleLookupAfterPull:
		return pickOwners(r.early[n], n, wants), nil
	case ruleIncBelongsToLookup:
		inc, _, err := r.modelPod.Inc(ctx, n)
		if err != nil {
			return session.Lookup{}, err
		}
		l, err := r.lookup(ctx, n, wants)
		l.Inc = inc
		return l, err
	}
	return r.lookup(ctx, n, wants)
}

// pickOwners answers wants from a look-up of all wants of n.
func pickOwners(l session.Lookup, n int, wants []session.Want) session.Lookup {
	all := modelWants(n)
	picked := session.Lookup{Inc: l.Inc, Fences: l.Fences}
	for _, w := range wants {
		for i := range all {
			if all[i] == w {
				picked.Owners = append(picked.Owners, l.Owners[i])
			}
		}
	}
	return picked
}
