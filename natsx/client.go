package natsx

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	watchEvery = time.Second
	// nudgeGap bounds how often a nudge may bring a look forward.
	nudgeGap = 100 * time.Millisecond
	// freshLook is how old the last good look may be for a Reader to trust
	// that its server is there.
	freshLook = watchEvery + watchEvery/2
	// staleLook is how old the last good look may be while all is well.
	staleLook = 5 * time.Second
)

// Client is the one connection of a process to NATS.
type Client struct {
	// Static after New.
	o       Options
	servers string
	dial    []nats.Option
	m       *clientMetrics
	pull    pullRequests
	wake    chan struct{} // a reader met a stream that is not as it was
	ready   chan struct{} // closed with the first incarnation

	// Written by Run, read by anybody.
	nc  atomic.Pointer[nats.Conn]
	cur atomic.Pointer[incarnation]
	// reconnects moves with each new connection: pulls are lost then.
	reconnects atomic.Uint64

	poison poisonRing

	// mu guards the following.
	mu       sync.Mutex
	health   error // of the last look
	looked   time.Time
	onStream []func(Stream)
	readers  map[*Reader]struct{} // for the lag gauge

	ends questions // for the stream's end
}

// incarnation is one life of our events stream. Readers hold the one they
// began with and compare pointers.
type incarnation struct {
	id         string
	partitions int

	first, last atomic.Uint64             // as of the last look
	seen        atomic.Uint64             // highest sequence that anybody saw: ours rewinds when the last falls below it
	looked      atomic.Pointer[time.Time] // when the last good look ended
}

// age of the last good look.
func (i *incarnation) age() time.Duration { return time.Since(*i.looked.Load()) }

func (i *incarnation) stream() Stream {
	return Stream{ID: i.id, Partitions: i.partitions, First: i.first.Load(), Last: i.last.Load()}
}

// saw raises seen to seq.
func (i *incarnation) saw(seq uint64) {
	for {
		old := i.seen.Load()
		if old >= seq || i.seen.CompareAndSwap(old, seq) {
			return
		}
	}
}

// New checks the options and starts nothing.
func New(o Options) (*Client, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("check NATS options: %w", err)
	}
	c := &Client{
		o: o, wake: make(chan struct{}, 1), ready: make(chan struct{}),
		ends: newQuestions(),
		pull: newPullRequests(o.MaxEvent), readers: map[*Reader]struct{}{},
		health: errors.New("not started"),
	}
	if c.servers, c.dial, err = o.dialOptions(); err != nil {
		return nil, err
	}
	c.m = newMetrics(c)
	return c, nil
}

// Run connects, for as long as it takes, ensures both streams and watches
// them until ctx ends; then it closes the connection. Whatever is refused is
// tried again each second, and told by Connected and the log. An error: the
// options can't work, or nats.go gave the connection up; Run may come again.
func (c *Client) Run(ctx context.Context) error {
	closed := make(chan struct{})
	nc, err := nats.Connect(c.servers, append(c.dial,
		nats.ReconnectHandler(func(*nats.Conn) { c.reconnected() }),
		nats.ConnectHandler(func(*nats.Conn) { c.reconnected() }),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }),
		// Each is counted where it matters: a gap, a silence, a failed call.
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) { c.m.asyncErrors.Inc() }),
	)...)
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	c.nc.Store(nc)
	c.watch(ctx, closed)
	gone := ctx.Err() == nil
	nc.Close()
	<-closed
	if gone {
		return fmt.Errorf("NATS connection was closed: %w", nc.LastError())
	}
	return nil
}

func (c *Client) reconnected() {
	c.reconnects.Add(1)
	c.m.connects.Inc()
	c.nudge()
}

// nudge asks Run to look at the streams now.
func (c *Client) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Ready waits until both streams were found or made, and says what our
// stream is. Its Partitions count, not Options'.
func (c *Client) Ready(ctx context.Context) (Stream, error) {
	select {
	case <-c.ready:
		return c.Stream(), nil
	case <-ctx.Done():
		return Stream{}, fmt.Errorf("wait for NATS: %w", errors.Join(ctx.Err(), c.Connected()))
	}
}

// Stream is our stream as last looked at, at most a second ago while
// Connected is nil; zero before Ready. No I/O.
func (c *Client) Stream() Stream {
	if i := c.cur.Load(); i != nil {
		return i.stream()
	}
	return Stream{}
}

// OnStream has f called, from Run's goroutine, whenever our stream became
// another one after Ready. Call it before Run. All Readers end with ErrStream
// at the same time.
func (c *Client) OnStream(f func(Stream)) {
	c.mu.Lock()
	c.onStream = append(c.onStream, f)
	c.mu.Unlock()
}

// Connected is nil while events can come, else what keeps them away. No I/O.
func (c *Client) Connected() error {
	if c.conn() == nil {
		return ErrNotConnected
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.health != nil {
		return c.health
	}
	if age := time.Since(c.looked); age > staleLook {
		return fmt.Errorf("JetStream has not answered for %s", age.Round(time.Second))
	}
	return nil
}
