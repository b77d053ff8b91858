package server

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/natsx"
	"github.com/daisi/daisi-ws/session"
)

// Times of protocols.md, "Taking at pod B".
const (
	sweepFresh   = 200 * time.Second       // a lock sweep older than this closes the gate
	silence      = 2500 * time.Millisecond // without progress a partition that is owed some serves itself
	owedPatience = 1200 * time.Millisecond // and so long after it noticed that it is
	selfService  = 300 * time.Millisecond  // between two repairs while it does
	lookEvery    = time.Second             // between two looks whether it must
	assertPause  = 100 * time.Millisecond  // between failed asserts
	inboxBatches = 512                     // batches that wait for one partition
	inboxBytes   = 8 << 20                 // and the bytes of their events
)

// Why events were missed, as gap frames say it.
const (
	reasonReset     = "stream_reset" // our stream was made anew, or rewound
	reasonRetention = "retention"    // it dropped them before they were read
	reasonRoutes    = "routes_lost"  // Redis failed over, and may have lost who wants what
	reasonSlow      = "slow"         // the client did not read, and this pod is told not to close such
)

// partitionEnv is all that a partition sees of the house.
type partitionEnv struct {
	index   *session.Index[*loop.Conn]
	manager *session.Manager[*loop.Conn]
	redis   partitionRedis
	stream  partitionStream
	tally   *tally
	lease   time.Duration // a beat older than this closes every gate
	// slowRoom, unless 0, is below how many waiting bytes one that was over its
	// budget gets events again; until then it misses them, and is told of it.
	slowRoom int
	// revoked waits until the revocations of a beat that is not old are in force;
	// heard until those are that the sender of a batch had heard of. false: they
	// are not.
	revoked func(ctx context.Context) bool
	heard   func(ctx context.Context, version uint64) bool
	// missed tells sessions of n that (from..to) was not delivered.
	missed func(n int, from, to uint64, why string, replayable bool)
	// routesLost tells those whose login or selection was written after the
	// moment since, on the boot clock, of what they may miss in (from..to).
	routesLost func(n int, since time.Duration, from, to uint64)
}

// partitionRedis is what a partition asks of Redis.
type partitionRedis interface {
	Inc(ctx context.Context, n int) (inc string, seen uint64, err error)
	Lookup(ctx context.Context, n int, wants []session.Want, admins bool) (session.Lookup, error)
	Beat() (age time.Duration, lapses uint64)
}

// partitionStream is what a partition asks of our events stream.
type partitionStream interface {
	LastSeq(ctx context.Context) (first, last uint64, err error)
	Read(ctx context.Context, n int, after, upto uint64, f func([]session.Event) error) error
	Stream() natsx.Stream
}

// parcel is a batch on its way to the worker, and whom to thank for it.
type parcel struct {
	batch *session.Batch
	bytes int64             // of its events, about
	ack   func(upto uint64) // nil: it is of this pod's own reader
}

// partition takes, asserts and repairs one partition of the events stream on
// this pod. Its worker is the only one that delivers live events of it, and
// does one thing at a time; nobody waits for it with a lock held.
type partition struct {
	n   int
	env *partitionEnv

	// Safe for all.
	inbox    chan parcel
	queued   atomic.Int64                 // bytes in inbox
	asserted atomic.Pointer[string]       // incarnation the gate stands under, nil: closed
	reset    atomic.Pointer[natsx.Stream] // another stream, not yet started on
	broken   atomic.Bool                  // a peer's stream broke since a batch continued W
	whole    atomic.Bool                  // repaired since the last assert; set by the worker
	shown    atomic.Pointer[string]       // stream, for ready frames
	doubts   atomic.Uint64                // how often Redis' view became uncertain
	other    atomic.Int64                 // monotonic ns when another pod's batch continued W last
	failed   atomic.Int64                 // boot clock of the last beat before Redis failed over, until sessions were told; 0: it did not

	mu      sync.Mutex
	stream  string          // mu; id of the stream that the watermark counts in
	waiting []chan struct{} // mu; closed when an assert that began after them is done
	stop    func()          // mu; ends the repair under way; nil: there is none
	wake    chan struct{}   // capacity 1

	// Owned by the worker.
	lapses   uint64    // of the beat, when asserted
	asserts  uint64    // how many succeeded
	heard    time.Time // when a batch continued W last, or nothing was owed
	owed     bool      // at the last look the stream had more than W
	unserved bool      // nobody else brought what was owed last
	trail    [2]trailMark
	delivery delivery
}

