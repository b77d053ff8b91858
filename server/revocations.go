package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/session"
)

// Times of the loader.
const (
	revokedLoad  = 2 * time.Second        // one read of the set
	revokedAgain = 200 * time.Millisecond // after one that failed
	revokedGate  = time.Second            // a partition waits for the set of its beat
	revokedFresh = time.Second            // two beats: what was heard before is old
)

// revocations keeps the set of revocations that Redis has: one loader, which
// reads it when a beat or a login saw another version, and puts it in force.
// From then on logins are held against it, and the sessions it names are gone.
type revocations struct {
	// Static after newRevocations.
	redis revocationStore
	apply func(*session.Revocations) (closed int)
	log   zerolog.Logger
	m     revocationMetrics

	inForce atomic.Pointer[session.Revocations] // and everybody it ends was told to go
	loaded  atomic.Int64                        // boot clock when the last load began
	wake    chan struct{}                       // capacity 1

	mu      sync.Mutex
	waiting []chan error // mu; answered by the next load to begin
}

// revocationStore is what revocations asks of Redis.
type revocationStore interface {
	// Revocations reads the set, and writes again what was lost of known.
	Revocations(ctx context.Context, known *session.Revocations) (*session.Revocations, error)
	// RevVersion is the version as of the last beat, BeatAge how long ago that was.
	RevVersion() uint64
	BeatAge() time.Duration
}

type revocationMetrics struct {
	loads, errors, closed *metrics.Counter
}

func newRevocations(redis revocationStore, apply func(*session.Revocations) int, set *metrics.Set, log zerolog.Logger) *revocations {
	r := &revocations{redis: redis, apply: apply, log: log, wake: make(chan struct{}, 1)}
	r.m = revocationMetrics{
		loads:  set.NewCounter(`dws_revocation_loads_total{result="ok"}`),
		errors: set.NewCounter(`dws_revocation_loads_total{result="error"}`),
		closed: set.NewCounter("dws_revocation_closed_total"),
	}
	set.NewGauge("dws_revocations", func() float64 {
		if now := r.inForce.Load(); now != nil {
			return float64(now.Len())
		}
		return 0
	})
	return r
}

// Beat is told of the version that a beat saw. Never blocks.
func (r *revocations) Beat(version uint64) {
	if now := r.inForce.Load(); now == nil || now.Version != version {
		r.poke()
	}
}

func (r *revocations) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Heard is the newest version that this pod knows of, in force or not; false: it
// has not asked Redis lately, and can't. For readers of partitions, which must
// not look up sooner who wants an event than who may not have it.
func (r *revocations) Heard(ctx context.Context) (version uint64, ok bool) {
	if !r.isFresh() && !r.refreshed(ctx) {
		return 0, false
	}
	version = r.redis.RevVersion()
	if now := r.inForce.Load(); now != nil {
		version = max(version, now.Version)
	}
	return version, true
}

// isFresh says whether Redis was asked lately, by a beat or a load. A pod that
// was cut off reaches it with a look-up first, perhaps.
func (r *revocations) isFresh() bool {
	return r.redis.BeatAge() < revokedFresh || bootTime()-time.Duration(r.loaded.Load()) < revokedFresh
}

// Current says whether all that the last beat knew of is in force. A lower
// version than ours is one that Redis lost: ours is stricter.
func (r *revocations) Current() bool { return r.reaches(0) }

// reaches is Current, and not below the version heard.
func (r *revocations) reaches(heard uint64) bool {
	now := r.inForce.Load()
	return now != nil && now.Version >= max(heard, r.redis.RevVersion())
}

// Await waits until the revocations of the last beat, which is not old, are in
// force, at most for a second; false: they are not. For what is read from the
// stream.
func (r *revocations) Await(ctx context.Context) bool {
	return r.isFresh() && r.Current() || r.refreshed(ctx) && r.Current()
}

// AwaitHeard waits until those of the last beat are in force, and those up to
// the version that the sender of a batch had heard of, at most for a second.
func (r *revocations) AwaitHeard(ctx context.Context, heard uint64) bool {
	return r.reaches(heard) || r.refreshed(ctx) && r.reaches(heard)
}

func (r *revocations) refreshed(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, revokedGate)
	defer cancel()
	return r.Refresh(ctx) == nil
}

// Refresh waits until a load that began after the call is in force.
func (r *revocations) Refresh(ctx context.Context) error {
	done := make(chan error, 1)
	r.mu.Lock()
	r.waiting = append(r.waiting, done)
	r.mu.Unlock()
	r.poke()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for revocations: %w", ctx.Err())
	}
}

// Run loads whenever it is asked to, first at once, until ctx ends.
func (r *revocations) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			r.answer(ctx.Err())
			return nil
		case <-r.wake:
		case <-timer.C:
		}
		timer.Stop()
		if err := r.load(ctx); err != nil {
			timer.Reset(revokedAgain)
		}
	}
}

// load reads the set and puts it in force, for all who asked before.
func (r *revocations) load(ctx context.Context) (err error) {
	r.mu.Lock()
	waiting := r.waiting
	r.waiting = nil
	r.mu.Unlock()
	defer func() {
		for _, w := range waiting {
			w <- err
		}
	}()
	bound, cancel := context.WithTimeout(ctx, revokedLoad)
	defer cancel()
	asked := bootTime()
	before := r.inForce.Load()
	set, err := r.redis.Revocations(bound, before)
	if err != nil {
		if r.m.errors.Inc(); before == nil && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
			r.log.Warn().Err(err).Msg("revocations not loaded yet: nobody is let in")
		}
		return err
	}
	r.m.loads.Inc()
	defer r.loaded.Store(int64(asked)) // when it is in force
	if before != nil && set.Version == before.Version && set.Mark == before.Mark {
		return nil
	}
	began := time.Now()
	closed := r.apply(set)
	r.inForce.Store(set)
	if r.m.closed.Add(closed); before != nil || set.Len() > 0 {
		r.log.Info().Uint64("version", set.Version).Int("entries", set.Len()).Int("closed", closed).
			Dur("took", time.Since(began)).Msg("revocations in force")
	}
	return nil
}

// answer ends the waits that no load will.
func (r *revocations) answer(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.waiting {
		w <- err
	}
	r.waiting = nil
}
