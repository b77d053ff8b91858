package server

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/natsx"
	"github.com/daisi/daisi-ws/session"
)

// modelPod is one life of a pod: the product's parts, and their way out.
type modelPod struct {
	w       *world
	name    string
	owner   session.Owner
	began   time.Time
	m       *session.Manager[*loop.Conn]
	parts   []*partition
	ctx     context.Context
	cancel  context.CancelFunc
	socks   map[*loop.Conn]*modelSock
	readers [modelPartitions]context.CancelFunc // of partitions it reads; the schedule's
	until   int                                 // step up to which it stands still
	marks   [modelPartitions]uint64             // watermarks as last seen by the schedule
	markIn  [modelPartitions]string             // and the stream they count in

	asserted [modelPartitions]atomic.Bool // since the last repair
	// Only the worker or reader of the partition.
	early       [modelPartitions]session.Lookup
	earlyFences [modelPartitions][]session.Fence

	mu      sync.Mutex
	stream  natsx.Stream  // mu; as the watch of natsx knows it
	live    []session.Pod // mu
	beatAt  time.Time     // mu
	lapses  uint64        // mu
	numbers [modelPartitions]uint32
	freed   [modelPartitions][]heldOf // mu; releases that failed
	dead    bool                      // w.mu
}

type heldOf struct {
	key  session.Key
	conn uint64
}

// modelLives numbers the starts.
func (w *world) start(name string) *modelPod {
	w.stats.Lives++
	p := &modelPod{w: w, name: name, owner: session.Owner(fmt.Sprintf("%s@%d", name, w.stats.Lives)), began: time.Now(), socks: map[*loop.Conn]*modelSock{}}
	if w.cut == ruleOwnerHasBoot {
		p.owner = session.Owner(name + "@boot")
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.stream = natsx.Stream{ID: w.stream.id, Partitions: modelPartitions, First: w.stream.first, Last: w.stream.last()}
	m, err := session.NewManager(session.Options[*loop.Conn]{
		Owner: p.owner, Partitions: modelPartitions, Locks: p, Renewer: p, Routes: p, Killer: p, Parts: podParts{p},
		Now: p.now, Farewell: p.farewell,
	})
	if err != nil {
		panic(err)
	}
	p.m = m
	for n := range modelPartitions {
		m.Index().SetWatermark(n, p.stream.Last)
		env := &partitionEnv{
			index: m.Index(), manager: m, redis: partRedis{p, n}, stream: partStream{p, n},
			tally: newTally(metrics.NewSet()), lease: modelLease, missed: p.missed,
			revoked: func(context.Context) bool { return true }, heard: func(context.Context, uint64) bool { return true },
			routesLost: func(int, time.Duration, uint64, uint64) {},
		}
		part := newPartition(n, p.stream.ID, env)
		part.delivery.put = func(c *loop.Conn) session.Put { return p.deliver(c, part.delivery.event) }
		p.parts = append(p.parts, part)
		p.run(func() { _ = part.Run(p.ctx) })
	}
	p.run(func() { _ = m.Run(p.ctx) })
	p.run(p.beats)
	return p
}

func (p *modelPod) run(f func()) { go f() }

// now is the boot clock.
func (p *modelPod) now() time.Duration {
	return time.Hour + time.Since(p.began)
}

func (p *modelPod) isStopped() bool { return p.until > p.w.step() }

func (p *modelPod) view() natsx.Stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stream
}

// learn is natsx noticing what became of the stream.
func (p *modelPod) learn() {
	s := natsx.Stream{ID: p.w.stream.id, Partitions: modelPartitions, First: p.w.stream.first, Last: p.w.stream.last()}
	p.mu.Lock()
	moved := p.stream.ID != s.ID
	p.stream = s
	p.mu.Unlock()
	if moved {
		p.w.note("%s learns of %s", p.owner, s.ID)
		for _, part := range p.parts {
			part.Reset(s)
		}
	}
}

// beats keeps the pod on the live list.
func (p *modelPod) beats() {
	for p.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(p.ctx, time.Second)
		began := time.Now()
		live, err := ask(ctx, p, &modelCall{name: "beat"}, func() []session.Pod {
			if p.w.down {
				return nil
			}
			return p.w.redis.beat(p.owner)
		})
		cancel()
		if err == nil && live != nil {
			p.mu.Lock()
			if !p.beatAt.IsZero() && time.Since(p.beatAt) >= modelLease {
				p.lapses++
			}
			p.live, p.beatAt = live, began
			p.mu.Unlock()
		}
		pause(p.ctx, 500*time.Millisecond)
	}
}

// Beat is redisx.Client.Beat.
func (p *modelPod) Beat() (time.Duration, uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.beatAt.IsZero() {
		return 24 * time.Hour, 0
	}
	return time.Since(p.beatAt), p.lapses
}

func (p *modelPod) liveList() []session.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.live
}

// read has the pod read partition n, as one, none or several do.
func (p *modelPod) read(n int) {
	ctx, cancel := context.WithCancel(p.ctx)
	p.readers[n] = cancel
	env := &dispatchEnv{
		self: p.owner, stream: partStream{p, n}, redis: readerRedis{partRedis{p, n}}, live: p.liveList, peers: podPeers{p}, tally: p.parts[n].env.tally,
		reader: func(n int, after uint64) eventReader {
			return &modelReader{p: p, n: n, pos: after, id: p.view().ID}
		},
		local: func(b *session.Batch) bool { return p.offer(b, nil) },
		start: func(n int) (string, uint64) { return p.parts[n].Position() },
		heard: func(context.Context) (uint64, bool) { return 0, true },
	}
	d := newDispatch(n, env)
	p.run(func() {
		for ctx.Err() == nil {
			_ = d.Run(ctx)
			pause(ctx, 100*time.Millisecond)
		}
	})
}

// offer hands a batch to its partition, without the rule that is cut.
func (p *modelPod) offer(b *session.Batch, ack func(uint64)) bool {
	c, part := *b, p.parts[b.N]
	switch p.w.cut {
	case ruleHoleIsRepaired:
		c.From = 0
	case ruleTakersCheckInc:
		c.Inc = part.Inc()
	case ruleWatermarkNeverFalls:
		if w := p.m.Index().Watermark(b.N); b.From < w {
			p.m.Index().SetWatermark(b.N, b.From)
		}
	}
	return part.Offer(parcel{batch: &c, ack: ack})
}

// kill is kill -9.
func (w *world) kill(p *modelPod) {
	w.mu.Lock()
	p.dead = true
	var left []*modelCall
	keep := w.calls[:0]
	for _, c := range w.calls {
		if c.pod != p {
			keep = append(keep, c)
			continue
		}
		left = append(left, c)
		if c.queue && !c.ran {
			w.past = append(w.past, pastCommand{fmt.Sprintf("%s: late %s", p.owner, c.name), c.run})
		}
	}
	w.calls = keep
	w.mu.Unlock()
	p.cancel()
	for _, c := range left {
		c.err = errModelOver
		if c.then != nil {
			go c.then(errModelOver)
		} else {
			close(c.done)
		}
	}
	for _, q := range w.pods {
		if q != p {
			w.breakStream(p.owner, q.owner)
			w.breakStream(q.owner, p.owner)
		}
	}
}

// podParts is the delivery side as session sees it.
type podParts struct{ p *modelPod }

func (s podParts) Assert(ctx context.Context, n int) error { return s.p.parts[n].Assert(ctx) }
func (s podParts) Inc(n int) string                        { return s.p.parts[n].Inc() }
