package server

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// admission is the one gate of the edge. It is asked in three places: when a
// connection is accepted (addresses), before a TLS key exchange, and before a
// login goes to Redis. A refusal costs nothing but an answer, and those that
// are in are never asked again. How many connections may be neither refused
// nor let in is the listener's to hold: it pauses beyond Limits.MaxPending.
type admission struct {
	// Static after newAdmission.
	maxSessions int
	handshakes  chan struct{}
	logins      chan struct{} // a token a login in work
	maxQueue    int64
	sessions    func() int // how many there are
	addresses   *addresses
	pressure    *pressure
	m           *edgeMetrics
	maxFiles    int // connections of any kind
	maxPending  int // connections that are no session yet

	pending  atomic.Int64 // of these
	polite   atomic.Int64 // refusals before a key exchange: GCRA, ns of monotonic
	queued   atomic.Int64 // logins that wait for a token
	reserved atomic.Int64 // logins that passed the session count and are no session yet
	draining atomic.Bool
}

// pendingSize is what a connection may cost before it is a session, in bytes:
// net/http's goroutine and buffers, TLS, headers. Of a limited memory all of
// them together may take an eighth.
const (
	pendingSize  = 48 << 10
	pendingShare = 8
)

// Reserve of file descriptors for what is not a session: Redis, NATS, peers,
// probes, listeners, files, and connections that still log in.
const (
	fileReserve = 512
	fileShare   = 16 // or 1/16 of the limit, if that is less
	minKept     = 96 // what a pod needs for itself at least
)

func newAdmission(o LimitOptions, addresses *addresses, sessions func() int, m *edgeMetrics) *admission {
	a := &admission{
		maxSessions: o.MaxSessions,
		handshakes:  make(chan struct{}, o.Handshakes),
		logins:      make(chan struct{}, o.LoginConcurrency),
		maxQueue:    int64(o.LoginQueue),
		sessions:    sessions,
		addresses:   addresses,
		m:           m,
		maxPending:  o.MaxPending,
	}
	files := fileLimit()
	if a.maxSessions == 0 {
		a.maxSessions = sessionLimit(files)
	}
	// Half of the reserve is never the public port's, so that metrics, health
	// and Redis find a descriptor when it is full.
	kept := max(min(fileReserve, files/fileShare)/2, min(minKept, files/2))
	a.maxFiles = int(min(files-kept, 1<<31-1))
	if o.MaxSessions == 0 {
		a.maxSessions = min(a.maxSessions, a.maxFiles-1)
	}
	self := cgroupSelf
	if o.Cgroup != cgroupRoot {
		self = filepath.Join(o.Cgroup, "self")
	}
	group := findCgroup(o.Cgroup, self)
	a.pressure = newPressure(group)
	if _, limit := group.used(); limit > 0 {
		a.maxPending = min(a.maxPending, max(int(limit/pendingShare/pendingSize), 64))
	}
	return a
}

// sessionLimit is how many sessions fit under a limit of open files.
func sessionLimit(files uint64) int {
	reserve := min(fileReserve, files/fileShare)
	return int(min(files-reserve, 1<<31-1))
}

// fileLimit is the soft limit; Go raises it to the hard one at start.
func fileLimit() uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return l.Cur
}

// admit says whether a connection that was accepted may stay; released, that
// it is closed, or a session now.
func (a *admission) admit(addr net.Addr) bool {
	g := gates
	switch {
	case a.pressure.shut():
		g = gateMemory
	case a.sessions()+int(a.pending.Load()) >= a.maxFiles:
		g = gateFiles
	case !a.addresses.accept(addr):
		g = gateAddress
	}
	if g != gates {
		a.m.refused[g].Inc()
		return false
	}
	a.pending.Add(1)
	return true
}

func (a *admission) released(addr net.Addr, _ bool) {
	a.pending.Add(-1)
	a.addresses.released(addr)
}

// ticket is one login's leave to go on. Its methods belong to the login's
// goroutine.
type ticket struct {
	a    *admission
	held bool // a token of logins
}

// login lets one login through, or says why not. It waits in the queue until
// there is a token, or ctx ends. The caller owes the ticket one call of done.
func (a *admission) login(ctx context.Context) (*ticket, *fault) {
	if f := a.open(); f != nil {
		return nil, f
	}
	// Reserved first, so that a burst can't pass the count together.
	if n := a.reserved.Add(1); int64(a.sessions())+n > int64(a.maxSessions) {
		a.reserved.Add(-1)
		return nil, a.refuse(gateSessions, session.ReasonOverloaded, "this pod holds all the sessions it may")
	}
	if f := a.token(ctx); f != nil {
		a.reserved.Add(-1)
		return nil, f
	}
	t := &ticket{a, true}
	if f := a.open(); f != nil { // since it began to wait
		t.done()
		return nil, f
	}
	return t, nil
}

