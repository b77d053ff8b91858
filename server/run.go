package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/natsx"
	"github.com/daisi/daisi-ws/redisx"
	"github.com/daisi/daisi-ws/rpc"
	"github.com/daisi/daisi-ws/session"
)

const (
	streamSlack = time.Minute            // our stream keeps the resume window and this
	liveEvery   = 500 * time.Millisecond // peers follow the live list
	firstAssert = 200 * time.Millisecond // between looks at whether all partitions stand
	leaving     = time.Second            // Redis is given for the word that this pod leaves
)

// Run is the gateway's life. It starts leaf first, serves until ctx ends or
// Drain is called, and stops in reverse: no new logins, no more pulling,
// sockets drained at a pace, locks and routes given back, peers, Redis, NATS;
// all of that within Options.Drain.Timeout, whatever hangs.
// The error is that of a start that can never succeed: a port taken, an option
// that Redis or NATS contradict.
func (g *Gateway) Run(ctx context.Context) error {
	if err := g.listen(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-g.drain:
		case <-ctx.Done():
		}
		g.end.begin()
		cancel()
	}()
	var running stack
	defer running.stop()
	running.push(g.start("internal", g.edge.runInternal))
	running.push(g.start("memory", keepMemoryLow))
	g.nats.OnStream(g.streamChanged)
	running.push(g.start("nats", g.nats.Run))
	public := g.start("public", g.edge.runPublic)
	stream, err := g.nats.Ready(ctx)
	if err != nil {
		public.stop()
		return stopped(ctx, err)
	}
	c, err := g.newCore(stream)
	if err != nil {
		public.stop()
		return err
	}
	running.push(g.start("redis", c.redis.Run))
	running.push(g.start("loop", g.engine.Run)) // stops before Redis: ends free locks
	running.push(g.start("rpc", func(ctx context.Context) error { return g.servePeers(ctx, c) }))
	running.push(g.start("peers", c.peers.Run))
	g.core.Store(c)
	if now := g.nats.Stream(); now.ID != stream.ID {
		g.streamChanged(now) // before core was there to be told
	}
	for _, p := range c.parts {
		running.push(g.start("partition", p.Run))
	}
	running.push(g.start("sessions", c.manager.Run))
	running.push(g.start("replays", c.replays.Run))
	running.push(g.start("revocations", c.revoked.Run))
	r := &readers{
		env: g.dispatchEnv(c), partitions: len(c.parts), run: g.keep,
		others: func(n int) int64 { return c.parts[n].other.Load() }, ending: g.end.step,
	}
	reading := g.start("readers", r.Run)
	following := g.start("stream", g.followLive)
	if g.awaitAsserted(ctx, c) {
		g.phase.Store(phaseServing)
		close(g.ready)
		g.log.Info().Str("owner", string(g.owner)).Int("partitions", len(c.parts)).
			Str("public", g.PublicAddr()).Str("internal", g.InternalAddr()).Msg("ready")
		<-ctx.Done()
	}
	g.stopServing(c, public, reading)
	following.stop()
	return nil
}

// stopServing is the part of the stop that clients notice. Two thirds of what is
// left when nothing is read any more are for telling them at a pace.
func (g *Gateway) stopServing(c *core, public, reading *component) {
	g.phase.Store(phaseDraining)
	g.edge.gate.draining.Store(true)
	bound, cancel := context.WithTimeout(context.Background(), g.end.step(leaving))
	defer cancel()
	if err := c.redis.LeaveLive(bound); err != nil {
		g.log.Warn().Err(err).Msg("could not leave the live list; others notice within the lease")
	}
	reading.stop() // reads on for its successors, up to handover
	g.drained(c, g.end.left()*2/3)
	public.stop() // waits for logins that were let in before
	g.drained(c, g.end.left()/4)
	g.awaitFlushed()
}

