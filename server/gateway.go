package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/natsx"
	"github.com/daisi/daisi-ws/redisx"
	"github.com/daisi/daisi-ws/rpc"
	"github.com/daisi/daisi-ws/session"
)

// Gateway is one pod: the only place where all parts meet. Made by New, alive
// while Run is; two of them live in one process without knowing each other.
type Gateway struct {
	// Static after New.
	opts   Options
	log    zerolog.Logger
	owner  session.Owner
	tally  *tally
	engine *loop.Engine
	nats   *natsx.Client
	edge   *edge
	ready  chan struct{} // closed when the first login can be served
	drain  chan struct{} // closed when an orderly stop was asked for
	end    *ending       // what time that has
	once   sync.Once     // closes drain

	// Set by Run, read by anybody.
	core  atomic.Pointer[core]
	phase atomic.Int32
	peers net.Listener // until it is served

	changing sync.Mutex // one change of the stream at a time
}

// Phases of a Gateway.
const (
	phaseStarting int32 = iota
	phaseServing
	phaseDraining
)

// core is what exists once NATS has said how many partitions there are.
type core struct {
	stream  atomic.Pointer[natsx.Stream]
	foreign atomic.Bool // the stream has another number of partitions now
	redis   *redisx.Client
	peers   *rpc.Service
	manager *session.Manager[*loop.Conn]
	index   *session.Index[*loop.Conn]
	revoked *revocations
	env     *partitionEnv
	replays *replays
	parts   []*partition
}

// New checks the options and wires what needs no connection. It starts nothing.
func New(o Options) (*Gateway, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("check options: %w", err)
	}
	g := &Gateway{
		opts: o, log: o.Log, owner: newOwner(o.PodID), ready: make(chan struct{}), drain: make(chan struct{}),
		end: &ending{timeout: o.Drain.Timeout},
	}
	g.tally = newTally(o.Metrics)
	if g.engine, err = newEngine(o); err != nil {
		return nil, err
	}
	if g.nats, err = newNATS(o); err != nil {
		return nil, err
	}
	users, admins, err := newVerifiers(o, lateCache{g})
	if err != nil {
		return nil, err
	}
	g.edge, err = newEdge(o, edgeEnv{
		owner: g.owner, engine: g.engine, users: users, admins: admins,
		status: g.status, core: g.edgeCore, publish: g.publish, drain: g.Drain, check: g.Check, pods: g.livePods, poison: g.nats.Poison,
		ending: g.end.step,
	})
	if err != nil {
		return nil, err
	}
	g.gauges()
	return g, nil
}

// newOwner names this start of the pod; the boot part never repeats.
func newOwner(pod string) session.Owner {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return session.Owner(pod + "@" + hex.EncodeToString(b[:]))
}

func newEngine(o Options) (*loop.Engine, error) {
	e, err := loop.New(loop.Options{
		Budget: o.Limits.SendBudget, MaxMessage: o.Limits.MaxMessage,
		PingInterval: o.Ping.Interval, PongTimeout: o.Ping.Timeout,
		Flood: &loop.ProtocolError{Code: session.ReasonRate.CloseCode(), What: session.ReasonRate.CloseText()},
		Kinds: eventKinds[:], Metrics: o.Metrics, Log: o.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("set up event loops: %w", err)
	}
	return e, nil
}

func newNATS(o Options) (*natsx.Client, error) {
	c, err := natsx.New(natsx.Options{
		URL: o.NATS.URL, InProcess: o.NATS.InProcess, Name: "daisi-ws " + o.PodID,
		Stream: o.NATS.Stream, CreateStream: o.NATS.CreateStream, EventsStream: o.NATS.EventsStream,
		Partitions: o.NATS.Partitions, MaxBytes: o.NATS.MaxBytes, MaxAge: o.Resume.Window + streamSlack,
		MaxEvent: o.Limits.MaxEvent, Metrics: o.Metrics, Log: o.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("set up NATS: %w", err)
	}
	return c, nil
}

// Owner is this start of this pod.
func (g *Gateway) Owner() session.Owner { return g.owner }

// Ready is closed when the first login can be served.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// Drain begins an orderly stop; Run returns when it is done, within
// Options.Drain.Timeout. Never blocks.
func (g *Gateway) Drain() { g.once.Do(func() { close(g.drain) }) }

// PublicAddr, InternalAddr and PeerAddr are where the ports really are, once
// Ready; for tests and for port 0.
func (g *Gateway) PublicAddr() string { return g.edge.public.Addr().String() }

// InternalAddr is the address of probes, metrics and the admin API.
func (g *Gateway) InternalAddr() string { return g.edge.internal.Addr().String() }

// PeerAddr is where other pods reach this one.
func (g *Gateway) PeerAddr() string { return g.opts.PodAddr }

// edgeCore is what the edge sees of the core.
func (g *Gateway) edgeCore() *edgeCore {
	c := g.core.Load()
	if c == nil || g.phase.Load() == phaseStarting {
		return nil
	}
	return &edgeCore{
		manager: c.manager, index: c.index, replays: c.replays, partitions: len(c.parts),
		stream: c.shown, last: g.lastSeq, late: c.late, revoker: revoker{c},
	}
}

func (g *Gateway) lastSeq(ctx context.Context) (uint64, error) {
	_, last, err := g.nats.LastSeq(ctx)
	return last, err
}

func (g *Gateway) livePods() []session.Pod {
	if c := g.core.Load(); c != nil {
		return c.redis.Live()
	}
	return nil
}

// shown is the stream that partition n counts in.
func (c *core) shown(n int) string { return *c.parts[n].shown.Load() }

func (c *core) streamID() string { return c.stream.Load().ID }

func (g *Gateway) publish(ctx context.Context, subject string, body []byte) error {
	_, err := g.nats.Publish(ctx, subject, body)
	return err
}