// waiting gives the token back before another pod is waited for, so that a
// silent one holds up nobody else. The login goes on without one: it is nearly
// through.
func (t *ticket) waiting(begins bool) {
	if begins {
		t.opened()
	}
}

// opened gives the token back: Redis is done with this login.
func (t *ticket) opened() {
	if t.held {
		t.held = false
		<-t.a.logins
	}
}

// done ends what login let in: it counts as a session by now, or not at all.
func (t *ticket) done() {
	t.opened()
	t.a.reserved.Add(-1)
}

// open says whether logins are let in at all.
func (a *admission) open() *fault {
	if a.draining.Load() {
		return a.refuse(gateDraining, session.ReasonDraining, "")
	}
	if g, short := a.pressure.refuses(); short != "" {
		return a.refuse(g, session.ReasonOverloaded, short)
	}
	return nil
}

// hears says whether a client that will be refused may still have its TLS
// handshake, so that it can be told why and when to come back. Beyond so many a
// second its connection ends before the key exchange.
func (a *admission) hears() bool {
	const each, most = int64(5 * time.Millisecond), int64(time.Second)
	now := monotonic()
	for {
		due := a.polite.Load()
		if due-now > most {
			return false
		}
		if a.polite.CompareAndSwap(due, max(due, now)+each) {
			return true
		}
	}
}

var errBusy = errors.New("too busy for a handshake")

// token takes one of the login tokens.
func (a *admission) token(ctx context.Context) *fault {
	select {
	case a.logins <- struct{}{}:
		return nil
	default:
	}
	if a.queued.Add(1) > a.maxQueue {
		a.queued.Add(-1)
		return a.refuse(gateQueue, session.ReasonOverloaded, "too many logins wait")
	}
	defer a.queued.Add(-1)
	select {
	case a.logins <- struct{}{}:
		return nil
	case <-ctx.Done():
		return a.refuse(gateQueue, session.ReasonOverloaded, "waited too long for a login slot")
	}
}

func (a *admission) refuse(g gate, why session.Reason, details string) *fault {
	a.m.refused[g].Inc()
	f := faultOf(why, details)
	f.Retry = retryAfter()
	return &f
}

// handshakeHold bounds how long one TLS handshake may keep its slot: the slot
// is for the key exchange, which takes a millisecond; a client that stalls in
// the middle must not keep others from it.
const handshakeHold = 20 * time.Millisecond

// handshake waits for a slot before a key exchange, and gives it back after
// handshakeHold or when release is called, whatever is first.
func (a *admission) handshake(ctx context.Context) (release func(), err error) {
	if g, short := a.pressure.refuses(); short != "" && !a.hears() {
		a.m.refused[g].Inc()
		return nil, errBusy
	}
	select {
	case a.handshakes <- struct{}{}:
	case <-ctx.Done():
		a.m.refused[gateHandshake].Inc()
		return nil, ctx.Err()
	}
	var released atomic.Bool
	give := func() {
		if released.CompareAndSwap(false, true) {
			<-a.handshakes
		}
	}
	timer := time.AfterFunc(handshakeHold, give)
	return func() { timer.Stop(); give() }, nil
}

// retryAfter is in seconds, spread so that those refused together do not come
// back together.
func retryAfter() int { return 1 + rand.IntN(5) }

// gate is a place where admission refuses; the metric's label.
type gate uint8

const (
	gateHandshake gate = iota
	gateQueue
	gateSessions
	gateDraining
	gateAddress
	gateFailures
	gateMemory
	gateLag
	gateFiles
	gateResumes
	gates
)

var gateLabels = [gates]string{"handshake", "login_queue", "sessions", "draining", "address", "failures", "memory", "lag", "files", "resumes"}

// capacity says in a word why no login would be let in now, "" if one would.
func (a *admission) capacity() string {
	switch {
	case a.draining.Load():
		return "draining"
	case a.sessions()+int(a.reserved.Load()) >= a.maxSessions:
		return "no room for a session"
	case a.queued.Load() >= a.maxQueue:
		return "login queue full"
	}
	_, short := a.pressure.refuses()
	return short
}
