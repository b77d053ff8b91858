package loop

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"github.com/lesismal/nbio"
	"golang.org/x/sys/unix"
)

// greetTimeout bounds the first write, which is at most joinLimit and the head.
const greetTimeout = 5 * time.Second

// NewConn makes a Conn that is no socket yet: frames may be queued on it within
// the budget, and it may be closed. Adopt gives it a socket; one that is not
// adopted must be abandoned.
func (e *Engine) NewConn(h Handler) *Conn {
	s := e.shards[int(e.nextShard.Add(1))%len(e.shards)]
	return &Conn{handler: h, shard: s}
}

// Adopt makes nc, a hijacked *tls.Conn over a Wire, a Wire, or a *net.TCPConn,
// the socket of c. It writes head (the 101) and what is queued in one write,
// handles early, the bytes that were read behind the request, and those inside
// the tls.Conn, and moves the descriptor to a poller. It blocks for that write,
// and until Run has started the pollers.
//
// On an error nc is closed and Closed was called, unless c had been adopted or
// abandoned before. Closed may also come before Adopt returned nil.
func (e *Engine) Adopt(c *Conn, nc net.Conn, early, head []byte) error {
	<-e.started
	if err := c.claim(); err != nil {
		_ = nc.Close()
		return fmt.Errorf("adopt connection: %w", err)
	}
	err := e.adopt(c, nc, early, head)
	if err != nil {
		_ = nc.Close()
		c.died(err)
		return fmt.Errorf("adopt connection: %w", err)
	}
	return nil
}

// claim makes this Adopt the only one.
func (c *Conn) claim() error {
	c.shard.mu.Lock()
	defer c.shard.mu.Unlock()
	if c.is(flagAdopting | flagDead) {
		return errAdopted
	}
	c.set(flagAdopting)
	return nil
}

func (e *Engine) adopt(c *Conn, nc net.Conn, early, head []byte) error {
	tcp, wire, secure, err := unwrap(nc)
	if err != nil {
		return err
	}
	if err := e.greet(c, nc, head); err != nil {
		return err
	}
	now := e.now.Load()
	c.lastByte.Store(now)
	// The first ping comes after half an interval to a whole one: sockets that
	// came in one storm are not pinged in one.
	c.pingAt.Store(now - rand.Uint32N(uint32(max(e.opts.PingInterval, 0)/time.Second)/2+1))

	var pre *prelude
	if wire != nil {
		pre, wire.pre = wire.pre, nil
	}
	var kept []byte
	if secure != nil {
		wire.wear(c, secure, &kept)
		c.wire = wire
		if c.isServer() {
			e.fields().forget(secure)
		}
	}
	e.feedEarly(c, early)
	if err = e.attach(c, tcp); err != nil {
		_ = tcp.Close()
	}
	if pre != nil {
		pre.release(err == nil)
	}
	if err != nil {
		return err
	}
	if secure != nil {
		wire.unleash()
	}
	c.opened()
	return nil
}

// unwrap finds the TCP connection below nc, our Wire and TLS if they are there.
func unwrap(nc net.Conn) (tcp *net.TCPConn, wire *Wire, secure *tls.Conn, err error) {
	below := nc
	if t, ok := nc.(*tls.Conn); ok {
		secure, below = t, t.NetConn()
	}
	switch t := below.(type) {
	case *Wire:
		if t.pre == nil {
			return nil, nil, nil, errAdopted
		}
		return t.pre.tcp, t, secure, nil
	case *net.TCPConn:
		if secure == nil {
			return t, nil, nil, nil
		}
	}
	return nil, nil, nil, fmt.Errorf("unknown connection type %T over %T", nc, below)
}

// greet writes head and what is queued, up to joinLimit, on Go's connection.
func (e *Engine) greet(c *Conn, nc net.Conn, head []byte) error {
	s := c.shard
	s.mu.Lock()
	q := c.q
	c.q = nil
	c.set(flagBusy)
	s.mu.Unlock()

	t := e.metrics.tally()
	buf := e.alloc.Malloc(0)
	buf = e.alloc.Append(buf, head...)
	size, events, frames := 0, 0, 0
	now := time.Now().UnixNano()
	for q != nil && !q.empty() && (frames == 0 || len(*buf)+q.peek().Len() <= joinLimit) {
		f := q.peek()
		q.pop()
		t.frame(f, now)
		buf = e.alloc.Append(buf, f.bytes...)
		size += len(f.bytes)
		events += int(f.events)
		frames++
	}
	var err error
	if len(*buf) > 0 {
		t.write(frames, len(*buf))
		if err = nc.SetWriteDeadline(time.Now().Add(greetTimeout)); err == nil {
			_, err = nc.Write(*buf)
		}
	}
	e.alloc.Free(buf)
	e.metrics.give(t)

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.discard(c, size, events, dropClosed)
	} else {
		c.queued -= int32(size)
		s.land(events)
	}
	s.putBack(c, q)
	c.unset(flagBusy | flagDiscard)
	return err
}

// feedEarly handles what was read before the poller could: bytes from http's
// buffer, then plaintext and records inside the tls.Conn.
func (e *Engine) feedEarly(c *Conn, early []byte) {
	defer c.rescue()
	if len(early) > 0 {
		c.read(early)
	}
	if c.overTLS() && !c.is(flagDeaf) {
		c.readTLS(nil)
	}
}

// attach moves the descriptor to a poller and c into the table.
func (e *Engine) attach(c *Conn, tcp *net.TCPConn) error {
	e.gate.RLock()
	defer e.gate.RUnlock()
	if e.stopped {
		return ErrClosed
	}
	nb, err := move(tcp)
	if err != nil {
		return err
	}
	e.addresses(nb)
	nb.SetSession(c)
	s := c.shard
	s.mu.Lock()
	c.nb = nb
	s.table.add(c, e.now.Load())
	s.mu.Unlock()
	// nbio reads under this lock: what was set before is seen there.
	nb.Lock()
	//lint:ignore SA2001 the empty critical section is the point
	nb.Unlock() //nolint:staticcheck // as above, for golangci-lint
	if _, err := e.nb.AddConn(nb); err != nil {
		return errors.Join(err, nb.Close())
	}
	return nil
}

// move gives the descriptor to nbio, which dups it and so loses the flag that it
// is not for programs we start: one that had it would keep the socket open, and
// the poller would go on to hear of it by a number that others get.
func move(tcp *net.TCPConn) (*nbio.Conn, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	nb, err := nbio.NBConn(tcp)
	if err == nil {
		unix.CloseOnExec(nb.Hash()) // Hash is the descriptor
	}
	return nb, err
}

// opened lets the worker write.
func (c *Conn) opened() {
	s := c.shard
	s.mu.Lock()
	c.set(flagOpen)
	wake := false
	if c.is(flagClosing) && !c.is(flagDead) {
		c.end.deadline = s.engine.deadline()
		s.list(c)
		wake = s.mark(c)
	} else if c.q != nil {
		wake = s.mark(c)
	}
	killed := c.is(flagKilled)
	s.mu.Unlock()
	if wake {
		s.worker.wake(s.bit)
	}
	if killed {
		c.shutdown(unix.SHUT_RDWR)
	}
}
