package server

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// pressure is what a pod is short of, apart from what admission counts itself:
// memory, and time. It is looked at by run, once a second and, from the first
// sign of a shortage on, ten times; and read by everybody for nothing.
type pressure struct {
	memory atomic.Uint32 // thousandths of the cgroup's limit; 0: no limit
	lag    atomic.Int64  // ns that work which is ready waits for a processor

	// Owned by run.
	group   *cgroup
	sample  []metrics.Sample
	counts  []uint64 // of the scheduler's histogram at the last look
	freed   time.Time
	timed   time.Time                 // when lag was looked at
	release func()                    // debug.FreeOSMemory
	evict   func() (relief bool)      // ends connections without a request; set with shed
	shed    func(keep int) (over int) // ends the sessions for which more than keep bytes are held; set before run, nil: none
	room    uint64                    // bytes that are free
	budget  int                       // bytes that may wait for one session
	keep    int                       // of them, at the last shedding of this shortage; 0: none yet
	futile  bool                      // nobody was left to be ended
	ended   bool                      // somebody was, and what was held is not given back yet
}

// Of the cgroup's limit, in thousandths. Go's own limit is nine tenths of it;
// the kernel's part (sockets, slabs) comes on top.
const (
	memoryCollect = 800 // garbage is collected and given back before anybody is refused
	memoryRefuse  = 850 // no new logins; those who hold the most are ended
	memoryShut    = 920 // connections are closed as they come
)

// lagRefuse is when logins are refused because those who are in wait too long
// for a processor: well above what a burst does.
const lagRefuse = 250 * time.Millisecond

// Of run.
const (
	pressureEvery = 100 * time.Millisecond
	pressureNear  = 20 * time.Millisecond // between two looks at memory that is more than half full
	pressureCalm  = time.Second
	pressureRoom  = 256 << 20       // bytes that nothing here fills within a calm second
	freeEvery     = 5 * time.Second // between two give-backs that a full group asks for
	shedEvery     = 200 * time.Millisecond
	reapAfter     = 100 * time.Millisecond // from an end to the giving back of what was held for it
	shedPending   = 250 * time.Millisecond // until a connection without a request is one too many
	shedLeast     = 4 << 10                // bytes that are held for one session and not worth ending it
)

// schedLatencies is how long goroutines that were ready waited to run.
const schedLatencies = "/sched/latencies:seconds"

func newPressure(group *cgroup) *pressure {
	return &pressure{group: group, sample: []metrics.Sample{{Name: schedLatencies}}, release: debug.FreeOSMemory}
}

// run looks until ctx ends.
func (p *pressure) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			now := time.Now()
			p.look(now, now.Sub(due))
			wait := p.pace()
			due = now.Add(wait)
			timer.Reset(wait)
		}
	}
}

// pace is how long until the next look: an idle pod is left alone.
func (p *pressure) pace() time.Duration {
	if p.memory.Load() < memoryCollect/2 && p.room >= pressureRoom && p.lag.Load() < int64(lagRefuse/10) {
		return pressureCalm
	}
	if p.memory.Load() >= memoryCollect/2 {
		return pressureNear
	}
	return pressureEvery
}

// look takes the measures; late is how late it comes itself.
func (p *pressure) look(now time.Time, late time.Duration) {
	if now.Sub(p.timed) >= pressureEvery {
		p.timed = now
		// Half of the last value stays: one bad tenth of a second is no overload.
		p.lag.Store((p.lag.Load() + int64(max(late, p.waited()))) / 2)
	}
	p.memory.Store(p.full())
	every := freeEvery
	switch {
	case p.ended:
		every = reapAfter
	case p.memory.Load() >= memoryRefuse && p.shed != nil && !p.futile:
		every = shedEvery
	}
	if p.memory.Load() >= memoryCollect && now.Sub(p.freed) >= every {
		p.freed = now
		p.release()
		p.memory.Store(p.full())
		p.relieve()
	}
	if p.memory.Load() < memoryCollect {
		p.keep, p.futile, p.ended = 0, false, false
	}
}

