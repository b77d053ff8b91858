//go:build faults

package server

import (
	"sync/atomic"
	"time"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// Fault is what a build with the tag faults gets wrong: one delivery, or every
// kill.
type Fault struct {
	// Kind of a delivery: "drop", "double" or "swap", with the next one to the
	// same socket. Of kills: "deaf", they are not heard; "unfenced", nor are fences
	// obeyed; "unkilled", they are answered and not done; "late", or done 300 ms
	// after the answer. "starve": replays hold the lock of their partition.
	// "unsequenced": what a second reader offers again is delivered again.
	// "foreign": a good token opens every door, and refreshes every session.
	Kind  string
	After uint64 // deliveries of this process before a wrong one

	count atomic.Uint64
}

// planted is of the process: builds with this tag are not for use.
var planted atomic.Pointer[Fault]

// PlantFault has f committed, once if it is a delivery's; nil takes it back.
func PlantFault(f *Fault) { planted.Store(f) }

// faults belong to one delivery.
type faults struct {
	held *loop.Frame // of swap
	conn *loop.Conn
}

func (x *faults) queue(c *loop.Conn, f *loop.Frame) error {
	if x.held != nil && x.conn == c {
		late := x.held
		x.held = nil
		if err := c.Queue(f); err != nil {
			return err
		}
		return c.Queue(late)
	}
	p := planted.Load()
	if p == nil || p.count.Add(1) != p.After {
		return c.Queue(f)
	}
	switch p.Kind {
	case "drop":
		return nil
	case "swap":
		x.held, x.conn = f, c
		return nil
	case "double":
	default:
		return c.Queue(f)
	}
	if err := c.Queue(f); err != nil {
		return err
	}
	return c.Queue(f)
}

// lateKill is how long after its answer a late kill is done.
const lateKill = 300 * time.Millisecond

func plantedKind() string {
	if p := planted.Load(); p != nil {
		return p.Kind
	}
	return ""
}

// opens says whether a token is for this door.
func (faults) opens(isFor bool) bool { return isFor || plantedKind() == "foreign" }

// whose are the claims that a session is refreshed with.
func (faults) whose(c *session.Claims, key session.Key) *session.Claims {
	if plantedKind() == "foreign" && !key.IsAdmin() {
		c.Company, c.Agent, c.User = key.Company, key.Agent, key.User
	}
	return c
}

func (*faults) fences(list []session.Fence) []session.Fence {
	if plantedKind() == "unfenced" {
		return nil
	}
	return list
}

func (*faults) killed(f killed) killed {
	return func(key session.Key, epoch uint64, answer func()) {
		switch plantedKind() {
		case "deaf", "unfenced":
		case "unkilled":
			answer()
		case "late":
			answer()
			time.AfterFunc(lateKill, func() { f(key, epoch, func() {}) })
		default:
			f(key, epoch, answer)
		}
	}
}

// again is called for every batch before what is above w of it is delivered.
func (d *delivery) again(n int, events []session.Event, w uint64) {
	if plantedKind() != "unsequenced" {
		return
	}
	for i := range events {
		if events[i].Seq <= w {
			d.event, d.frame = &events[i], nil
			d.env.index.Push(n, events[i].Route, d.put)
		}
	}
	d.event, d.frame = nil, nil
}

// starved is how long a replay that starves others holds the lock for an event.
const starved = 2 * time.Millisecond

// fed is called for every event of a replay, under the shard's lock.
func (*faults) fed() {
	if plantedKind() == "starve" {
		time.Sleep(starved)
	}
}
