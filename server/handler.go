package server

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// client is what the server keeps of one socket: its session, by value, and
// what is under way for it. upgrade makes it, session.Manager.Close ends it.
type client struct {
	session.Session[*loop.Conn]
	edge *edge
	// Made by the goroutine that reads the socket, dropped by the one that did
	// the last command in it; nil while nothing waits.
	box atomic.Pointer[mailbox]
}

var _ loop.Handler = (*client)(nil)

// What a client may owe before its socket is ended: 20 bad messages, or 20 s'
// worth of good ones. Each adds 1/Limits.MessageRate s to it, a bad one badCost.
const (
	mostOwed = 21 * time.Second
	badCost  = time.Second
)

// Clients of a pod that stops are told to come back within this spread.
const (
	reconnectMin    = 100 * time.Millisecond
	reconnectSpread = 5 * time.Second
)

// ackTimeout bounds how long the seq of a selected frame is waited for.
const ackTimeout = 2 * time.Second

// Message takes one message of the client. Binary ones mean nothing here.
func (c *client) Message(_ *loop.Conn, op ws.OpCode, payload []byte) {
	if !c.Allow(monotonic(), time.Second/time.Duration(c.edge.opts.Limits.MessageRate), mostOwed) {
		c.close(session.ReasonRate, "too many messages")
		return
	}
	if op != ws.OpText {
		return
	}
	cmd, err := decode(payload)
	if err != nil {
		c.misbehaved(err.Error())
		return
	}
	if box := c.box.Load(); box != nil {
		waits, full := box.put(cmd)
		if full {
			c.misbehaved("16 messages, or 8 KiB of them, wait already: wait for their answers")
		}
		if waits {
			return
		}
		// It was closed just now: dropped here, so that no later message takes
		// it for one that is still in use.
		c.box.CompareAndSwap(box, nil)
	}
	c.perform(cmd)
}

// Tick goes with the pings, and looks after the token.
func (c *client) Tick(conn *loop.Conn, now uint32) (next uint32) {
	if conn.Pinged() {
		c.cursor(conn)
	}
	return c.checkExpiry(now)
}

// checkExpiry warns of the token's end, and brings it about. It says when to do
// so next.
func (c *client) checkExpiry(now uint32) (next uint32) {
	expires := c.Expires()
	if expires == 0 {
		return 0
	}
	if now >= expires {
		c.close(session.ReasonExpired, "")
		return 0
	}
	if warning := uint32(c.edge.opts.Auth.Warning / time.Second); c.Has(session.FlagNewFrames) && !c.Has(session.FlagWarned) {
		if expires-now > warning {
			return expires - warning
		}
		if c.Set(session.FlagWarned) {
			c.send(encodeExpiring(time.Unix(int64(expires), 0)))
		}
	}
	return expires
}

// Closed is the socket's last word.
func (c *client) Closed(conn *loop.Conn, why loop.End) {
	c.edge.gate.addresses.leave(conn)
	c.close(reasonOf(why), "")
}

// reasonOf says in session's vocabulary why a socket ended by itself. For one
// that the manager ended this comes too late to count.
func reasonOf(why loop.End) session.Reason {
	var broke *loop.ProtocolError
	switch {
	case errors.As(why.Err, &broke):
		switch broke.Code {
		case session.ReasonRate.CloseCode():
			return session.ReasonRate
		case session.ReasonUTF8.CloseCode():
			return session.ReasonUTF8
		case session.ReasonTooBig.CloseCode():
			return session.ReasonTooBig
		}
		return session.ReasonProtocol
	case errors.Is(why.Err, loop.ErrTimeout):
		return session.ReasonTimeout
	case errors.Is(why.Err, loop.ErrClosed):
		return session.ReasonDraining
	case why.Local && why.Code == session.ReasonInternal.CloseCode():
		return session.ReasonInternal
	case why.Err == nil && !why.Local:
		return session.ReasonClient
	}
	return session.ReasonGone
}

// perform does cmd, and then what came meanwhile, until one has to wait.
func (c *client) perform(cmd command) {
	for {
		if !c.apply(cmd) {
			return // whoever has its answer goes on
		}
		box := c.box.Load()
		if box == nil {
			return
		}
		next, ok := box.take()
		if !ok {
			c.box.CompareAndSwap(box, nil)
			return
		}
		cmd = next
	}
}

// apply does one command; false: its answer comes later, and perform goes on
// from there.
func (c *client) apply(cmd command) bool {
	switch cmd.verb {
	case verbReady:
		c.queue(barrierFrame)
	case verbSelect:
		return c.selectChat(cmd)
	case verbResume:
		return c.resume(cmd.point)
	case verbRefresh:
		c.refresh(cmd.token)
	}
	return true
}

// barrierFrame answers every barrier of every socket; immutable.
var barrierFrame = loop.NewFrame(ws.OpText, barrier, loop.Control)

