package loop

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Wire is the net.Conn of a TCP connection that is no WebSocket yet: what
// Listener accepts and Dial dials. Adoption moves its descriptor to the engine.
// Below TLS it stays: then tls.Conn reads what the poller feeds, and writes
// through the engine. One deadline, set at accept, clamps all others.
type Wire struct {
	pre *prelude // nil from adoption on

	// Set at adoption, under TLS only.
	conn *Conn
	tls  *tls.Conn

	// Owned by the poller.
	in []byte // records that were fed and not read

	mu sync.Mutex
	// mu guards the following.
	out *[]byte // where records are collected; nil: each is sent
}

// prelude is what a Wire needs until adoption.
type prelude struct {
	tcp      *net.TCPConn
	addr     net.Addr  // remote
	deadline time.Time // zero: none
	listener *Listener // nil: dialled
	since    time.Time // accepted
	heard    atomic.Bool
	asked    atomic.Bool // its request is being answered
	gone     atomic.Bool

	older, newer *prelude // Listener.mu
}

var _ net.Conn = (*Wire)(nil)

// errAgain is what crypto/tls takes as "no bytes yet, ask again": any other
// error would be final.
var errAgain net.Error = again{}

type again struct{}

func (again) Error() string   { return "no bytes yet" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

var errAdopted = errors.New("connection was adopted")

func newWire(tcp *net.TCPConn, deadline time.Time, l *Listener) *Wire {
	w := &Wire{pre: &prelude{tcp: tcp, addr: tcp.RemoteAddr(), deadline: deadline, listener: l, since: time.Now()}}
	if !deadline.IsZero() {
		_ = tcp.SetDeadline(deadline)
	}
	return w
}

// Read reads from TCP until adoption, then what was fed.
func (w *Wire) Read(b []byte) (int, error) {
	if w.conn != nil {
		if len(w.in) == 0 {
			return 0, errAgain
		}
		n := copy(b, w.in)
		w.in = w.in[n:]
		return n, nil
	}
	n, err := w.pre.tcp.Read(b)
	if n > 0 && !w.pre.heard.Load() {
		w.pre.heard.Store(true)
	}
	return n, err
}

// Write writes to TCP until adoption, then through the engine.
func (w *Wire) Write(b []byte) (int, error) {
	if w.conn == nil {
		return w.pre.tcp.Write(b)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.out != nil {
		*w.out = append(*w.out, b...)
		return len(b), nil
	}
	if err := w.conn.write(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close closes the TCP connection and releases its place in the listener. After
// adoption it does nothing: the Conn ends the socket.
func (w *Wire) Close() error {
	if w.pre == nil {
		return nil
	}
	err := w.pre.tcp.Close()
	w.pre.release(false)
	return err
}

// release gives the place in the listener back, once.
func (p *prelude) release(adopted bool) {
	if p.listener != nil && p.gone.CompareAndSwap(false, true) {
		p.listener.release(p, adopted)
	}
}

// LocalAddr is TCP's; nil from adoption on.
func (w *Wire) LocalAddr() net.Addr {
	if w.pre == nil {
		return nil
	}
	return w.pre.tcp.LocalAddr()
}

// RemoteAddr is TCP's; nil from adoption on.
func (w *Wire) RemoteAddr() net.Addr {
	if w.pre == nil {
		return nil
	}
	return w.pre.addr
}

// clamp keeps t within the absolute deadline.
func (p *prelude) clamp(t time.Time) time.Time {
	if p.deadline.IsZero() || !t.IsZero() && t.Before(p.deadline) {
		return t
	}
	return p.deadline
}

// SetDeadline sets both; never later than the deadline from accept.
func (w *Wire) SetDeadline(t time.Time) error {
	if w.pre == nil {
		return nil
	}
	return w.pre.tcp.SetDeadline(w.pre.clamp(t))
}

// SetReadDeadline is clamped like SetDeadline.
func (w *Wire) SetReadDeadline(t time.Time) error {
	if w.pre == nil {
		return nil
	}
	return w.pre.tcp.SetReadDeadline(w.pre.clamp(t))
}

// SetWriteDeadline is clamped like SetDeadline.
func (w *Wire) SetWriteDeadline(t time.Time) error {
	if w.pre == nil {
		return nil
	}
	return w.pre.tcp.SetWriteDeadline(w.pre.clamp(t))
}
