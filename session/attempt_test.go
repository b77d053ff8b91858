package session

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// deaf is Redis that takes calls and, from the named one on, answers none.
type deaf struct {
	*pod
	op string
}

func (d deaf) wait(ctx context.Context, op string) error {
	if op != d.op {
		return nil
	}
	return overBeforeLong(ctx)
}

// overBeforeLong waits for the end of ctx as redisx does while Redis is silent:
// it looks between its own tries.
func overBeforeLong(ctx context.Context) error {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return ctx.Err()
}

func (d deaf) Acquire(ctx context.Context, n int, inc string, key Key, conn uint64, reject bool, expect uint64) (Acquired, error) {
	if err := d.wait(ctx, "acquire"); err != nil {
		return Acquired{}, err
	}
	return d.pod.Acquire(ctx, n, inc, key, conn, reject, expect)
}

func (d deaf) Open(ctx context.Context, n int, inc string, h Held, fence bool) (Opened, error) {
	switch err := d.wait(ctx, "open"); {
	case err != nil:
		return Opened{}, err
	case d.op == "reassert": // which a lost lock leads to
		return Opened{Verdict: Lost}, nil
	}
	return d.pod.Open(ctx, n, inc, h, fence)
}

func (d deaf) Reassert(ctx context.Context, n int, inc string, seen uint64, held []Held) ([]Reasserted, bool, error) {
	if err := d.wait(ctx, "reassert"); err != nil {
		return nil, false, err
	}
	return d.pod.Reassert(ctx, n, inc, seen, held)
}

func (d deaf) JoinAll(ctx context.Context, n int, inc string, wants []Want) (bool, error) {
	if err := d.wait(ctx, "joinall"); err != nil {
		return false, err
	}
	return d.pod.JoinAll(ctx, n, inc, wants)
}

type deafParts struct {
	delivery
	deaf deaf
}

func (d deafParts) Assert(ctx context.Context, n int) error {
	if err := d.deaf.wait(ctx, "assert"); err != nil {
		return err
	}
	return d.pod.Assert(ctx, n)
}

// A login that Redis does not answer is refused soon, whichever step it is at:
// the client had better hear so than wait.
func TestOpenWhileRedisIsSilent(t *testing.T) {
	for _, op := range []string{"assert", "acquire", "open", "reassert", "joinall", "revoked"} {
		synctest.Test(t, func(t *testing.T) {
			a := newWorld().pod(t, "a@1", func(o *Options[*sock]) {
				d := deaf{o.Locks.(*pod), op}
				o.Locks, o.Renewer, o.Parts = d, d, deafParts{delivery{d.pod}, d}
				o.Refresh = func(ctx context.Context) error { return d.wait(ctx, "revoked") }
			})
			key := alice
			if op == "joinall" {
				key = AdminKey("root")
			}
			if op != "assert" {
				a.setFault(nil)
				for n := range testPartitions {
					a.asserted[n] = a.w.incOf(n)
				}
			}
			began := time.Now()
			_, err := a.login(key, Login{})
			wantReason(t, err, ReasonOverloaded)
			if took := time.Since(began); took < patience || took > patience+500*time.Millisecond {
				t.Errorf("%s: refused after %v", op, took)
			}
			if lock, held := a.w.lock(key); held {
				t.Errorf("%s: lock %+v", op, lock)
			}
			a.nothing(t)
		})
	}
}

// What answers with errors for a while and then hangs has no more patience.
func TestPatienceIsForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newWorld().pod(t, "a@1")
		began := time.Now()
		a.m.o.Locks = hangLater{a, began}
		_, err := a.login(alice, Login{})
		wantReason(t, err, ReasonOverloaded)
		if took := time.Since(began); took > patience+500*time.Millisecond {
			t.Errorf("refused after %v", took)
		}
	})
}

type hangLater struct {
	*pod
	began time.Time
}

func (h hangLater) Acquire(ctx context.Context, _ int, _ string, _ Key, _ uint64, _ bool, _ uint64) (Acquired, error) {
	if time.Since(h.began) > time.Second {
		_ = overBeforeLong(ctx)
	}
	return Acquired{}, errLost
}
