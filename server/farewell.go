package server

import (
	"fmt"
	"runtime/debug"
	"time"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// farewell tells a socket why it will be closed; session.Manager calls it just
// before Close. Reasons without a code need no word.
func farewell(c *loop.Conn, r session.Reason, details string) {
	if r.Code() == "" {
		return
	}
	if r == session.ReasonSlow {
		c.Discard() // what it did not read in time it is not made to read now
	}
	_ = c.Queue(loop.NewFrame(ws.OpText, encodeError(r.Code(), r.Message(), details), loop.Control))
}

// began is any fixed moment, for monotonic to count from.
var began = time.Now()

// monotonic is a clock in nanoseconds for rate limits.
func monotonic() int64 { return int64(time.Since(began)) }

// panicked counts and logs a panic.
func (e *edge) panicked(where string, v any) {
	e.m.panics.Inc()
	e.log.Error().Str("where", where).Str("panic", fmt.Sprint(v)).Bytes("stack", debug.Stack()).Msg("recovered from a panic")
}
