package session

import (
	"context"
	"errors"
	"time"
)

// patience is how long an unknown outcome is asked about again before a login
// is refused: a slot that moves takes this long (protocols.md, Failures).
const patience = 2 * time.Second

// attempt paces the repetitions of one step of a login. Redis's answer ends it.
type attempt struct {
	errors int
	since  time.Duration // the first call without an answer began
}

// call is the context of one call: without a limit of its own it would be
// repeated, by whoever makes it, for as long as the whole login may take.
func (m *Manager[C]) call(ctx context.Context, a *attempt) context.Context {
	if a.errors == 0 {
		a.since = m.o.Now()
	}
	return m.limited(ctx, a.since+patience)
}

// limit is a context with an earlier end than its parent's: Err tells it, Done
// does not. So it needs no timer, of which a login would have several. It is
// for calls that come back by themselves now and then and look at Err, as those
// to Redis do; the parent's end is there for the rest.
type limit struct {
	context.Context
	now func() time.Duration
	end time.Duration
}

func (m *Manager[C]) limited(ctx context.Context, end time.Duration) context.Context {
	return &limit{ctx, m.o.Now, end}
}

// Err is the parent's, or that the time is over.
func (l *limit) Err() error {
	if err := l.Context.Err(); err != nil {
		return err
	}
	if l.now() >= l.end {
		return context.DeadlineExceeded
	}
	return nil
}

// failed waits before the next try. Not nil: no more tries.
func (m *Manager[C]) failed(ctx context.Context, a *attempt, err error) error {
	m.metrics.lockErrors.Inc()
	if errors.Is(err, ErrBusy) || ctx.Err() != nil || m.o.Now()-a.since >= patience {
		return &Refusal{Reason: ReasonOverloaded, Details: "sessions can't be confirmed now", Err: err}
	}
	pause := time.Millisecond << min(a.errors, 7)
	a.errors++
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return &Refusal{Reason: ReasonOverloaded, Details: "the login took too long", Err: err}
	}
}

// assert has n agree with Redis again.
func (m *Manager[C]) assert(ctx context.Context, n int) error {
	m.metrics.lockStale.Inc()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := m.o.Parts.Assert(ctx, n); err != nil {
		return &Refusal{Reason: ReasonOverloaded, Details: "the partition can't be asserted now", Err: err}
	}
	return nil
}

// inc is the incarnation of n, asserted first when there is none.
func (m *Manager[C]) inc(ctx context.Context, n int) (string, error) {
	for {
		if inc := m.o.Parts.Inc(n); inc != "" {
			return inc, nil
		}
		if err := m.assert(ctx, n); err != nil {
			return "", err
		}
	}
}
