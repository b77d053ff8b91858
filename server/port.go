package server

import (
	"math"
	"net"
	"sync/atomic"
	"time"

	"github.com/daisi/daisi-ws/loop"
)

// port is a listening socket that outlives its server: bound before it is
// served, and bound again, to the same address, when serving was restarted.
type port[L net.Listener] struct {
	bound atomic.Pointer[L]
	fresh atomic.Bool // bound and not served yet
}

type publicPort struct{ port[*loop.Listener] }

// bind opens the port unless that was done.
func (p *port[L]) bind(listen func() (L, error)) error {
	if p.fresh.Load() {
		return nil
	}
	l, err := listen()
	if err != nil {
		return err
	}
	p.bound.Store(&l)
	p.fresh.Store(true)
	return nil
}

// take gives the open port to the one that serves, and closes, it.
func (p *port[L]) take(listen func() (L, error)) (L, error) {
	if err := p.bind(listen); err != nil {
		var none L
		return none, err
	}
	p.fresh.Store(false)
	return *p.bound.Load(), nil
}

// close gives up a port that nobody took.
func (p *port[L]) close() {
	if p.fresh.CompareAndSwap(true, false) {
		_ = (*p.bound.Load()).Close()
	}
}

// Addr is where the port was bound last; listen must have been called.
func (p *port[L]) Addr() net.Addr { return (*p.bound.Load()).Addr() }

// addr is where to bind: as configured, but for port 0 where it was before.
func (p *port[L]) addr(configured string) string {
	if p.bound.Load() == nil {
		return configured
	}
	return p.Addr().String()
}

// pending is how many connections are neither adopted nor closed.
func (p *publicPort) pending() int {
	if l := p.bound.Load(); l != nil {
		return (*l).Pending()
	}
	return 0
}

// evict closes the connections that have had this time and asked for nothing.
func (p *publicPort) evict(had time.Duration) int {
	if l := p.bound.Load(); l != nil {
		return (*l).Evict(had, math.MaxInt)
	}
	return 0
}

// evicted is how many connections gave their place to a newcomer, or to the rest
// when memory was short.
func (p *publicPort) evicted() uint64 {
	if l := p.bound.Load(); l != nil {
		return (*l).Evicted()
	}
	return 0
}

// failedAccepts is how often a connection could not be accepted.
func (p *publicPort) failedAccepts() uint64 {
	_, _, failed := (*p.bound.Load()).Counts()
	return failed
}
