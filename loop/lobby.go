package loop

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Whoever delivers stands behind all goroutines that are ready to run, for Go has
// no priorities; and as long as one is always ready, the runtime asks the network
// only each 10 ms. So few connections may be at work at once: from being handed
// out until they wait for bytes or their first request is served, again after each
// of these waits, and from Adopt until they are sockets of the engine. There is a
// pause before more are looked for; and those who come meanwhile wait in the lobby:
// a socket, of which nobody has read a byte.
//
// Nobody at work waits for a client, nor for anything else that may take long. So
// clients can't keep others out by holding places.

const (
	atWorkEach = 4                      // for each processor
	lobbyPause = 500 * time.Microsecond // before it is looked again whether there is a place
	busyMost   = 20 * time.Millisecond  // that Busy holds everybody up at a stretch
	gatherMost = 16                     // are taken into the lobby in a pause
	writeMost  = 4 << 10                // bytes that the buffer of a new socket takes at once
)

// lobbyPart is the part of the deadline for which the first in the lobby may have
// waited before newcomers are turned away: what begins too late is begun in vain.
const lobbyPart = 5

// arrival is an accepted connection in the lobby.
type arrival struct {
	tcp *net.TCPConn
	at  time.Time
}

// busy says that nobody should be handed out now. Where it lasts, those who are
// waited for elsewhere are not quick, and would keep out whoever wants something
// else.
func (l *Listener) busy() bool {
	if l.opts.Busy == nil || !l.opts.Busy() {
		l.busySince = time.Time{}
		return false
	}
	if l.busySince.IsZero() {
		l.busySince = time.Now()
	}
	return time.Since(l.busySince) < busyMost
}

// turn takes a place at work for one to be handed out, if there is one.
func (l *Listener) turn() bool {
	select {
	case l.work <- struct{}{}:
		return true
	default:
		return false
	}
}

// idle says that no more than half of the places at work are taken.
func (l *Listener) idle() bool { return 2*len(l.work) <= cap(l.work) }

// paced says that p is held to places at work while it is read.
func (p *prelude) paced() bool { return p.listener != nil && !p.served.Load() }

// rest gives the place at work back, if p has one.
func (p *prelude) rest() {
	if p.atWork.CompareAndSwap(true, false) {
		<-p.listener.work
	}
}

// turn waits for a place at work, unless p has one. Those who have them wait for
// nobody, so it is soon there, and sooner than for Accept.
func (p *prelude) turn() {
	if p.listener == nil || p.atWork.Load() {
		return
	}
	if !p.listener.turn() {
		p.listener.work <- struct{}{}
		runtime.Gosched() // or those who wait would run in one chain, before all others
	}
	p.atWork.Store(true)
	if p.gone.Load() {
		p.rest()
	}
}

// waits says that a Read would wait for bytes.
func (p *prelude) waits() bool {
	raw, err := p.tcp.SyscallConn()
	if err != nil {
		return false // Read will say so, too
	}
	waits := false
	_ = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		waits = err == unix.EAGAIN
	})
	return waits
}

// Served says that a request of nc, an accepted Wire or a *tls.Conn over one, is
// being served from now on, which may wait for whatever it likes: nc is not at work
// any more until it is adopted. Connections of other kinds are left alone.
func Served(nc net.Conn) {
	if p := preludeOf(nc); p != nil {
		p.served.Store(true)
		p.rest()
	}
}

// Waits says the same before a wait for something else than bytes: nc is at work
// again when some were read.
func Waits(nc net.Conn) {
	if p := preludeOf(nc); p != nil {
		p.rest()
	}
}

// preludeOf is nil for what is no accepted Wire, or adopted.
func preludeOf(nc net.Conn) *prelude {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	w, ok := nc.(*Wire)
	if !ok || w.pre == nil || w.pre.listener == nil {
		return nil
	}
	return w.pre
}

// gather takes those who come within d into the lobby, and lasts that long. Those
// whose deadline has passed there leave it.
func (l *Listener) gather(d time.Duration) error {
	for a, ok := l.overdue(); ok; a, ok = l.overdue() {
		l.turnAway(a)
	}
	until := time.Now().Add(d)
	_ = l.tcp.SetDeadline(until)
	defer func() { _ = l.tcp.SetDeadline(time.Time{}) }()
	for range gatherMost {
		a, ok, err := l.accept()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		if ok && !l.sit(a) {
			l.turnAway(a)
		}
	}
	time.Sleep(time.Until(until))
	return nil
}

// sit takes a into the lobby, if there is room.
func (l *Listener) sit(a arrival) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.lobby)
	late := n > 0 && l.opts.Deadline > 0 && a.at.Sub(l.lobby[0].at) > l.opts.Deadline/lobbyPart
	if l.shut || n >= l.opts.MaxWaiting || late {
		return false
	}
	l.lobby = append(l.lobby, a)
	return true
}

// called is the first in the lobby, if somebody waits.
func (l *Listener) called() (a arrival, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first()
}

// overdue is the same, if its deadline has passed.
func (l *Listener) overdue() (a arrival, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.opts.Deadline; d == 0 || len(l.lobby) == 0 || time.Since(l.lobby[0].at) < d {
		return arrival{}, false
	}
	return l.first()
}

// first takes the first out of the lobby. The caller holds mu.
func (l *Listener) first() (a arrival, ok bool) {
	if len(l.lobby) == 0 {
		return arrival{}, false
	}
	a = l.lobby[0]
	l.lobby[0] = arrival{}
	if l.lobby = l.lobby[1:]; len(l.lobby) == 0 {
		l.lobby = nil // a storm's array is not kept for ever
	}
	return a, true
}

// empty turns everybody in the lobby away, for good.
func (l *Listener) empty() {
	l.mu.Lock()
	rest := l.lobby
	l.lobby, l.shut = nil, true
	l.mu.Unlock()
	for _, a := range rest {
		l.turnAway(a)
	}
}

func (l *Listener) turnAway(a arrival) {
	l.turned.Add(1)
	if l.opts.TurnAway != nil {
		l.opts.TurnAway(a.tcp)
	}
	_ = a.tcp.Close()
	if l.opts.Released != nil {
		l.opts.Released(a.tcp.RemoteAddr(), false)
	}
}

// Waiting is how many connections wait to be handed out.
func (l *Listener) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lobby)
}

// TurnedAway is how many connections found no room to wait.
func (l *Listener) TurnedAway() uint64 { return l.turned.Load() }
