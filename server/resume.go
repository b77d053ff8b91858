package server

import (
	"context"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// resumes says whether this login is followed by a replay.
func (a *attempt) resumes() bool { return a.point != nil && !a.claims.Admin }

// enter opens the session of a login, and begins the replay that it asked for.
// The error is a *session.Refusal.
func (e *edge) enter(ctx context.Context, core *edgeCore, c *client, a *attempt, waiting func(bool)) error {
	opt := session.Login{Claims: a.claims, Token: a.token, Chat: a.chat, Waiting: waiting}
	if !a.resumes() {
		err := core.manager.Open(ctx, &c.Session, opt, e.greeting(core, a))
		if err == nil && a.point != nil {
			c.adminGap(core, *a.point)
		}
		return err
	}
	if !core.replays.admit() {
		e.gate.m.refused[gateResumes].Inc()
		return &session.Refusal{Reason: session.ReasonOverloaded, Details: "too many resumes wait"}
	}
	begun := false
	defer func() {
		if !begun {
			core.replays.release()
		}
	}()
	opt.Replay, opt.After = true, a.point.Seq
	c.box.Store(new(mailbox)) // its commands come after what it missed
	if err := core.manager.Open(ctx, &c.Session, opt, e.greeting(core, a)); err != nil {
		return err
	}
	begun = true
	core.replays.begin(c, *a.point)
	return nil
}

// resume goes back to point: everything after it comes again, in order. Its
// end, on another goroutine, lets the next command through.
func (c *client) resume(point resumePoint) (finished bool) {
	core := c.edge.env.core()
	if c.Key().IsAdmin() {
		c.adminGap(core, point)
		return true
	}
	if !core.replays.admit() {
		c.fail(session.ReasonOverloaded, "too many resumes wait; nothing was changed")
		return true
	}
	if !core.index.BeginReplay(&c.Session, point.Seq) {
		core.replays.release() // it is closing
		return true
	}
	if c.box.Load() == nil {
		c.box.Store(new(mailbox))
	}
	core.replays.begin(c, point)
	return false
}

// resumed goes on with the commands that waited for the end of a replay.
func (c *client) resumed() {
	defer c.rescue()
	c.next()
}

// adminGap answers an admin's resume: events of all partitions have no common
// order, so there is nothing to go back in.
func (c *client) adminGap(core *edgeCore, point resumePoint) {
	to := core.index.Watermark(c.Partition())
	if !c.gap(min(point.Seq+1, to), to, reasonAdmin, false) {
		c.close(session.ReasonGap, reasonAdmin)
	}
}

// gapFrame goes where the events would have been, so it is queued like one.
func gapFrame(from, to uint64, why string, replayable bool) *loop.Frame {
	return loop.NewFrame(ws.OpText, encodeGap(from, to, why, replayable), loop.Events)
}

// gap says that [from, to] was not delivered, in place of those events. False:
// this client does not understand gaps, and has to be closed instead.
func (c *client) gap(from, to uint64, why string, replayable bool) bool {
	if !c.Has(session.FlagNewFrames) {
		return false
	}
	c.queue(gapFrame(from, to, why, replayable))
	return true
}

// cursor keeps the client's place inside the resume window while nothing comes.
func (c *client) cursor(conn *loop.Conn) {
	if !c.Has(session.FlagNewFrames) || c.Key().IsAdmin() {
		return
	}
	core := c.edge.env.core()
	core.index.Cursor(&c.Session, func(seq uint64) bool {
		if from, hole := c.Hole(); hole {
			return conn.Queue(gapFrame(from, seq, reasonSlow, true)) == nil
		}
		return conn.Queue(loop.NewFrame(ws.OpText, encodeCursor(seq), loop.Events)) == nil
	})
}