// servePeers serves the port of the start; after a fault it binds anew.
func (g *Gateway) servePeers(ctx context.Context, c *core) error {
	l := g.peers
	if g.peers = nil; l == nil {
		var lc net.ListenConfig
		var err error
		if l, err = lc.Listen(ctx, "tcp", g.opts.RPC.Addr); err != nil {
			return fmt.Errorf("listen on %s: %w", g.opts.RPC.Addr, err)
		}
	}
	return c.peers.Serve(ctx, l)
}

// stack stops what was pushed, last first, each fully before the next.
type stack []*component

func (s *stack) push(c *component) { *s = append(*s, c) }

func (s *stack) stop() {
	for i := len(*s) - 1; i >= 0; i-- {
		(*s)[i].stop()
	}
}

// stopped is nil when the start was only interrupted.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// listen binds all ports, so that a port that is taken is said at once.
func (g *Gateway) listen() error {
	if err := g.edge.listen(); err != nil {
		g.edge.close()
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", g.opts.RPC.Addr)
	if err != nil {
		g.edge.close()
		return fmt.Errorf("listen on %s: %w", g.opts.RPC.Addr, err)
	}
	g.peers = l
	if host, port, err := net.SplitHostPort(g.opts.PodAddr); err == nil && port == "0" {
		g.opts.PodAddr = net.JoinHostPort(host, portOf(l.Addr().String()))
	}
	return nil
}

// keep runs a component that somebody else waits for.
func (g *Gateway) keep(ctx context.Context, name string, f func(context.Context) error) {
	keep(ctx, g.log, g.tally, name, f)
}

// newCore makes all that depends on the number of partitions. Watermarks start
// at the stream's end: nothing stored before was promised to anybody here.
func (g *Gateway) newCore(stream natsx.Stream) (*core, error) {
	c := &core{}
	c.stream.Store(&stream)
	var err error
	c.redis, err = redisx.New(redisx.Options{
		URL: g.opts.Redis.URL, Owner: g.owner, Addr: g.opts.PodAddr, Partitions: stream.Partitions,
		LockTTL: g.opts.Session.TTL, LeaseTTL: g.opts.Session.LeaseTTL, Takeovers: g.opts.Session.Takeovers,
		OnUnsure:   func(n int) { c.parts[n].Doubt() },
		OnFailover: func(n int, age time.Duration) { c.parts[n].FailedOver(bootTime() - age) },
		Metrics:    g.opts.Metrics, Log: g.log,
	})
	if err != nil {
		return nil, fmt.Errorf("set up Redis: %w", err)
	}
	if c.peers, err = g.newPeers(c); err != nil {
		return nil, err
	}
	if c.manager, err = g.newManager(c); err != nil {
		return nil, err
	}
	c.revoked = newRevocations(c.redis, c.manager.SetRevocations, g.opts.Metrics, g.log)
	c.index = c.manager.Index()
	c.env = &partitionEnv{
		index: c.index, manager: c.manager, redis: c.redis, stream: g.nats, tally: g.tally, lease: g.opts.Session.LeaseTTL,
		slowRoom: slowRoom(g.opts.Limits),
		missed:   g.missed, routesLost: g.routesLost, revoked: c.revoked.Await, heard: c.revoked.AwaitHeard,
	}
	for n := range stream.Partitions {
		c.index.SetWatermark(n, stream.Last)
		c.parts = append(c.parts, newPartition(n, stream.ID, c.env))
	}
	c.replays = newReplays(g.opts, replayEnv{
		index: c.index, manager: c.manager, stream: g.nats, id: func() string { return g.nats.Stream().ID },
		shown: c.shown, partitions: stream.Partitions, revoked: c.revoked.Await,
	})
	c.redis.OnKill(new(faults).killed(c.manager.Killed))
	c.redis.OnResubscribe(c.manager.SweepAll)
	c.redis.OnBeat(func(_ []session.Pod, version uint64) { c.revoked.Beat(version) })
	return c, nil
}

// killed ends sessions of key below epoch, and calls answer when that was done.
type killed = func(key session.Key, epoch uint64, answer func())

func (g *Gateway) newManager(c *core) (*session.Manager[*loop.Conn], error) {
	m, err := session.NewManager(session.Options[*loop.Conn]{
		Owner: g.owner, Partitions: c.stream.Load().Partitions,
		Locks: c.redis, Renewer: c.redis, Routes: c.redis, Killer: c.redis, Parts: partitions{c},
		Reject:   g.opts.Session.Conflict == ConflictReject,
		Live:     func(o session.Owner) bool { return isLive(c.redis.Live(), o) },
		Refresh:  func(ctx context.Context) error { return c.revoked.Refresh(ctx) },
		Farewell: farewell, Metrics: g.opts.Metrics, Log: g.log,
	})
	if err != nil {
		return nil, fmt.Errorf("set up sessions: %w", err)
	}
	return m, nil
}

func (g *Gateway) newPeers(c *core) (*rpc.Service, error) {
	creds, err := newCreds(g.opts)
	if err != nil {
		return nil, err
	}
	s, err := rpc.New(rpc.Options{
		Owner: g.owner, Partitions: c.stream.Load().Partitions, Stream: c.streamID, Sink: sink{c},
		Creds: creds, QueueBytes: g.opts.RPC.PeerQueue, Legacy: g.opts.RPC.Legacy, Push: c.push,
		MaxMessage: 2*g.opts.Limits.MaxEvent + 4<<20,
		Metrics:    g.opts.Metrics, Log: g.log,
	})
	if err != nil {
		return nil, fmt.Errorf("set up peers: %w", err)
	}
	return s, nil
}

func (g *Gateway) dispatchEnv(c *core) *dispatchEnv {
	return &dispatchEnv{
		self: g.owner, reader: func(n int, after uint64) eventReader { return g.nats.Reader(n, after) },
		stream: g.nats, redis: c.redis, live: c.redis.Live, peers: c.peers, heard: c.revoked.Heard, tally: g.tally,
		local: func(b *session.Batch) bool { return c.parts[b.N].Offer(parcel{batch: b}) },
		start: func(n int) (string, uint64) { return c.parts[n].Position() },
	}
}

// followLive keeps the peers those of the live list.
func (g *Gateway) followLive(ctx context.Context) error {
	c := g.core.Load()
	for {
		if live := c.redis.Live(); len(live) > 0 {
			c.peers.SetPeers(live)
		}
		if !pause(ctx, liveEvery) {
			return nil
		}
	}
}

// awaitAsserted waits until every partition stands; false: ctx ended first.
func (g *Gateway) awaitAsserted(ctx context.Context, c *core) bool {
	for n := 0; n < len(c.parts); {
		if c.parts[n].Inc() != "" && c.parts[n].whole.Load() {
			n++
		} else if !pause(ctx, firstAssert) {
			return false
		}
	}
	return true
}

// partitions is the delivery side as session sees it.
type partitions struct{ c *core }

var _ session.Partitions = partitions{}

func (p partitions) Assert(ctx context.Context, n int) error { return p.c.parts[n].Assert(ctx) }
func (p partitions) Inc(n int) string                        { return p.c.parts[n].Inc() }

// sink takes what peers send.
type sink struct{ c *core }

var _ rpc.Sink = sink{}

func (s sink) Take(b *session.Batch, ack func(upto uint64)) {
	if b.N >= 0 && b.N < len(s.c.parts) {
		s.c.parts[b.N].Offer(parcel{batch: b, ack: ack})
	}
}

func (s sink) StreamOpened(session.Owner) {}

// StreamBroken makes every partition look for itself until news comes: which
// of them that pod served is not worth knowing, a look costs little.
func (s sink) StreamBroken(session.Owner) {
	for _, p := range s.c.parts {
		p.Broken()
	}
}
