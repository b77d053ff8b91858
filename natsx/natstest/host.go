package natstest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const storeTimeout = 30 * time.Second

// Host is what both kinds of server have: an address, and short ways to do
// from outside what publishers and operators do.
type Host struct {
	// URL is nats://127.0.0.1:port; it survives Restart.
	URL string
}

// Conn connects, for ever reconnecting; closed with the test.
func (h Host) Conn(t testing.TB) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(h.URL, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.RetryOnFailedConnect(true), nats.Timeout(5*time.Second),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // servers are killed on purpose
	if err != nil {
		t.Fatalf("cannot connect to %s: %s", h.URL, err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// JetStream connects.
func (h Host) JetStream(t testing.TB) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(h.Conn(t))
	if err != nil {
		t.Fatalf("cannot use jetstream: %s", err)
	}
	return js
}

// MakeStream makes a stream of these subjects, or finds it there.
func (h Host) MakeStream(t testing.TB, name string, subjects ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := h.JetStream(t).CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: subjects})
	if err != nil {
		t.Fatalf("cannot make stream %s: %s", name, err)
	}
}

// DeleteStream deletes a stream, which may be gone already.
func (h Host) DeleteStream(t testing.TB, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.JetStream(t).DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Fatalf("cannot delete stream %s: %s", name, err)
	}
}

// DeleteConsumers deletes all consumers of a stream and says how many.
func (h Host) DeleteConsumers(t testing.TB, stream string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := h.JetStream(t).Stream(ctx, stream)
	if err != nil {
		t.Fatalf("cannot find stream %s: %s", stream, err)
	}
	names, n := s.ConsumerNames(ctx), 0
	for name := range names.Name() {
		if err := s.DeleteConsumer(ctx, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			t.Fatalf("cannot delete consumer %s: %s", name, err)
		}
		n++
	}
	if names.Err() != nil {
		t.Fatalf("cannot list consumers of %s: %s", stream, names.Err())
	}
	return n
}

// Publisher publishes to a stream as its publisher does; not for concurrent
// use.
type Publisher struct {
	t  testing.TB
	js jetstream.JetStream

	failed atomic.Pointer[error] // the latest of Send, told by Flush
}

// Publisher connects one.
func (h Host) Publisher(t testing.TB) *Publisher {
	t.Helper()
	p := &Publisher{t: t}
	js, err := jetstream.New(h.Conn(t), jetstream.WithPublishAsyncMaxPending(1024),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { p.failed.Store(&err) }))
	if err != nil {
		t.Fatalf("cannot use jetstream: %s", err)
	}
	p.js = js
	return p
}

// Publish stores one message and returns its sequence in that stream.
func (p *Publisher) Publish(subject, body string) uint64 {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ack, err := p.js.Publish(ctx, subject, []byte(body))
	if err != nil {
		p.t.Fatalf("cannot publish to %s: %s", subject, err)
	}
	return ack.Sequence
}

// Send stores one message without waiting; Flush waits for all sent.
func (p *Publisher) Send(subject string, body []byte) {
	p.t.Helper()
	if _, err := p.js.PublishAsync(subject, body, jetstream.WithStallWait(storeTimeout)); err != nil {
		p.t.Fatalf("cannot publish to %s: %s", subject, err)
	}
}

// Flush waits until all that was sent is stored.
func (p *Publisher) Flush() {
	p.t.Helper()
	select {
	case <-p.js.PublishAsyncComplete():
	case <-time.After(storeTimeout):
		p.t.Fatalf("%d messages still unstored after %s", p.js.PublishAsyncPending(), storeTimeout)
	}
	if err := p.failed.Load(); err != nil {
		p.t.Fatalf("cannot publish: %s", *err)
	}
}
