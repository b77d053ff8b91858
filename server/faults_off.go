//go:build !faults

package server

import (
	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// faults are what only the inside can break, to show that checkers see it
// (faults_on.go). A normal build has none.
type faults struct{}

func (faults) queue(c *loop.Conn, f *loop.Frame) error { return c.Queue(f) }

func (faults) opens(isFor bool) bool { return isFor }

func (faults) whose(c *session.Claims, _ session.Key) *session.Claims { return c }

func (faults) fences(list []session.Fence) []session.Fence { return list }

func (faults) killed(f killed) killed { return f }

func (faults) fed() {}

func (*delivery) again(int, []session.Event, uint64) {}
