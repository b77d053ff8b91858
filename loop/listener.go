package loop

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// ListenOptions of a Listener. Zero means the default stated beside a field.
type ListenOptions struct {
	// KeepAlive is TCP's; 0: off, for pings find dead sockets.
	KeepAlive time.Duration
	// Deadline from accept to adoption, whatever happens between; 0: none.
	Deadline time.Duration
	// MaxPending is how many connections may be neither adopted nor closed:
	// beyond it Accept pauses. 0: 8192.
	MaxPending int
	// Admit is asked at accept, before a byte is read; false closes. nil: all.
	Admit func(net.Addr) bool
	// Released is called once for each that was admitted, when it was closed or
	// adopted, by the goroutine that did it. nil: nobody.
	Released func(addr net.Addr, adopted bool)
}

// Listener accepts TCP connections as Wires, for net/http or below
// tls.NewListener, and knows those that are no WebSocket yet.
type Listener struct {
	// Static after Listen.
	tcp  *net.TCPListener
	opts ListenOptions

	slots  chan struct{} // taken by pending connections
	closed chan struct{}
	once   sync.Once

	accepted atomic.Uint64
	refused  atomic.Uint64
	failed   atomic.Uint64

	mu sync.Mutex
	// mu guards the following.
	pending map[*prelude]struct{}
}

var _ net.Listener = (*Listener)(nil)

// Listen opens a TCP port.
func Listen(addr string, o ListenOptions) (*Listener, error) {
	if o.MaxPending == 0 {
		o.MaxPending = 8192
	}
	if o.MaxPending < 0 || o.Deadline < 0 {
		return nil, fmt.Errorf("listen on %s: max pending %d, deadline %v: not negative", addr, o.MaxPending, o.Deadline)
	}
	lc := net.ListenConfig{KeepAlive: -1}
	if o.KeepAlive > 0 {
		lc.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: o.KeepAlive, Interval: o.KeepAlive}
		lc.KeepAlive = 0
	}
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return &Listener{
		tcp:     ln.(*net.TCPListener),
		opts:    o,
		slots:   make(chan struct{}, o.MaxPending),
		closed:  make(chan struct{}),
		pending: make(map[*prelude]struct{}),
	}, nil
}

// Accept waits for a connection, and for room when MaxPending are pending.
// Errors about descriptors are temporary ones: net/http backs off.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		select {
		case l.slots <- struct{}{}:
		case <-l.closed:
			return nil, net.ErrClosed
		}
		tcp, err := l.tcp.AcceptTCP()
		if err != nil {
			<-l.slots
			select {
			case <-l.closed:
			default:
				l.failed.Add(1)
			}
			return nil, err
		}
		if l.opts.Admit != nil && !l.opts.Admit(tcp.RemoteAddr()) {
			<-l.slots
			l.refused.Add(1)
			_ = tcp.Close()
			continue
		}
		l.accepted.Add(1)
		var deadline time.Time
		if l.opts.Deadline > 0 {
			deadline = time.Now().Add(l.opts.Deadline)
		}
		w := newWire(tcp, deadline, l)
		l.mu.Lock()
		l.pending[w.pre] = struct{}{}
		l.mu.Unlock()
		return w, nil
	}
}

// release forgets a connection that was closed or adopted.
func (l *Listener) release(p *prelude, adopted bool) {
	l.mu.Lock()
	delete(l.pending, p)
	l.mu.Unlock()
	<-l.slots
	if l.opts.Released != nil {
		l.opts.Released(p.addr, adopted)
	}
}

// Close stops accepting; connections stay.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.tcp.Close()
}

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return l.tcp.Addr() }

// Pending is how many connections are neither adopted nor closed.
func (l *Listener) Pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pending)
}

// Counts are connections accepted, refused by Admit, and failed accepts.
func (l *Listener) Counts() (accepted, refused, failed uint64) {
	return l.accepted.Load(), l.refused.Load(), l.failed.Load()
}

// CloseSilent closes the pending connections that never sent a byte, and
// returns how many. http.Server.Shutdown would wait 5 s for them.
func (l *Listener) CloseSilent() int {
	n := 0
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.pending {
		if !p.heard.Load() {
			_ = p.tcp.Close() // its reader gets the error, and closes the Wire
			n++
		}
	}
	return n
}