func newPartition(n int, stream string, env *partitionEnv) *partition {
	p := &partition{n: n, env: env, stream: stream, inbox: make(chan parcel, inboxBatches), wake: make(chan struct{}, 1)}
	p.shown.Store(&stream)
	p.delivery.init(env)
	return p
}

// Offer hands a batch to the worker, or drops it when too much waits: the next
// one will show the hole. Never blocks.
func (p *partition) Offer(x parcel) bool {
	for i := range x.batch.Events {
		x.bytes += int64(len(x.batch.Events[i].Body)) + 128
	}
	if p.queued.Add(x.bytes) > inboxBytes && x.bytes > 0 && len(p.inbox) > 0 {
		p.queued.Add(-x.bytes)
		p.env.tally.drop(dropInbox)
		return false
	}
	select {
	case p.inbox <- x:
		return true
	default:
		p.queued.Add(-x.bytes)
		p.env.tally.drop(dropInbox)
		return false
	}
}

// Inc is the incarnation the partition was asserted under, "" while it is not.
func (p *partition) Inc() string {
	if s := p.asserted.Load(); s != nil {
		return *s
	}
	return ""
}

// Doubt closes the gate: what Redis knows of this partition is not certain.
func (p *partition) Doubt() {
	p.doubts.Add(1) // first, so that an assert under way does not cover it
	p.asserted.Store(nil)
	p.poke()
}

// FailedOver says that Redis may have lost what it acknowledged in the last
// seconds before a moment of the boot clock. The gate closes until all of it is
// written again.
func (p *partition) FailedOver(at time.Duration) {
	p.failed.CompareAndSwap(0, int64(max(1, at))) // the first of several counts
	p.Doubt()
}

// Broken says that the stream of a peer broke, perhaps that of our reader.
func (p *partition) Broken() {
	p.broken.Store(true)
	p.poke()
}

// Reset starts over on another stream, or a rewound one.
func (p *partition) Reset(s natsx.Stream) {
	p.reset.Store(&s)
	p.poke()
}

// Position is the watermark and the stream that it counts in.
func (p *partition) Position() (stream string, w uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stream, p.env.index.Watermark(p.n)
}

// Assert waits until an assert that began after this call is done.
func (p *partition) Assert(ctx context.Context) error {
	done := make(chan struct{})
	p.mu.Lock()
	p.waiting = append(p.waiting, done)
	p.interrupt()
	p.mu.Unlock()
	p.poke()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		p.mu.Lock()
		p.waiting = slices.DeleteFunc(p.waiting, func(w chan struct{}) bool { return w == done })
		p.mu.Unlock()
		return ctx.Err()
	}
}

func (p *partition) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run is the worker. It returns when ctx ends.
func (p *partition) Run(ctx context.Context) error {
	p.heard = time.Now()
	timer := time.NewTimer(selfService)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case x := <-p.inbox:
			p.queued.Add(-x.bytes)
			p.take(ctx, x)
		case <-p.wake:
			p.attend(ctx)
		case <-timer.C:
			p.attend(ctx)
			p.mark(bootTime())
			p.listen(time.Now())
			p.selfServe(ctx)
			timer.Reset(p.patience(time.Now()))
		}
	}
}

// patience is how long until the worker looks up by itself: when it will have
// heard nothing for too long, or in a second; often while it serves itself. All
// partitions do so at the same instants: one wake-up of an idle process, not
// one for each of them.
func (p *partition) patience(now time.Time) time.Duration {
	left := silence - now.Sub(p.heard)
	if left <= 0 || p.unserved || p.broken.Load() {
		return selfService - time.Duration(now.UnixNano())%selfService
	}
	return min(left, lookEvery-time.Duration(now.UnixNano())%lookEvery)
}

// attend does what others asked for: a reset, an assert.
func (p *partition) attend(ctx context.Context) {
	if r := p.reset.Swap(nil); r != nil {
		p.restart(r)
	}
	p.mu.Lock()
	asked := len(p.waiting) > 0
	p.mu.Unlock()
	if asked {
		p.asserted.Store(nil)
	}
	if asked || p.asserted.Load() == nil {
		p.openGate(ctx)
	}
}

