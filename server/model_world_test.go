package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// The model runs the real session.Manager, session.Index, partition and
// dispatch of three pods in one synctest bubble, against a Redis (modelRedis),
// a stream and a network that do nothing by themselves: every call waits until
// the schedule lets it take effect, and waits again until the schedule lets its
// answer go. Whatever the schedule leaves waiting is stalled for as long.

const (
	modelPartitions = 2
	modelPods       = 3
)

var errModelOver = errors.New("the pod was killed")

// world is one schedule's universe. All of it belongs to the schedule's
// goroutine, which runs only while all others wait, but what mu guards.
type world struct {
	rt     *rapid.T
	cut    rule
	cfg    modelConfig
	redis  *modelRedis
	stream *modelStream
	pods   []*modelPod // present lives
	users  []*modelUser
	socks  []*modelSock
	past   []pastCommand // commands in the buffers of given up connections
	saved  []redisPart   // what a replica has
	steps  atomic.Int64
	asked  time.Duration // how often Redis looked at its clock
	down   bool          // Redis
	stats  *modelStats
	engine *loop.Engine

	mail struct {
		sync.Mutex
		list    []*mail
		streams map[link]uint64 // generation; none: the first
		cut     map[link]bool
		served  map[servedKey]uint64
	}

	mu     sync.Mutex
	calls  []*modelCall           // mu; in the order they were made
	breach *modelBreach           // mu
	epochs map[session.Key]uint64 // mu; highest issued
	trace  []string               // mu; of the last steps
	over   bool                   // mu
}

// pastCommand may still reach Redis, at any time.
type pastCommand struct {
	name string
	run  func()
}

// modelCall is one call of a pod to the outside.
type modelCall struct {
	pod   *modelPod
	name  string
	part  int  // of the lane it queues in
	queue bool // in the lane of part: takes effect in order
	redis bool // asks Redis, in no order
	run   func()
	err   error
	ran   bool
	gone  bool          // the caller has given up
	done  chan struct{} // closed when answered
	then  func(error)   // instead of done: called on a goroutine of its own
	due   time.Time     // then: fails after it
}

func (w *world) step() int { return int(w.steps.Load()) }

// call blocks until the schedule has run f and let its answer go. An error is
// an unknown outcome. f runs on the schedule's goroutine, perhaps more than once.
func (p *modelPod) call(ctx context.Context, c *modelCall) error {
	c.done = make(chan struct{})
	if !p.put(c) {
		return errModelOver
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		p.w.mu.Lock()
		defer p.w.mu.Unlock()
		c.gone = true
		if i := slices.Index(p.w.calls, c); i >= 0 && (!c.queue || len(p.w.calls) > modelBacklog) {
			p.w.calls = slices.Delete(p.w.calls, i, i+1)
		}
		return ctx.Err()
	}
}

// ask is call for an f with an answer. What f says when its command comes once
// more, late, nobody hears.
func ask[T any](ctx context.Context, p *modelPod, c *modelCall, f func() T) (T, error) {
	got := new(T)
	c.run = func() {
		if v := f(); !c.ran {
			*got = v
		}
	}
	if err := p.call(ctx, c); err != nil {
		var none T
		return none, err
	}
	return *got, nil
}

// put queues c; false: the pod is dead.
func (p *modelPod) put(c *modelCall) bool {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if p.dead || p.w.over {
		return false
	}
	c.pod = p
	p.w.calls = append(p.w.calls, c)
	return true
}

// breached notes the first broken invariant; any goroutine.
func (w *world) breached(invariant, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.breach == nil {
		w.breach = &modelBreach{invariant, fmt.Sprintf(format, args...), w.step()}
	}
}

func (w *world) isBroken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.breach != nil
}

// note adds a line to the trace.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.trace) == modelTrace {
		w.trace = append(w.trace[:0], w.trace[modelTrace/2:]...)
	}
	w.trace = append(w.trace, fmt.Sprintf("%d ", w.step())+fmt.Sprintf(format, args...))
}

const (
	modelTrace   = 4000 // lines
	modelBacklog = 60   // calls; beyond them, what was given up is not sent any more
)

// runnable are the calls that may take their next step now: per lane only the
// oldest may take effect, an answer may come at any time.
func (w *world) runnable() []*modelCall {
	type lane struct {
		pod  *modelPod
		part int
	}
	var can []*modelCall
	headed := map[lane]bool{}
	for _, c := range w.calls {
		l := lane{c.pod, c.part}
		waits := !c.ran && c.queue
		if waits && headed[l] {
			continue
		}
		if waits {
			headed[l] = true
		}
		if !c.pod.isStopped() && (c.ran || !w.down || !c.queue && !c.redis) {
			can = append(can, c)
		}
	}
	return can
}

// effect runs a call; again says that its connection broke first, so that a copy
// of it may come at any later time.
func (w *world) effect(c *modelCall, again bool) {
	if c.gone && !c.queue {
		w.drop(c)
		return
	}
	w.note("%s: %s", c.pod.owner, c.name)
	if again && c.queue {
		w.past = append(w.past, pastCommand{fmt.Sprintf("%s: late %s", c.pod.owner, c.name), c.run})
		w.stats.Late++
	}
	c.run()
	c.ran = true
	if c.gone {
		w.drop(c)
	}
}

// answer lets the caller go on.
func (w *world) answer(c *modelCall, err error) {
	c.err = err
	if err != nil {
		w.note("%s: %s fails: %v", c.pod.owner, c.name, err)
	}
	w.drop(c)
	if c.then != nil {
		go c.then(err)
		return
	}
	close(c.done)
}

func (w *world) drop(c *modelCall) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, o := range w.calls {
		if o == c {
			w.calls = append(w.calls[:i], w.calls[i+1:]...)
			return
		}
	}
}

// expire fails what has waited for Redis for too long, as redisx does.
func (w *world) expire() {
	var late []*modelCall
	w.mu.Lock()
	for _, c := range w.calls {
		if c.then != nil && !c.ran && time.Now().After(c.due) {
			late = append(late, c)
		}
	}
	w.mu.Unlock()
	for _, c := range late {
		w.answer(c, context.DeadlineExceeded)
	}
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	if w.cut == ruleSilenceIsServed {
		for _, p := range w.pods {
			for _, part := range p.parts {
				part.heard = time.Now().Add(d)
			}
		}
	}
	w.note("%v pass", d) // takes mu, so that whoever wakes up comes after what was done here
	time.Sleep(d)
	synctest.Wait()
	w.expire()
}

// pod finds a living pod by its owner.
func (w *world) pod(o session.Owner) *modelPod {
	for _, p := range w.pods {
		if p.owner == o && !p.dead {
			return p
		}
	}
	return nil
}

// end lets every goroutine of the schedule return.
func (w *world) end() {
	w.mu.Lock()
	w.over = true
	calls := w.calls
	w.calls = nil
	w.mu.Unlock()
	for _, p := range w.pods {
		p.cancel()
	}
	for _, c := range calls {
		c.err = errModelOver
		if c.then != nil {
			go c.then(errModelOver)
		} else {
			close(c.done)
		}
	}
	synctest.Wait()
	for _, s := range w.socks {
		s.conn.Abandon(errModelOver)
	}
}
