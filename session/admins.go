package session

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// admins are the admin sessions of this pod. They want the agents events of
// all partitions, so their list is read by every partition's worker without a
// lock and replaced as a whole. Lock order: shard, then mu.
type admins[C Socket] struct {
	live  atomic.Pointer[[]*Session[C]] // those that take events
	count atomic.Int32                  // those in the index; changed under mu

	mu sync.Mutex
}

// enter counts an admin session that is about to join.
func (a *admins[C]) enter() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count.Add(1)
}

// begin lets s take events.
func (a *admins[C]) begin(s *Session[C]) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := *a.live.Load()
	list := append(old[:len(old):len(old)], s)
	a.live.Store(&list)
}

// leave takes s out; the last one takes the routes of all partitions along.
func (a *admins[C]) leave(s *Session[C], routes Routes, partitions int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := *a.live.Load()
	list := make([]*Session[C], 0, len(old))
	for _, o := range old {
		if o != s {
			list = append(list, o)
		}
	}
	a.live.Store(&list)
	if a.count.Add(-1) > 0 {
		return
	}
	for n := range partitions {
		routes.Leave(n, AdminWant())
	}
}

// unwant takes the route of n back when no admin is left.
func (a *admins[C]) unwant(routes Routes, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.count.Load() == 0 {
		routes.Leave(n, AdminWant())
	}
}

// Admins is the partition that has the locks and fences of all admin sessions;
// false: none is here.
func (x *Index[C]) Admins() (n int, some bool) {
	return AdminKey("").Partition(len(x.shards)), x.admins.count.Load() > 0
}

// FenceAdmins dooms the admin sessions that a fence outranks, Joining ones too:
// they take no event of any partition any more. Any goroutine may call it.
func (x *Index[C]) FenceAdmins(fences []Fence, d *Delivered[C]) {
	n, _ := x.Admins()
	sh := &x.shards[n]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	had := len(d.Fenced)
	sh.fence(fences, d)
	for _, s := range d.Fenced[had:] {
		s.Set(flagDoomed)
	}
}

// Stands says whether n was asserted under inc, and its locks verified not long
// ago: an outranked session of it is outranked by a fence that is there still.
func (m *Manager[C]) Stands(n int, inc string) bool {
	at := time.Duration(m.parts[n].at.Load())
	return m.o.Parts.Inc(n) == inc && at > 0 && m.o.Now()-at < freshFor
}

// joinAdmins is how many partitions an admin's login joins at a time.
const joinAdmins = 16

// joinAdmin joins the admins' route in every partition. Every admin login does
// it, so that none depends on another one that has not finished.
func (m *Manager[C]) joinAdmin(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for first := range min(joinAdmins, m.o.Partitions) {
		wg.Go(func() {
			for n := first; n < m.o.Partitions; n += joinAdmins {
				if err := safely(func() error { return m.joinAdminOf(ctx, n) }); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (m *Manager[C]) joinAdminOf(ctx context.Context, n int) error {
	var try attempt
	for {
		inc, err := m.inc(ctx, n)
		if err != nil {
			return err
		}
		call := m.call(ctx, &try)
		stale, err := m.o.Renewer.JoinAll(call, n, inc, []Want{AdminWant()})
		switch {
		case err != nil:
			err = m.failed(ctx, &try, err)
		case stale:
			try, err = attempt{}, m.assert(ctx, n)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}
