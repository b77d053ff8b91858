package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/daisi/daisi-ws/rpc/forwardpb"
	"github.com/daisi/daisi-ws/session"
)

// receiver knows all streams that peers opened to this pod.
type receiver struct {
	// Static after newReceiver.
	svc   *Service
	hello time.Duration // for a peer to say it

	wg sync.WaitGroup // readers; one may outlive its handler for a moment

	mu      sync.Mutex // guards the following, and the order of Sink's Stream… calls
	streams map[session.Owner]*inbound
	open    int    // handlers at work, also those that did not say hello
	said    string // last refusal that was logged
}

// inbound is one stream of one peer. The handler's goroutine writes, a second
// one reads.
type inbound struct {
	recv   *receiver
	stream grpc.ServerStream
	acks   *acks

	from     session.Owner // after hello
	streamID string        // of the events stream, as agreed on

	heard    chan struct{} // closed by the reader: frame holds the first frame
	accepted chan struct{} // closed by the handler: hello fits, go on
	over     chan struct{} // closed by the handler: it has returned
	replaced chan struct{} // closed by another handler: this peer came again
	ended    chan error    // capacity 1: why the reader ended
	frame    *inFrame      // the reader's, but for the time between heard and accepted
}

var (
	errStopping = status.Error(codes.Unavailable, "this pod is stopping")
	errReplaced = status.Error(codes.Aborted, "the peer opened another stream")
	errTooMany  = status.Error(codes.ResourceExhausted, fmt.Sprintf("more than %d streams", maxStreams))
	errNoHello  = status.Error(codes.DeadlineExceeded, "no hello in time")
	errOther    = status.Error(codes.FailedPrecondition, "the id of the events stream changed")
)

func newReceiver(s *Service) *receiver {
	return &receiver{svc: s, hello: s.pace.hello, streams: map[session.Owner]*inbound{}}
}

// serve is the handler of one stream, from hello to its end.
func (r *receiver) serve(ctx context.Context, stream grpc.ServerStream) error {
	if !r.enter(1) {
		return errTooMany
	}
	defer r.enter(-1)
	in := &inbound{
		recv:     r,
		stream:   stream,
		acks:     newAcks(r.svc.opts.Partitions),
		heard:    make(chan struct{}),
		accepted: make(chan struct{}),
		over:     make(chan struct{}),
		replaced: make(chan struct{}),
		ended:    make(chan error, 1),
		frame:    newInFrame(r.svc.opts.Partitions),
	}
	defer close(in.over)
	r.wg.Go(func() { in.ended <- in.read() })
	if err := in.greet(ctx); err != nil {
		r.svc.tally.refused.Inc()
		return err
	}
	r.register(in)
	defer r.forget(in)
	answer := &forwardpb.Frame{Frame: &forwardpb.Frame_Hello{Hello: r.svc.helloOf(in.streamID)}}
	if err := stream.SendMsg(answer); err != nil {
		return err
	}
	close(in.accepted)
	return in.write(ctx)
}

// enter counts handlers; false: there are too many.
func (r *receiver) enter(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n > 0 && r.open >= maxStreams {
		return false
	}
	r.open += n
	return true
}

// register makes in the stream of its peer, and ends the one before: a peer
// that lost a connection may be back before we hear of the loss.
func (r *receiver) register(in *inbound) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.streams[in.from]; old != nil {
		close(old.replaced)
		r.svc.opts.Sink.StreamBroken(in.from)
	}
	r.streams[in.from] = in
	r.svc.opts.Sink.StreamOpened(in.from)
}

// forget does nothing when in was replaced.
func (r *receiver) forget(in *inbound) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.streams[in.from] == in {
		delete(r.streams, in.from)
		r.svc.opts.Sink.StreamBroken(in.from)
	}
}

func (r *receiver) served() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.streams)
}

// complain logs a refusal once, until it is another one: a peer comes again
// every few seconds.
func (r *receiver) complain(owner string, err error) {
	owner = owner[:min(len(owner), maxOwner)]
	text := owner + ": " + err.Error()
	r.mu.Lock()
	again := text == r.said
	r.said = text
	r.mu.Unlock()
	if !again {
		r.svc.log.Warn().Err(err).Str("peer", owner).Msg("refused a peer")
	}
}

// greet waits for the peer's hello and compares it with ours.
func (in *inbound) greet(ctx context.Context) error {
	late := time.NewTimer(in.recv.hello)
	defer late.Stop()
	select {
	case <-in.heard:
	case err := <-in.ended:
		return err
	case <-late.C:
		return errNoHello
	case <-ctx.Done():
		return errStopping
	}
	if in.frame.kind != tagFrameHello {
		return badFrame("the first frame must be hello")
	}
	id := in.recv.svc.opts.Stream()
	if err := checkHello(in.recv.svc.helloOf(id), in.frame.hello); err != nil {
		in.recv.complain(in.frame.hello.OwnerId, err)
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	in.from, in.streamID = session.Owner(in.frame.hello.OwnerId), id
	return nil
}

// write sends acks until the stream ends, for whatever reason.
func (in *inbound) write(ctx context.Context) error {
	var f outFrame
	for {
		select {
		case <-in.acks.wake:
			for in.acks.next(&f.ack) {
				if err := in.stream.SendMsg(&f); err != nil {
					return err
				}
			}
		case err := <-in.ended:
			return err
		case <-in.replaced:
			return errReplaced
		case <-ctx.Done():
			return errStopping
		}
	}
}

// read takes frames until the stream ends; nil: the peer closed it.
func (in *inbound) read() (err error) {
	defer in.recv.svc.recovered(&err)
	if err := in.next(); err != nil {
		return err
	}
	close(in.heard)
	select {
	case <-in.accepted:
	case <-in.over:
		return nil
	}
	for {
		if err := in.next(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := in.take(); err != nil {
			return err
		}
	}
}

func (in *inbound) next() error {
	if err := in.stream.RecvMsg(in.frame); err != nil {
		return err
	}
	if err := in.frame.err; err != nil {
		in.recv.svc.tally.garbage.Inc()
		return badFrame("decode frame: %v", err)
	}
	return nil
}

// take hands the frame's batches to the sink.
func (in *inbound) take() error {
	select {
	case <-in.replaced:
		return errReplaced // the sink was told that this stream is broken
	default:
	}
	f, svc := in.frame, in.recv.svc
	if in.streamID != svc.opts.Stream() {
		return errOther
	}
	switch f.kind {
	case tagFrameBatch:
		f.batch.Stream = in.streamID
		svc.tally.took(1, len(f.batch.Events))
		svc.opts.Sink.Take(f.batch, in.acks.of(f.batch.N))
	case tagFrameProgress:
		svc.tally.took(len(f.marks), 0)
		for _, b := range f.marks {
			b.Stream = in.streamID
			ack := in.acks.of(b.N)
			if isSign(b) {
				ack = unasked
			}
			svc.opts.Sink.Take(b, ack)
		}
	default:
		return badFrame("only batch and progress may follow hello")
	}
	return nil
}

// unasked is the ack of what its sender wants none for.
func unasked(uint64) {}

// badFrame is the status of a stream that a peer broke by what it sent.
func badFrame(format string, args ...any) error {
	return status.Error(codes.InvalidArgument, fmt.Sprintf(format, args...))
}
