//go:build faults

package server

import (
	"sync/atomic"

	"github.com/daisi/daisi-ws/loop"
)

// Fault is one delivery that a build with the tag faults gets wrong.
type Fault struct {
	Kind  string // "drop", "double" or "swap": with the next one to the same socket
	After uint64 // deliveries of this process before it

	count atomic.Uint64
}

// planted is of the process: builds with this tag are not for use.
var planted atomic.Pointer[Fault]

// PlantFault has f committed once; nil takes it back.
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
	}
	if err := c.Queue(f); err != nil {
		return err
	}
	return c.Queue(f)
}
