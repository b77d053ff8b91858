package server

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/session"
)

// fakeStore is a Redis with a version for all it holds.
type fakeStore struct {
	version, beat atomic.Uint64
	down          atomic.Bool
	age           atomic.Int64 // of the last beat, ns
	reads         atomic.Int32
	hold          chan struct{} // nil: reads answer at once
}

func (f *fakeStore) RevVersion() uint64 { return f.beat.Load() }

func (f *fakeStore) BeatAge() time.Duration { return time.Duration(f.age.Load()) }

func (f *fakeStore) Revocations(ctx context.Context, _ *session.Revocations) (*session.Revocations, error) {
	f.reads.Add(1)
	version := f.version.Load()
	if f.hold != nil {
		select {
		case <-f.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if f.down.Load() {
		return nil, errors.New("down")
	}
	return session.NewRevocations(version, "m", nil), nil
}

// loader runs one inside a synctest bubble.
func loader(t *testing.T, store *fakeStore) (r *revocations, applied *atomic.Uint64) {
	applied = new(atomic.Uint64)
	r = newRevocations(store, func(s *session.Revocations) int { applied.Store(s.Version); return 2 }, metrics.NewSet(), zerolog.Nop())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r, applied
}

func TestRevocationsFollowTheBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		store.version.Store(5)
		store.down.Store(true)
		r, applied := loader(t, store)
		synctest.Wait()
		if r.Current() || r.Await(t.Context()) {
			t.Error("in force before anything was read")
		}
		store.down.Store(false)
		if !r.Await(t.Context()) || applied.Load() != 5 {
			t.Errorf("not loaded by itself: %d", applied.Load())
		}
		reads := store.reads.Load()
		r.Beat(5)
		time.Sleep(time.Minute)
		if store.reads.Load() != reads {
			t.Error("read again though nothing changed")
		}
		synctest.Wait()
		// A beat brings news: the gate is shut until they are in force.
		store.hold = make(chan struct{})
		store.version.Store(7)
		store.beat.Store(7)
		r.Beat(7)
		synctest.Wait()
		if r.Current() {
			t.Error("current though the beat knows more")
		}
		close(store.hold)
		synctest.Wait()
		if !r.Current() || applied.Load() != 7 {
			t.Errorf("in force %d", applied.Load())
		}
		store.beat.Store(6) // one that was on its way
		if !r.Current() {
			t.Error("an older beat shuts the gate")
		}
	})
}

// A pod that was cut off may reach Redis with a look-up before its next beat:
// what it read or looked up waits until it has asked what is revoked.
func TestRevocationsOfAnOldBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		r, applied := loader(t, store)
		synctest.Wait()
		if v, ok := r.Heard(t.Context()); !ok || v != 0 || !r.Await(t.Context()) || !r.AwaitHeard(t.Context(), 0) {
			t.Errorf("with a beat that is not old: %d, %v", v, ok)
		}
		store.age.Store(int64(revokedFresh))
		r.loaded.Store(0) // long ago
		store.version.Store(3)
		store.down.Store(true)
		if _, ok := r.Heard(t.Context()); ok || r.Await(t.Context()) || r.AwaitHeard(t.Context(), 3) {
			t.Error("an old beat, and Redis away")
		}
		if !r.AwaitHeard(t.Context(), 0) {
			t.Error("what others sent, who had heard of nothing new, waits")
		}
		store.down.Store(false)
		if !r.Await(t.Context()) || applied.Load() != 3 {
			t.Errorf("it has in force %d", applied.Load())
		}
		reads := store.reads.Load()
		if v, ok := r.Heard(t.Context()); !ok || v != 3 || !r.Await(t.Context()) || store.reads.Load() != reads {
			t.Errorf("asked again at once: %d, %v, %d reads", v, ok, store.reads.Load()-reads)
		}
	})
}

// A refresh is answered by a read that began after it, never by one under way.
func TestRevocationsRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{hold: make(chan struct{}, 10)}
		r, applied := loader(t, store)
		synctest.Wait() // the first read is under way
		store.version.Store(1)
		done := make(chan error, 3)
		for range 3 {
			go func() { done <- r.Refresh(t.Context()) }()
		}
		synctest.Wait()
		store.hold <- struct{}{}
		synctest.Wait()
		if len(done) != 0 || store.reads.Load() != 2 {
			t.Fatalf("%d answered by a read that began before, %d reads", len(done), store.reads.Load())
		}
		store.hold <- struct{}{}
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if applied.Load() != 1 || store.reads.Load() != 2 {
			t.Errorf("in force %d after %d reads: one for all three", applied.Load(), store.reads.Load())
		}
		store.down.Store(true)
		close(store.hold)
		if err := r.Refresh(t.Context()); err == nil {
			t.Error("Redis down, and no error")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Refresh(ctx); err == nil {
			t.Error("its context over, and no error")
		}
	})
}
