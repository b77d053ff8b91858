package server

import (
	"context"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// push delivers a legacy PushEvent to the local sessions that want it. It has
// no seq, so it is outside of every promise about order and once-only.
func (c *core) push(_ context.Context, ev session.Event) (delivered int, err error) {
	frame := eventFrame(&ev)
	n := session.Partition(ev.Route.Company, ev.Route.Agent, len(c.parts))
	return c.index.Push(n, ev.Route, func(conn *loop.Conn) session.Put {
		if conn.Queue(frame) != nil {
			return session.Gone
		}
		return session.Queued
	}), nil
}
