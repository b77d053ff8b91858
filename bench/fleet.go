package bench

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/loop"
)

// FleetOptions configures a Fleet; Doors and Mint are required.
type FleetOptions struct {
	Doors   []string    // host:port of public doors
	TLS     *tls.Config // nil: ws
	APIKey  string
	Mint    func(company, agent, user string) (string, error)
	Sources []netip.Addr // local addresses, taken in turn; none: the system's choice
	Pollers int          // 0: one a core
	Plant   Plant
	Seed    uint64
	Log     zerolog.Logger
}

// Fleet is many client sockets on one epoll engine: no goroutine per socket.
// Login and CloseAll may be called while Run runs; the sockets end with it.
type Fleet struct {
	// Static after NewFleet.
	opts   FleetOptions
	engine *loop.Engine
	plant  *planter

	returns *returns // set by Resume before the first login; nil: who is cut off stays away

	// Any goroutine.
	next     atomic.Uint32 // source addresses and hints, in turn
	open     atomic.Int64  // sockets that were ready and did not end
	junk     atomic.Int64  // frames that could not be decoded
	logins   atomic.Int64  // that came through
	frames   [counterShards]counter
	delivery Hist // from the due instant to the frame's handling
	deliveryRaw,
	login, loginRaw Hist
	pulse         struct{ delivery, deliveryRaw, login Pulse } // of the last second
	asked, failed atomic.Int64                                 // logins

	crowd atomic.Pointer[Crowd] // nil: sockets that end stay away

	mu     sync.Mutex
	order  *sentinel        // nil without Order
	closes map[string]int64 // ends not begun here, by close code
	errors map[string]int64 // error frames by code
}

const (
	counterShards = 8
	codeConflict  = "SessionConflict"

	// The server's pings show that it lives; pings of ours would double what an
	// idle session costs it.
	noPings = 240 * time.Hour
	// maxMessage leaves room for the largest event a gateway takes.
	maxMessage = 8 << 20
)

// counter has a cache line of its own.
type counter struct {
	n atomic.Int64
	_ [56]byte
}

// NewFleet makes a Fleet; nothing runs before Run.
func NewFleet(o FleetOptions) (*Fleet, error) {
	if len(o.Doors) == 0 || o.Mint == nil {
		return nil, fmt.Errorf("make fleet: %d doors and a way to mint tokens are needed", len(o.Doors))
	}
	engine, err := loop.New(loop.Options{
		Client: true, Pollers: o.Pollers, MaxMessage: maxMessage,
		PingInterval: noPings, PongTimeout: noPings, Log: o.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("make fleet: %w", err)
	}
	return &Fleet{
		opts: o, engine: engine, plant: newPlanter(o.Plant, newRand(o.Seed, "plant")),
		closes: make(map[string]int64), errors: make(map[string]int64),
	}, nil
}

// Run runs the engine until ctx ends; all sockets are closed then.
func (f *Fleet) Run(ctx context.Context) error { return f.engine.Run(ctx) }

// Open is how many sockets were ready and did not end.
func (f *Fleet) Open() int { return int(f.open.Load()) }

// Frames counts event frames from the wire, before faults are planted.
func (f *Fleet) Frames() (n int64) {
	for i := range f.frames {
		n += f.frames[i].n.Load()
	}
	return n
}

// delivered notes a latency, from the due instant and from the sending.
func (f *Fleet) delivered(hint uint32, corrected, raw time.Duration) {
	f.delivery.Record(hint, corrected)
	f.deliveryRaw.Record(hint, raw)
	f.pulse.delivery.Record(corrected)
	f.pulse.deliveryRaw.Record(raw)
}

// sample fills in a row of the time series.
func (f *Fleet) sample(s *Sample) {
	s.Sessions, s.Received = f.Open(), f.Frames()
	s.Asked, s.Logins, s.Failed = f.asked.Load(), f.logins.Load(), f.failed.Load()
	s.Delivery, s.DeliveryRaw, s.Login = f.pulse.delivery.Take(), f.pulse.deliveryRaw.Take(), f.pulse.login.Take()
	if f.returns != nil {
		_, s.Returns = f.returns.busiest()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.closes {
		s.Closed += n
	}
}

// Order lets o judge in which order sockets were told things. The Fleet must run,
// and have one poller.
func (f *Fleet) Order(ctx context.Context, o *Oracle) error {
	if f.opts.Pollers != 1 {
		return fmt.Errorf("order what sockets are told: %d pollers, only one keeps an order", f.opts.Pollers)
	}
	s, err := newSentinel(ctx, f.engine)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.order = s
	f.mu.Unlock()
	o.judgeOverlaps(s.after)
	return nil
}

// CloseAll says goodbye on all sockets and waits until they are gone, or ctx
// ends.
func (f *Fleet) CloseAll(ctx context.Context) error {
	f.mu.Lock()
	order := f.order
	f.order = nil
	f.mu.Unlock()
	if order != nil {
		if err := order.close(); err != nil {
			return fmt.Errorf("close sentinel: %w", err)
		}
	}
	f.leaveAll()
	for f.engine.Len() > 0 {
		if err := Wait(ctx, time.Now().Add(10*time.Millisecond)); err != nil {
			return fmt.Errorf("close %d sockets: %w", f.engine.Len(), err)
		}
	}
	return nil
}

// leaveAll begins the end of all sockets.
func (f *Fleet) leaveAll() { f.engine.Each(func(c *loop.Conn) { c.Close(1000, "") }) }

// Closes counts ends that did not begin here, by close code.
func (f *Fleet) Closes() map[string]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.closes)
}

// ErrorFrames counts error frames, by their code.
func (f *Fleet) ErrorFrames() map[string]int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.errors)
}

// source gives the next local address, nil for the system's choice.
func (f *Fleet) source(n uint32) net.Addr {
	if len(f.opts.Sources) == 0 {
		return nil
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.opts.Sources[int(n)%len(f.opts.Sources)], 0))
}

func (f *Fleet) errorFrame(code string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errors[code]++
}

// closed is told of every socket's end.
func (f *Fleet) closed(c *client, why loop.End, wasReady bool) {
	if !wasReady {
		return
	}
	f.open.Add(-1)
	if why.Local {
		return
	}
	// A login that failed is tried again by whoever asked for it; one that was
	// replaced has its successor.
	if crowd := f.crowd.Load(); crowd != nil && !c.asked() && strconv.Itoa(int(why.Code)) != closeReplaced {
		crowd.lost(Login{User: c.user, Door: int(c.door), Mode: c.mode})
	}
	if f.returns != nil && strconv.Itoa(int(why.Code)) != closeReplaced {
		f.returns.add(c)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closes[strconv.Itoa(int(why.Code))]++
}

// SetProcessDefaults sets what the engine needs once a process: call it first
// thing in main or TestMain.
func SetProcessDefaults() { loop.SetProcessDefaults() }
