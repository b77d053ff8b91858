package loop

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/lesismal/nbio"
	"github.com/rs/zerolog"
)

// Options of an Engine. Zero means the default stated beside a field.
type Options struct {
	Pollers  int // goroutines that read: GOMAXPROCS, at most 16
	Flushers int // goroutines that write: GOMAXPROCS, at most 64
	Shards   int // parts of the sockets, each with a lock: 4 a flusher, at most 64 a flusher

	Budget     int // bytes that may wait for one socket: 1 MiB
	MaxMessage int // bytes of a message from the peer: 32 KiB

	PingInterval time.Duration // 30 s, in whole seconds; negative: no pings
	PongTimeout  time.Duration // a socket without any byte for so long is dead: 90 s, in whole seconds
	// MessageTimeout is for a message, or a TLS record, from its first byte to its
	// last: 15 s, in whole seconds. Any byte counts as life, so without it one that
	// trickles in could hold a socket and its buffers for ever.
	MessageTimeout time.Duration
	CloseTimeout   time.Duration // for flushing, and again for the peer's close frame: 2 s
	// Flood is for a peer that sends more than 100 control frames and empty
	// fragments a second, 20 s' worth of them at once: 1008.
	Flood *ProtocolError

	Client bool     // the client's role: frames are masked, Dial works, Adopt takes client sockets
	Kinds  []string // metric labels of Frame kinds: one, "event"

	Metrics *metrics.Set // nil: a private set
	Log     zerolog.Logger
}

// maxPong keeps differences of seconds in 32 bits.
const maxPong = 1000 * 24 * time.Hour