// selectChat changes the selection. Two go on together when it is done: this
// call, and done, which may even come before it returns; the second of them
// lets the next command through, so nothing recurses.
func (c *client) selectChat(cmd command) (finished bool) {
	if c.Key().IsAdmin() {
		c.bad("admin sessions have no chats to select")
		return true
	}
	core := c.edge.env.core()
	if c.box.Load() == nil {
		c.box.Store(new(mailbox))
	}
	var ends atomic.Int32
	err := core.manager.Select(&c.Session, cmd.chat, func(err error) {
		c.selected(core, cmd, err, func() {
			if ends.Add(1) == 2 {
				c.next()
			}
		})
	})
	if err != nil {
		c.selectFailed(err)
		return true
	}
	return ends.Add(1) == 2
}

// next goes on after a command whose answer came later.
func (c *client) next() {
	box := c.box.Load()
	if cmd, ok := box.take(); ok {
		c.perform(cmd)
		return
	}
	c.box.CompareAndSwap(box, nil)
}

// selected answers a select_chat whose route is known, and calls end.
func (c *client) selected(core *edgeCore, cmd command, err error, end func()) {
	if err != nil {
		c.selectFailed(err)
		end()
		return
	}
	if !cmd.ack {
		end()
		return
	}
	// The leader's last seq, read after the join: all above it comes live. It
	// takes a round trip, and this may be the goroutine of all of Redis.
	go func() {
		defer end()
		defer c.rescue()
		ctx, cancel := context.WithTimeout(context.Background(), ackTimeout)
		defer cancel()
		seq, err := core.last(ctx)
		if err != nil {
			c.fail(session.ReasonOverloaded, "selected, but from which seq on could not be found out")
			return
		}
		c.send(encodeSelected(cmd.chat, seq))
	}()
}

// selectFailed says why the selection is what it was.
func (c *client) selectFailed(err error) {
	switch {
	case errors.Is(err, session.ErrClosed):
		return
	case errors.Is(err, session.ErrDenied):
		c.bad("the token does not allow this chat")
		return
	}
	c.edge.m.selectErrors.Inc()
	c.fail(session.ReasonOverloaded, "the former chat stays selected")
}

// drain says when to come back, each client at a time of its own.
func (c *client) drain() {
	if c.Has(session.FlagNewFrames) && c.Set(session.FlagDrained) {
		c.send(encodeDraining(reconnectMin + rand.N(reconnectSpread)))
	}
}

// refresh takes a newer token of the same identity and rights.
func (c *client) refresh(token string) {
	v := c.edge.env.users
	if c.Key().IsAdmin() {
		v = c.edge.env.admins
	}
	// The ring itself: a shared cache would be waited for, and this may be the
	// poller.
	claims, err := v.Ring().Verify(token, time.Now())
	switch {
	case errors.Is(err, session.ErrExpired):
		c.fail(session.ReasonExpired, "")
		return
	case err != nil:
		c.fail(session.ReasonToken, "")
		return
	}
	grants := c.edge.grants.Of(&claims)
	err = c.edge.env.core().manager.Refresh(&c.Session, faults{}.whose(&claims, c.Key()), grants, claims.TokenID(token))
	switch {
	case errors.Is(err, session.ErrRevoked):
		c.fail(session.ReasonRevoked, "")
	case errors.Is(err, session.ErrDenied) && claims.Key() != c.Key():
		c.fail(session.ReasonToken, "the token is for another identity")
	case errors.Is(err, session.ErrDenied):
		c.fail(session.ReasonToken, "the token gives other rights: connect again with it")
	case err == nil:
		c.Sock().TickSoon()
		c.edge.m.refreshes.Inc()
	}
}

// misbehaved answers a message that is none, and ends a socket that sends
// nothing else. Only for the goroutine that reads the socket.
func (c *client) misbehaved(details string) {
	if !c.Allow(monotonic(), badCost, mostOwed) {
		c.close(session.ReasonRate, "too many bad messages")
		return
	}
	c.bad(details)
}

func (c *client) bad(details string) {
	c.edge.m.badMessages.Inc()
	c.fail(session.ReasonBadRequest, details)
}

// fail tells the client what went wrong; its socket stays.
func (c *client) fail(r session.Reason, details string) {
	c.send(encodeError(r.Code(), r.Message(), details))
}

func (c *client) send(payload []byte) {
	c.queue(loop.NewFrame(ws.OpText, payload, loop.Control))
}

// queue gives the socket a frame, or up when it does not read.
func (c *client) queue(f *loop.Frame) {
	if errors.Is(c.Sock().Queue(f), loop.ErrSlow) {
		c.close(session.ReasonSlow, "")
	}
}

func (c *client) close(r session.Reason, details string) {
	if core := c.edge.env.core(); core != nil {
		core.manager.Close(&c.Session, r, details)
	}
}

// rescue turns a panic of a goroutine of this client into its end.
func (c *client) rescue() {
	if v := recover(); v != nil {
		c.edge.panicked("command", v)
		c.close(session.ReasonInternal, "")
	}
}