// relieve ends sessions when the memory is short though garbage was given back
// and nobody is let in: what waits for those who do not read, here and in the
// kernel, and what came of a message that has not ended, is all that a session may
// hold of it. Limits bound that for each, and nothing for all together. Those for
// which the most is held go first, and each time that it was not enough, those for
// which half as much is.
//
// Connections without a request go before them: crypto/tls takes 256 KiB of each
// before it looks, and all would be refused now.
func (p *pressure) relieve() {
	if p.ended {
		p.ended = false
		return
	}
	if p.shed == nil || p.memory.Load() < memoryRefuse {
		return
	}
	if p.evict() {
		p.ended = true
		return // what sessions may hold is not less for it
	}
	if p.keep == 0 {
		p.keep = p.budget
	}
	for { // one that ends nobody is no relief, and the group fills meanwhile
		p.keep = max(p.keep/2, shedLeast)
		over := p.shed(p.keep)
		p.futile, p.ended = over == 0 && p.keep == shedLeast, over > 0
		if over > 0 || p.futile {
			return
		}
	}
}

func (p *pressure) full() uint32 {
	used, limit := p.group.used()
	if limit == 0 {
		p.room = pressureRoom
		return 0
	}
	p.room = less0(limit, used)
	return uint32(min(used*1000/limit, 10_000))
}

// waited is the 99th percentile of the scheduler's latencies since the last
// look.
func (p *pressure) waited() time.Duration {
	metrics.Read(p.sample)
	h := p.sample[0].Value.Float64Histogram()
	if len(p.counts) != len(h.Counts) {
		p.counts = make([]uint64, len(h.Counts))
		copy(p.counts, h.Counts)
		return 0
	}
	total := uint64(0)
	for i, n := range h.Counts {
		total += n - p.counts[i]
	}
	rest := total / 100
	bound := 0.0
	for i := len(h.Counts) - 1; i >= 0 && total > 0; i-- {
		if n := h.Counts[i] - p.counts[i]; n > rest {
			bound = h.Buckets[i]
			break
		} else {
			rest -= n
		}
	}
	copy(p.counts, h.Counts)
	if math.IsInf(bound, 0) {
		return 0
	}
	return time.Duration(bound * float64(time.Second))
}

// refuses says in a word why no login should be let in now, "" if one should.
func (p *pressure) refuses() (gate, string) {
	switch {
	case p.memory.Load() >= memoryRefuse:
		return gateMemory, "this pod is short of memory"
	case time.Duration(p.lag.Load()) >= lagRefuse:
		return gateLag, "this pod is too busy"
	}
	return 0, ""
}

// shut says whether not even a refusal can be afforded.
func (p *pressure) shut() bool { return p.memory.Load() >= memoryShut }

// shed ends the sessions for which more than keep bytes are held, as they would
// be ended for passing their budget, and says how many there were. Who is still
// there at the next look, with as much, is cut off.
func (e *edge) shed(keep int) (over int) {
	core := e.env.core()
	if core == nil {
		return 0
	}
	e.env.engine.Each(func(conn *loop.Conn) {
		c, ok := conn.Handler().(*client)
		if !ok || c.held(conn) <= keep {
			return
		}
		over++
		if core.index.Info(&c.Session).State == session.Closing {
			conn.Abort()
			return
		}
		e.m.shed.Inc()
		partial := conn.Partial() > 0
		c.close(session.ReasonSlow, "this pod is short of memory")
		if partial { // it would be held until a close handshake was through, or given up
			conn.CloseThen(session.ReasonSlow.CloseCode(), session.ReasonSlow.CloseText(), conn.Cut)
		}
	})
	return over
}

// evictPending ends the connections that should have sent their request by now. A
// few are no relief: they may have come to look like it.
func (e *edge) evictPending() (relief bool) {
	return e.public.evict(shedPending) > e.gate.maxPending/4
}

// held is how many bytes this pod's group has for c, the kernel's among them: what
// waits for it, what came of a message that has not ended, and its messages that
// wait. Many small parts of messages fill a pod, too, so at the last each counts.
func (c *client) held(conn *loop.Conn) int {
	n := conn.Queued() + conn.Unsent() + c.box.Load().held()
	if partial := conn.Partial(); partial > 0 {
		n += max(partial, shedLeast+1)
	}
	return n
}