func (o Options) withDefaults() (Options, error) {
	procs := runtime.GOMAXPROCS(0)
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	defTime := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	def(&o.Pollers, min(procs, 16))
	def(&o.Flushers, min(procs, 64))
	def(&o.Shards, 4*o.Flushers)
	def(&o.Budget, 1<<20)
	def(&o.MaxMessage, 32<<10)
	defTime(&o.PingInterval, 30*time.Second)
	defTime(&o.PongTimeout, 90*time.Second)
	defTime(&o.MessageTimeout, 15*time.Second)
	defTime(&o.CloseTimeout, 2*time.Second)
	if o.Flood == nil {
		o.Flood = errFlood
	}
	if len(o.Kinds) == 0 {
		o.Kinds = []string{"event"}
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	switch {
	case o.Pollers < 1 || o.Flushers < 1:
		return o, fmt.Errorf("set options: pollers %d, flushers %d: at least 1", o.Pollers, o.Flushers)
	case o.Shards < o.Flushers || o.Shards > 64*o.Flushers:
		return o, fmt.Errorf("set options: shards %d: 1 to 64 a flusher (%d)", o.Shards, o.Flushers)
	case o.Budget < 1 || o.Budget > 1<<30:
		return o, fmt.Errorf("set options: budget %d: 1 B to 1 GiB", o.Budget)
	case o.MaxMessage < 1 || o.MaxMessage > 1<<30:
		return o, fmt.Errorf("set options: max message %d: 1 B to 1 GiB", o.MaxMessage)
	case o.PingInterval > 0 && o.PingInterval < time.Second, o.PongTimeout < max(o.PingInterval, time.Second), o.PongTimeout > maxPong:
		return o, fmt.Errorf("set options: ping interval %v at least 1 s, pong timeout %v at least that, at most %v", o.PingInterval, o.PongTimeout, maxPong)
	case o.MessageTimeout < time.Second || o.MessageTimeout > maxPong:
		return o, fmt.Errorf("set options: message timeout %v: at least 1 s, at most %v", o.MessageTimeout, maxPong)
	case o.CloseTimeout < 0:
		return o, fmt.Errorf("set options: close timeout %v: not negative", o.CloseTimeout)
	case len(o.Kinds) > 255:
		return o, fmt.Errorf("set options: %d kinds: at most 255", len(o.Kinds))
	}
	return o, nil
}

// Engine owns sockets from their adoption to their end.
type Engine struct {
	// Static after New.
	opts    Options
	alloc   *Allocator
	parser  *parser
	zparser *parser // of sockets with permessage-deflate
	press   press
	shards  []*shard
	workers []*worker
	pollers []pollerStats
	nb      *nbio.Engine
	base    time.Time // of millis and of pings' stamps
	epoch   uint32    // unix seconds at base
	plain   sync.Pool // of *[plainSize]byte, TLS plaintext
	fields  func() *tlsFields
	addrs   *addrFields
	polls   *pollFields
	metrics *tallies

	nextShard atomic.Uint32
	now       atomic.Uint32 // the sweeper's clock: epoch and the seconds that the process ran since
	started   chan struct{} // closed when the pollers run

	gate    sync.RWMutex // held for reading while a descriptor is added
	stopped bool         // gate guards it: no more adoptions
}

// New makes an Engine; nothing runs before Run.
func New(o Options) (*Engine, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	e := &Engine{
		opts:    o,
		alloc:   NewAllocator(),
		base:    time.Now(),
		started: make(chan struct{}),
		pollers: make([]pollerStats, o.Pollers),
		fields:  sync.OnceValue(findTLSFields),
		addrs:   findAddrFields(),
		polls:   findPollFields(),
	}
	e.parser = &parser{client: o.Client, max: o.MaxMessage, alloc: e.alloc}
	e.zparser = &parser{client: o.Client, deflate: true, max: o.MaxMessage, alloc: e.alloc}
	e.plain.New = func() any { return new([plainSize]byte) }
	e.epoch = uint32(e.base.Unix())
	e.now.Store(e.epoch)
	for range o.Flushers {
		e.workers = append(e.workers, newWorker(len(o.Kinds)))
	}
	for i := range o.Shards {
		w := e.workers[i%o.Flushers]
		s := &shard{engine: e, worker: w, bit: 1 << len(w.shards)}
		w.shards = append(w.shards, s)
		e.shards = append(e.shards, s)
	}
	e.nb = nbio.NewEngine(nbio.Config{
		Name:           "loop",
		NPoller:        o.Pollers,
		EpollMod:       nbio.EPOLLLT,
		ReadBufferSize: 64 << 10,
		// A peer that sends and hangs up must be read to its end, for nbio
		// closes at the hang-up; one that never stops must leave room for others.
		MaxConnReadTimesPerEventLoop: 16,
		BodyAllocator:                e.alloc,
	})
	e.nb.OnData(e.onData)
	e.nb.OnClose(e.onClose)
	e.nb.OnWrittenSize(e.onWritten)
	e.metrics = newTallies(e)
	return e, nil
}

// settleStart is how long nbio's pollers are given to start: Stop before that
// is lost on them, and would wait for ever.
const settleStart = 100 * time.Millisecond

// Run serves until ctx ends, then closes all sockets (1001 and ErrClosed to
// their handlers) and returns when all that it started has ended. Call it once.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.nb.Start(); err != nil {
		return fmt.Errorf("start pollers: %w", err)
	}
	begin := time.Now()
	inner, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	for _, w := range e.workers {
		wg.Go(func() { w.run(inner) })
	}
	wg.Go(func() { e.sweep(inner) })
	close(e.started)

	<-ctx.Done()
	e.gate.Lock()
	e.stopped = true
	e.gate.Unlock()
	time.Sleep(settleStart - time.Since(begin))
	e.Each(func(c *Conn) { c.kill(End{Code: codeGoingAway, Local: true, Err: ErrClosed}) })
	e.nb.Stop()
	stop()
	wg.Wait()
	return nil
}

// Len is the number of sockets.
func (e *Engine) Len() int {
	n := 0
	for _, s := range e.shards {
		s.mu.Lock()
		n += s.table.len()
		s.mu.Unlock()
	}
	return n
}

// Each calls f for every socket, without a lock; those that come or go
// meanwhile are seen or not.
func (e *Engine) Each(f func(*Conn)) {
	buf := make([]*Conn, 0, walkStep)
	for _, s := range e.shards {
		s.walk(buf, f)
	}
}

// Ledger says what became of the event copies that Queue took, all at one
// moment: made = written + queued + discarded.
func (e *Engine) Ledger() (made, written, queued, discarded uint64) {
	for _, s := range e.shards {
		s.mu.Lock()
	}
	for _, s := range e.shards {
		made += s.ledger.made
		written += s.ledger.written
		queued += s.ledger.queued
		discarded += s.ledger.discarded
		s.mu.Unlock()
	}
	return made, written, queued, discarded
}

// millis is a monotonic clock.
func (e *Engine) millis() int64 { return time.Since(e.base).Milliseconds() }

// deadline is when a close that advanced now has run out.
func (e *Engine) deadline() int64 { return e.millis() + e.opts.CloseTimeout.Milliseconds() }
