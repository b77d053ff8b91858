package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// Errors of Select and Reassert.
var (
	ErrStale  = errors.New("another incarnation of the partition")
	ErrClosed = errors.New("session closed")
	ErrDenied = errors.New("not granted by the token")
)

// freshFor is how long a verified lock counts as surely ours (protocols.md).
const freshFor = 200 * time.Second

// Options configures a Manager. Owner, Partitions and the five interfaces are
// required.
type Options[C Socket] struct {
	Owner      Owner
	Partitions int // 1-65535
	Locks      Locks
	Renewer    Renewer
	Routes     Routes
	Killer     Killer
	Parts      Partitions

	// Reject refuses a newcomer while the holder's pod is live, instead of
	// letting it take over.
	Reject bool
	// Live says whether the holder of a lock may be alive, for Reject alone;
	// when in doubt it does. nil: all do.
	Live func(Owner) bool
	// Farewell queues the error frame that goes before the close frame; nil:
	// none. Called for reasons that have a code.
	Farewell func(sock C, r Reason, details string)
	// Refresh has SetRevocations called with what Redis holds at some moment
	// after the call, and waits for that. A login asks for it, off any lock,
	// when its acquire saw another version than that of the set in force. nil:
	// nothing is ever revoked.
	Refresh func(ctx context.Context) error

	LoginTimeout time.Duration        // of one Open, all told; 10 s
	SweepEvery   time.Duration        // each partition's locks and routes; 100 s
	Now          func() time.Duration // boot clock, counts suspended time; nil: CLOCK_BOOTTIME
	Metrics      *metrics.Set         // nil: a private one
	Log          zerolog.Logger
}

func (o Options[C]) withDefaults() (Options[C], error) {
	if o.Owner == "" || o.Locks == nil || o.Renewer == nil || o.Routes == nil || o.Killer == nil || o.Parts == nil {
		return o, errors.New("session manager: Owner, Locks, Renewer, Routes, Killer and Parts are required")
	}
	if o.Partitions < 1 || o.Partitions > 1<<16-1 {
		return o, fmt.Errorf("session manager: Partitions must be 1-65535, not %d", o.Partitions)
	}
	if o.LoginTimeout == 0 {
		o.LoginTimeout = 10 * time.Second
	}
	if o.SweepEvery == 0 {
		o.SweepEvery = 100 * time.Second
	}
	if o.LoginTimeout < 0 || o.SweepEvery < 0 || o.SweepEvery >= freshFor {
		return o, fmt.Errorf("session manager: LoginTimeout must be positive and SweepEvery below %v", freshFor)
	}
	if o.Live == nil {
		o.Live = func(Owner) bool { return true }
	}
	if o.Farewell == nil {
		o.Farewell = func(C, Reason, string) {}
	}
	if o.Now == nil {
		o.Now = bootClock
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	return o, nil
}

// bootClock goes on while the machine is suspended, unlike Go's monotonic
// clock: a pod that slept must not believe its locks fresh.
func bootClock() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("session: this kernel has no CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}

// Manager runs the session protocol of one pod: Open, Select, Close, Killed,
// sweeps, Reassert. Any goroutine may call it. NewManager starts nothing; Run
// sweeps, and repeats selections that met a stale incarnation.
type Manager[C Socket] struct {
	// Static after NewManager.
	o       Options[C]
	index   *Index[C]
	metrics *counters
	parts   []sweptPart // one per partition, each with a lock of its own

	conns   atomic.Uint64 // last connection number
	revoked atomic.Pointer[Revocations]

	wake chan struct{} // one token: urgent has something
	mu   sync.Mutex

	// mu guards the following.
	urgent  map[int][]*selection[C] // partitions to assert, and what to do after
	all     bool                    // sweep every partition now
	stopped bool                    // Run has ended
}

// NewManager makes a Manager.
func NewManager[C Socket](o Options[C]) (*Manager[C], error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	m := &Manager[C]{
		o:      o,
		index:  newIndex[C](o.Partitions, o.Routes),
		parts:  make([]sweptPart, o.Partitions),
		wake:   make(chan struct{}, 1),
		urgent: make(map[int][]*selection[C]),
	}
	for n := range m.parts {
		m.parts[n].turn = make(chan struct{}, 1)
	}
	m.metrics = newCounters(o.Metrics, func() float64 { return float64(m.index.Len()) })
	return m, nil
}

// Index is the table of sessions.
func (m *Manager[C]) Index() *Index[C] { return m.index }

func (m *Manager[C]) shard(s *Session[C]) *shard[C] { return &m.index.shards[s.part] }

// seconds is the boot clock as sessions keep it.
func seconds(d time.Duration) uint32 { return uint32(d / time.Second) }

// fresh is the boot second from which on a verification counts as recent.
func (m *Manager[C]) fresh() uint32 {
	return seconds(max(0, m.o.Now()-freshFor))
}