// isCurrent says whether what is numbered by stream may be held against the
// watermark: natsx and this worker must both be past any change of it.
func (p *partition) isCurrent(stream string) bool {
	return stream == p.stream && p.env.stream.Stream().ID == stream
}

// isOpen says whether events may be delivered: Redis and this pod agree about
// locks and routes, have agreed without a lapse since the last assert, and what
// was looked up before it has been read again.
func (p *partition) isOpen() bool {
	return p.whole.Load() && p.agrees()
}

// agrees says whether what was asserted last still stands.
func (p *partition) agrees() bool {
	if p.asserted.Load() == nil {
		return false
	}
	age, lapses := p.env.redis.Beat()
	return age < p.env.lease && lapses == p.lapses && time.Since(p.env.manager.Swept(p.n)) < sweepFresh
}

// openGate asserts and repairs; false: it could not, try later.
func (p *partition) openGate(ctx context.Context) bool {
	if age, _ := p.env.redis.Beat(); age >= p.env.lease {
		p.asserted.Store(nil)
		return false
	}
	if !p.agrees() {
		if err := p.assert(ctx); err != nil {
			p.env.tally.assertErrors.Add(1)
			return false
		}
	}
	return p.repair(ctx, "assert") == nil
}

// assert writes all that this pod holds of the partition again under its
// present incarnation, and those who waited for that go on.
func (p *partition) assert(ctx context.Context) error {
	p.mu.Lock()
	waiting := p.waiting
	p.waiting = nil
	p.mu.Unlock()
	err := p.reassert(ctx)
	if err != nil {
		p.mu.Lock()
		p.waiting = append(p.waiting, waiting...)
		p.mu.Unlock()
		return err
	}
	for _, w := range waiting {
		close(w)
	}
	return nil
}

func (p *partition) reassert(ctx context.Context) error {
	p.whole.Store(false)
	for {
		doubts := p.doubts.Load()
		_, lapses := p.env.redis.Beat()
		inc, _, err := p.env.redis.Inc(ctx, p.n)
		if err != nil {
			return err
		}
		err = p.env.manager.Reassert(ctx, p.n, inc)
		if errors.Is(err, session.ErrStale) {
			continue
		}
		if err != nil {
			return err
		}
		p.lapses = lapses
		p.asserted.Store(&inc)
		if p.doubts.Load() != doubts {
			p.asserted.Store(nil) // Doubt came between, and must win
			continue
		}
		p.asserts++
		p.env.tally.asserts.Add(1)
		p.tellRoutesLost()
		return nil
	}
}

// take delivers a batch if it continues the watermark under the incarnation
// that the gate stands for, and makes the partition whole otherwise.
func (p *partition) take(ctx context.Context, x parcel) {
	b := x.batch
	if !p.isCurrent(b.Stream) {
		p.env.tally.drop(dropStream)
		return
	}
	// The beat first: whoever comes back after a lapse sees the version with it.
	// One that Redis can't reach any more sees it in the batches of others.
	if !p.isOpen() && !p.openGate(ctx) || !p.env.heard(ctx, b.Revoked) {
		p.env.tally.drop(dropGate)
		return
	}
	if inc := p.Inc(); b.Inc != inc {
		now, _, err := p.env.redis.Inc(ctx, p.n)
		if err != nil || now == inc {
			p.env.tally.drop(dropStale) // looked up under an older incarnation
			return
		}
		p.asserted.Store(nil)
		p.openGate(ctx)
		return
	}
	w := p.env.index.Watermark(p.n)
	if b.From > w {
		if p.repair(ctx, "hole") != nil || b.Inc != p.Inc() {
			return
		}
		if w = p.env.index.Watermark(p.n); b.From > w {
			return // the leader itself does not know of it yet: it is read later
		}
	}
	if b.Upto > w && !p.adminsStand(ctx, b.Events) {
		p.env.tally.drop(dropGate)
		return
	}
	p.heard, p.unserved = time.Now(), false
	p.broken.Store(false)
	if x.ack != nil {
		p.other.Store(monotonic())
	}
	p.delivery.again(p.n, b.Events, w)
	if b.Upto > w {
		p.delivery.deliver(p.n, b.Events, b.Fences)
		p.delivery.advance(p.n, b.Upto, b.Fences)
	}
	if x.ack != nil {
		x.ack(b.Upto)
	}
}
