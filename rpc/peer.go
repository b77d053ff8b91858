package rpc

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/sony/gobreaker/v2"

	"github.com/daisi/daisi-ws/session"
)

// headRoom is more than a Batch takes beside its events and fences.
const headRoom = 1 << 10

// peer is the sending half toward one other pod. Made by SetPeers, run by
// Service.Run, ended by leave or by the end of Run. It never retries a batch.
type peer struct {
	// Static after newPeer.
	svc     *Service
	pod     session.Pod
	log     zerolog.Logger
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	left    context.Context // ends when the pod leaves the live list
	leave   context.CancelFunc
	wake    chan struct{} // capacity 1: something waits

	stream atomic.Uint64 // generation, 0: none; written under mu

	// Owned by run.
	backoff time.Duration
	said    string // last trouble that was logged

	mu sync.Mutex // guards the following
	// queue is empty and ledgers are clear while there is no stream.
	queue    queue
	ledgers  map[int]*ledger // by partition
	streamID string          // of the events stream, as agreed on
	broke    context.CancelFunc
	writing  time.Duration // when the frame that is being written was taken
	isBusy   bool          // a frame is being written
}

func newPeer(s *Service, pod session.Pod) *peer {
	p := &peer{
		svc:     s,
		pod:     pod,
		log:     s.log.With().Str("peer", string(pod.Owner)).Str("addr", pod.Addr).Logger(),
		wake:    make(chan struct{}, 1),
		queue:   newQueue(s.opts.QueueBytes, s.opts.MaxMessage),
		ledgers: map[int]*ledger{},
		breaker: gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
			Timeout:     s.pace.breakerOpen,
			ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= s.pace.failures },
		}),
	}
	p.left, p.leave = context.WithCancel(context.Background())
	return p
}

// send queues b or says why not.
func (p *peer) send(b *session.Batch) bool {
	why := p.offer(b)
	if why != dropNone {
		p.svc.tally.drop(why, 1)
		return false
	}
	select {
	case p.wake <- struct{}{}:
	default: // it is awake
	}
	return true
}

func (p *peer) offer(b *session.Batch) drop {
	if p.stream.Load() == 0 {
		return p.absent()
	}
	content := contentSize(b)
	now := time.Since(p.svc.began)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stream.Load() == 0 {
		return p.absent()
	}
	if p.streamID != p.svc.opts.Stream() {
		p.broke() // sequences of another stream would mean something else there
		return dropStreamChanged
	}
	if b.Stream != p.streamID {
		return dropStreamChanged // read before the change, looked up for long
	}
	if content+headRoom > p.svc.opts.MaxMessage {
		return dropTooBig
	}
	if p.stuck(now) {
		return dropStalled
	}
	l := p.ledgers[b.N]
	if l == nil {
		l = &ledger{}
		p.ledgers[b.N] = l
	}
	sign := isSign(b) // no ack is due, so it neither waits for one nor takes a probe's place
	if !sign && !l.admit(now, p.svc.opts.AckTimeout) {
		return dropUnacked
	}
	if !p.queue.push(b, content, now) {
		return dropFull
	}
	if !sign {
		l.add(b.Upto, now)
	}
	return dropNone
}

func (p *peer) absent() drop {
	if p.breaker.State() == gobreaker.StateOpen {
		return dropBreaker
	}
	return dropNoStream
}

// stuck says that the peer does not read: what is being written, or waits
// first, has done so for too long.
func (p *peer) stuck(now time.Duration) bool {
	since, waits := p.queue.oldest()
	if p.isBusy {
		since, waits = p.writing, true
	}
	return waits && now-since > p.svc.opts.AckTimeout
}

// run keeps a stream open until ctx ends or the pod leaves.
func (p *peer) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.left, cancel)()
	for ctx.Err() == nil {
		sleep(ctx, p.attempt(ctx))
	}
}

// attempt opens a stream, serves it to its end, and says how long to wait
// before the next.
func (p *peer) attempt(ctx context.Context) time.Duration {
	pace := &p.svc.pace
	done, err := p.breaker.Allow()
	if err != nil {
		return jitter(pace.breakerPoll)
	}
	opened, err := p.connect(ctx, done)
	if opened == 0 {
		done(err) // else connect has said that it went well
	}
	if ctx.Err() != nil {
		return 0
	}
	if errors.Is(err, errAged) {
		p.backoff = 0
		return 0
	}
	p.complain(err)
	switch {
	case errors.Is(err, errRefused):
		return jitter(pace.refused)
	case opened > 0 && time.Since(p.svc.began)-opened >= pace.steady:
		p.backoff = 0
	}
	p.backoff = min(max(2*p.backoff, pace.backoffMin), pace.backoffMax)
	return jitter(p.backoff)
}

// complain logs a trouble once, until it is another one.
func (p *peer) complain(err error) {
	if text := err.Error(); text != p.said {
		p.said = text
		p.log.Warn().Err(err).Msg("no stream to peer; events reach it through the stream it reads itself")
	}
}

// queued is how many bytes wait, for metrics.
func (p *peer) queued() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue.bytes
}
