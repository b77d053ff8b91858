package rpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/session"
)

// Sink takes what other pods send. Its methods are called from gRPC's
// goroutines and must not block.
type Sink interface {
	// Take hands over one batch; without events it is a progress report. The
	// batch and all it points to is the sink's own. ack tells the sender that
	// the watermark of the batch's partition has passed upto; it may be called
	// from any goroutine, at any time, never blocks, and does nothing once the
	// stream is gone. A sink that drops a batch need not ack it: the sender
	// then stops after Options.AckTimeout and probes.
	Take(b *session.Batch, ack func(upto uint64))
	// StreamOpened says that from can send now; StreamBroken that it can't any
	// more. They alternate for an owner, even when it connects twice.
	StreamOpened(from session.Owner)
	StreamBroken(from session.Owner)
}

// Options of a Service. Owner, Partitions, Stream, Sink and Creds must be set.
type Options struct {
	Owner      session.Owner // this start of this pod
	Partitions int           // of the events stream, 1-65536
	// Stream returns the id of the events stream that sequences belong to. It
	// is called for each batch, so it must be cheap and never block.
	Stream func() string
	Sink   Sink
	Creds  Creds

	QueueBytes int           // that may wait for one peer, from 64 KiB: 16 MiB
	MaxMessage int           // bytes of the largest message taken or sent, the same on all pods, 64 KiB-1 GiB: 8 MiB
	AckTimeout time.Duration // after which a peer that does not ack gets no more: 1 s
	// StreamAge is how long a stream of mutual TLS may last, from 1 s on: 1 h. Then
	// both pods show their certificates anew, so that one which was replaced, ran
	// out or lost its authority is good for no longer than that.
	StreamAge time.Duration

	// Legacy answers PushEvent by calling Push, which says how many sessions
	// the event was queued for. The event has no Seq. An empty Route.Chat means
	// every session of the agent.
	Legacy bool
	Push   func(ctx context.Context, ev session.Event) (delivered int, err error)

	Metrics *metrics.Set // nil: a private one
	Log     zerolog.Logger
}

// Bounds and defaults of Options.
const (
	minBytes       = 64 << 10
	maxMessage     = 1 << 30
	maxPartitions  = 1 << 16
	defaultQueue   = 16 << 20
	defaultMessage = 8 << 20
	defaultAck     = time.Second
	defaultAge     = time.Hour
)

func (o Options) withDefaults() (Options, error) {
	if o.QueueBytes == 0 {
		o.QueueBytes = defaultQueue
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = defaultMessage
	}
	if o.AckTimeout == 0 {
		o.AckTimeout = defaultAck
	}
	if o.StreamAge == 0 {
		o.StreamAge = defaultAge
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	var errs []error
	bad := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("rpc: "+format, args...))
		}
	}
	bad(o.Owner == "" || len(o.Owner) > maxOwner, "Owner must be 1-%d bytes", maxOwner)
	bad(o.Partitions < 1 || o.Partitions > maxPartitions, "Partitions must be 1-%d, not %d", maxPartitions, o.Partitions)
	bad(o.Stream == nil, "Stream is missing")
	bad(o.Sink == nil, "Sink is missing")
	bad(o.QueueBytes < minBytes, "QueueBytes must be %d at least, not %d", minBytes, o.QueueBytes)
	bad(o.MaxMessage < minBytes || o.MaxMessage > maxMessage, "MaxMessage must be %d-%d, not %d", minBytes, maxMessage, o.MaxMessage)
	bad(o.AckTimeout < 0, "AckTimeout must not be negative")
	bad(o.StreamAge < time.Second, "StreamAge must be a second at least, not %v", o.StreamAge)
	bad(o.Legacy && o.Push == nil, "Push is missing, which Legacy needs")
	if err := o.Creds.check(); err != nil {
		errs = append(errs, err)
	}
	return o, errors.Join(errs...)
}

// Service is both halves: it forwards to peers (Run) and serves them (Serve).
// Made by New; ends when the contexts of Run and Serve have.
type Service struct {
	// Static after New.
	opts    Options
	log     zerolog.Logger
	tally   *tally
	recv    *receiver
	dial    dialer // of peers; tests put another in its place
	pace    pace
	began   time.Time     // peers count time from here
	changed chan struct{} // capacity 1: peers to start

	// Read without a lock, replaced under mu.
	peers atomic.Pointer[map[session.Owner]*peer]
	gen   atomic.Uint64 // last stream generation given out

	mu sync.Mutex // guards the following
	// peers that wait for Run's goroutine; all of them when Run is not running.
	waiting []*peer
}

// New checks the options. It starts nothing.
func New(o Options) (*Service, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Service{
		opts:    o,
		log:     o.Log,
		pace:    defaultPace(),
		began:   time.Now(),
		changed: make(chan struct{}, 1),
	}
	s.recv = newReceiver(s)
	s.tally = newTally(o.Metrics, s.recv.served)
	s.dial = grpcDialer{opts: &s.opts}
	s.peers.Store(&map[session.Owner]*peer{})
	return s, nil
}

// Run keeps a stream open to each peer until ctx ends, and returns nil when all
// of them are closed. It may be run again, one at a time.
func (s *Service) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer s.rest()
	defer wg.Wait()
	for {
		for _, p := range s.takeWaiting() {
			wg.Go(func() { p.run(ctx) })
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Service) takeWaiting() []*peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.waiting
	s.waiting = nil
	return w
}

// rest makes all peers wait for the next Run.
func (s *Service) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = nil
	for _, p := range *s.peers.Load() {
		s.waiting = append(s.waiting, p)
	}
}

// SetPeers says who is alive, this pod among them or not. A peer is an owner at
// an address: a pod that was started again is another one. Streams to peers
// that are no longer listed are closed, and what waited for them is dropped.
// Call it with lists that were read, not when reading one failed.
func (s *Service) SetPeers(pods []session.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.peers.Load()
	next := make(map[session.Owner]*peer, len(pods))
	for _, pod := range pods {
		if pod.Owner == s.opts.Owner {
			continue
		}
		pod.Leaving = false // the same peer, whatever it is about to do
		if p := old[pod.Owner]; p != nil && p.pod == pod {
			next[pod.Owner] = p
		} else if q := next[pod.Owner]; q == nil || q.pod != pod {
			next[pod.Owner] = newPeer(s, pod)
		}
	}
	if maps.Equal(old, next) {
		return
	}
	s.peers.Store(&next)
	s.waiting = slices.DeleteFunc(s.waiting, func(p *peer) bool { return next[p.pod.Owner] != p })
	for owner, p := range old {
		if next[owner] != p {
			p.leave()
		}
	}
	for owner, p := range next {
		if old[owner] != p {
			s.waiting = append(s.waiting, p)
		}
	}
	s.tally.follow(s.opts.Metrics, &s.peers)
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Send queues b for a peer and never blocks. False: it was dropped and counted,
// because there is no such peer or no stream to it, its breaker is open, its
// queue is full, or it stopped acking. b must not change afterwards.
func (s *Service) Send(to session.Owner, b *session.Batch) bool {
	p := (*s.peers.Load())[to]
	if p == nil {
		s.tally.drop(dropNoPeer, 1)
		return false
	}
	return p.send(b)
}

// Stream is the generation of the current stream to a peer, 0 when there is
// none. Another generation than before: what was sent earlier may be lost, so
// the sender starts again from its own position.
func (s *Service) Stream(to session.Owner) uint64 {
	p := (*s.peers.Load())[to]
	if p == nil {
		return 0
	}
	return p.stream.Load()
}
