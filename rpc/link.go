package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daisi/daisi-ws/rpc/forwardpb"
)

// dialer opens the stream to a peer; grpcDialer outside tests.
type dialer interface {
	// dial returns a stream that ends with ctx.
	dial(ctx context.Context, addr string) (link, error)
}

// link is one open stream to a peer. send and recv may run at once, each by
// one goroutine; both fail when the stream's context ends.
type link interface {
	send(m any) error
	recv(f *inFrame) error
	close()
}

// errRefused marks answers that trying again soon won't change.
var errRefused = errors.New("peer refused")

var errHelloTimeout = errors.New("peer did not say hello in time")

// connect serves one stream from dial to its end, and always says why it ended;
// opened is when hello was exchanged, which done is told of; 0 if it was not.
func (p *peer) connect(parent context.Context, done func(error)) (opened time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	hurry := time.AfterFunc(p.svc.pace.hello, func() { cancel(errHelloTimeout) })
	defer hurry.Stop()

	streamID := p.svc.opts.Stream()
	l, err := p.svc.dial.dial(ctx, p.pod.Addr)
	if err != nil {
		return 0, causeOf(ctx, err)
	}
	defer l.close()
	in := newInFrame(p.svc.opts.Partitions)
	if err := p.greet(l, in, streamID); err != nil {
		return 0, causeOf(ctx, err)
	}
	if !hurry.Stop() {
		return 0, causeOf(ctx, errHelloTimeout)
	}
	done(nil)
	opened = p.open(streamID, func() { cancel(errStreamChanged) })
	defer p.shut()
	return opened, p.exchange(ctx, cancel, l, in)
}

// errAged ends a stream that was open for long enough; the next one follows at
// once.
var errAged = errors.New("the stream is old: certificates are to be shown again")

// age is when a stream is too old; never, where there are no certificates.
// Spread, so that the streams of pods that started together do not end so.
func (s *Service) age() (at <-chan time.Time, stop func() bool) {
	if s.opts.Creds.Insecure {
		return nil, func() bool { return true }
	}
	t := time.NewTimer(s.opts.StreamAge/2 + jitter(s.opts.StreamAge/2))
	return t.C, t.Stop
}

var errStreamChanged = errors.New("the id of the events stream changed")

// greet exchanges hellos and compares them.
func (p *peer) greet(l link, in *inFrame, streamID string) error {
	mine := p.svc.helloOf(streamID)
	if err := l.send(&forwardpb.Frame{Frame: &forwardpb.Frame_Hello{Hello: mine}}); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("say hello: %w", err)
	}
	// After an EOF, recv tells what the peer said.
	if err := l.recv(in); err != nil {
		if status.Code(err) == codes.FailedPrecondition {
			return fmt.Errorf("%w: %s", errRefused, status.Convert(err).Message())
		}
		return fmt.Errorf("wait for hello: %w", err)
	}
	if in.err != nil {
		return fmt.Errorf("%w by us: read its hello: %w", errRefused, in.err)
	}
	if in.kind != tagFrameHello {
		return fmt.Errorf("%w: it did not begin with hello", errRefused)
	}
	if err := checkHello(mine, in.hello); err != nil {
		return fmt.Errorf("%w by us: %w", errRefused, err)
	}
	if in.hello.OwnerId != string(p.pod.Owner) {
		return fmt.Errorf("%w by us: it is %q, not %q as the live list says", errRefused, in.hello.OwnerId, p.pod.Owner)
	}
	return nil
}

func (s *Service) helloOf(streamID string) *forwardpb.Hello {
	return &forwardpb.Hello{
		Version:    wireVersion,
		OwnerId:    string(s.opts.Owner),
		Partitions: uint32(s.opts.Partitions),
		Stream:     streamID,
	}
}

// checkHello says what keeps two pods from talking.
func checkHello(mine, other *forwardpb.Hello) error {
	switch {
	case other.Version != mine.Version:
		return fmt.Errorf("protocol version is %d there, %d here", other.Version, mine.Version)
	case other.OwnerId == "" || len(other.OwnerId) > maxOwner:
		return fmt.Errorf("owner id must be 1-%d bytes", maxOwner)
	case other.OwnerId == mine.OwnerId:
		return fmt.Errorf("owner id %q is our own", mine.OwnerId)
	case other.Partitions != mine.Partitions:
		return fmt.Errorf("the events stream has %d partitions there, %d here", other.Partitions, mine.Partitions)
	case other.Stream != mine.Stream:
		return fmt.Errorf("the events stream is %q there, %q here", other.Stream, mine.Stream)
	}
	return nil
}

// open begins a generation.
func (p *peer) open(streamID string, broke context.CancelFunc) time.Duration {
	p.said = ""
	p.log.Info().Msg("stream to peer is open")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.streamID, p.broke = streamID, broke
	p.stream.Store(p.svc.gen.Add(1))
	return time.Since(p.svc.began)
}

// shut ends a generation: what still waits is dropped, for the receiver reads
// it itself before it could come here again.
func (p *peer) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stream.Store(0)
	p.svc.tally.drop(dropBroken, p.queue.batches)
	p.queue = newQueue(p.svc.opts.QueueBytes, p.svc.opts.MaxMessage)
	clear(p.ledgers)
	p.isBusy = false
}

// exchange writes what is queued and reads acks until the stream ends.
func (p *peer) exchange(ctx context.Context, cancel context.CancelCauseFunc, l link, in *inFrame) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil) // so that the reader ends
	wg.Go(func() {
		// The status of a stream is what recv returns; a write only sees EOF.
		cancel(p.readAcks(l, in))
	})
	aged, stop := p.svc.age()
	defer stop()
	var f outFrame
	for {
		for p.next(&f) {
			err := l.send(&f)
			if p.wrote(&f, err); err != nil {
				if errors.Is(err, io.EOF) {
					<-ctx.Done() // the reader knows more
				}
				return causeOf(ctx, fmt.Errorf("send to peer: %w", err))
			}
		}
		select {
		case <-p.wake:
		case <-aged:
			return errAged
		case <-ctx.Done():
			return causeOf(ctx, ctx.Err())
		}
	}
}

func (p *peer) next(f *outFrame) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.queue.take(f) {
		return false
	}
	p.isBusy, p.writing = true, time.Since(p.svc.began)
	return true
}

// wrote gives f back to the queue; with an error it stays there, for shut.
func (p *peer) wrote(f *outFrame, err error) {
	if err != nil {
		return
	}
	p.mu.Lock()
	p.isBusy = false
	batches, events := p.queue.written(f)
	p.mu.Unlock()
	p.svc.tally.sent(batches, events)
}

// readAcks ends with the stream.
func (p *peer) readAcks(l link, in *inFrame) error {
	for {
		if err := l.recv(in); err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("peer ended the stream")
			}
			return fmt.Errorf("read from peer: %w", err)
		}
		if in.err != nil {
			p.svc.tally.garbage.Inc()
			return fmt.Errorf("decode frame of peer: %w", in.err)
		}
		if in.kind != tagFrameAck {
			return errors.New("peer sent something that is no ack")
		}
		p.acked(in.ack)
	}
}

func (p *peer) acked(m mark) {
	now := time.Since(p.svc.began)
	p.mu.Lock()
	l := p.ledgers[m.n]
	var at time.Duration
	some := false
	if l != nil {
		at, some = l.ack(m.upto)
	}
	p.mu.Unlock()
	if some {
		p.svc.tally.ackSeconds.Update((now - at).Seconds())
	}
}

// causeOf prefers why ctx ended to what that made fail.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}
