package loop

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ListenOptions of a Listener. Zero means the default stated beside a field.
type ListenOptions struct {
	// KeepAlive is TCP's; 0: off, for pings find dead sockets.
	KeepAlive time.Duration
	// Deadline from accept to adoption, whatever happens between; 0: none.
	Deadline time.Duration
	// MaxPending is how many connections may be neither adopted nor closed.
	// Beyond it each newcomer takes the place of the oldest that has not sent its
	// request within a second; when there is none such, Accept pauses. 0: 8192.
	MaxPending int
	// Unsent is how many bytes the kernel keeps for a socket beyond those on
	// their way to its peer (TCP_NOTSENT_LOWAT), give or take a segment; what is
	// more waits in the Conn's budget. 0: 64 KiB; negative: up to 4 MiB, as
	// net.ipv4.tcp_wmem says.
	Unsent int
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
	evicted  atomic.Uint64

	mu sync.Mutex
	// mu guards the following.
	oldest, newest *prelude // list of the pending
	pending        int
}

// Of a full listener: how long a connection is left alone before a newcomer may
// take its place, and how often that is tried.
const (
	evictAfter = time.Second
	evictEvery = 50 * time.Millisecond
)

var _ net.Listener = (*Listener)(nil)

// Listen opens a TCP port.
func Listen(addr string, o ListenOptions) (*Listener, error) {
	if o.MaxPending == 0 {
		o.MaxPending = 8192
	}
	if o.MaxPending < 0 || o.Deadline < 0 {
		return nil, fmt.Errorf("listen on %s: max pending %d, deadline %v: not negative", addr, o.MaxPending, o.Deadline)
	}
	if o.Unsent == 0 {
		o.Unsent = 64 << 10
	}
	lc := net.ListenConfig{KeepAlive: -1, Control: o.control}
	// Go listens for multipath TCP by default; what is set on such a socket is not
	// inherited by those it accepts.
	lc.SetMultipathTCP(false)
	if o.KeepAlive > 0 {
		lc.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: o.KeepAlive, Interval: o.KeepAlive}
		lc.KeepAlive = 0
	}
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return &Listener{
		tcp:    ln.(*net.TCPListener),
		opts:   o,
		slots:  make(chan struct{}, o.MaxPending),
		closed: make(chan struct{}),
	}, nil
}

// control sets what all accepted sockets inherit. A limit on what is unsent
// leaves what is under way, and so throughput, to the kernel: SO_SNDBUF would end
// its tuning, and asking each socket how much it holds would cost the idle ones.
func (o *ListenOptions) control(_, _ string, raw syscall.RawConn) error {
	if o.Unsent < 0 {
		return nil
	}
	var err error
	wrong := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, o.Unsent)
	})
	if err = errors.Join(wrong, err); err != nil {
		return fmt.Errorf("set TCP_NOTSENT_LOWAT: %w", err)
	}
	return nil
}

// Accept waits for a connection, and for room when MaxPending are pending.
// Errors about descriptors are temporary ones: net/http backs off.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		if !l.slot() {
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
		l.add(w.pre)
		return w, nil
	}
}

// slot waits for room; false: the listener was closed. Where those that trickle
// their requests hold all of it, the oldest of them goes: else a few thousand
// such connections would keep everybody out until their deadlines.
func (l *Listener) slot() bool {
	select {
	case l.slots <- struct{}{}:
		return true
	case <-l.closed:
		return false
	default:
	}
	tick := time.NewTicker(evictEvery)
	defer tick.Stop()
	for {
		l.Evict(evictAfter, 1)
		select {
		case l.slots <- struct{}{}:
			return true
		case <-l.closed:
			return false
		case <-tick.C:
		}
	}
}

// Evict closes the oldest connections, at most so many, that have had this time
// and asked for nothing; it says how many there were.
func (l *Listener) Evict(had time.Duration, most int) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := l.oldest; p != nil && n < most && time.Since(p.since) >= had; p = p.newer {
		if p.asked.CompareAndSwap(false, true) {
			_ = p.tcp.Close() // its reader gets the error, and closes the Wire
			l.evicted.Add(1)
			n++
		}
	}
	return n
}

func (l *Listener) add(p *prelude) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.older = l.newest
	if l.newest != nil {
		l.newest.newer = p
	} else {
		l.oldest = p
	}
	l.newest = p
	l.pending++
}

func (l *Listener) remove(p *prelude) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.older != nil {
		p.older.newer = p.newer
	} else {
		l.oldest = p.newer
	}
	if p.newer != nil {
		p.newer.older = p.older
	} else {
		l.newest = p.older
	}
	p.older, p.newer = nil, nil
	l.pending--
}

// release forgets a connection that was closed or adopted.
func (l *Listener) release(p *prelude, adopted bool) {
	l.remove(p)
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
	return l.pending
}

// Counts are connections accepted, refused by Admit, and failed accepts.
func (l *Listener) Counts() (accepted, refused, failed uint64) {
	return l.accepted.Load(), l.refused.Load(), l.failed.Load()
}

// Evicted is how many connections were closed by Evict, or for a newcomer.
func (l *Listener) Evicted() uint64 { return l.evicted.Load() }

// Asked says that the request of nc, an accepted Wire or a *tls.Conn over one,
// is being answered, so that no newcomer takes its place. Connections of other
// kinds are left alone.
func Asked(nc net.Conn) {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	if w, ok := nc.(*Wire); ok && w.pre != nil {
		w.pre.asked.Store(true)
	}
}

// CloseSilent closes the pending connections that never sent a byte, and
// returns how many. http.Server.Shutdown would wait 5 s for them.
func (l *Listener) CloseSilent() int {
	n := 0
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := l.oldest; p != nil; p = p.newer {
		if !p.heard.Load() {
			_ = p.tcp.Close() // its reader gets the error, and closes the Wire
			n++
		}
	}
	return n
}
