package loop

import (
	"io"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// ending is what a Conn has from the moment that something ends it.
type ending struct {
	why      End
	deadline int64  // Engine.millis at which the socket is closed whatever happens
	sent     func() // of CloseThen, nil once called
	heard    int    // bytes that came since
}

// Close ends the Conn: what is queued goes first, then the close frame, then
// the peer's answer is awaited, at most CloseTimeout for each half, and the
// socket closed. The first Close wins. After it Queue says ErrClosed. Before
// adoption it is remembered.
func (c *Conn) Close(code uint16, reason string) { c.CloseThen(code, reason, nil) }

// CloseThen is Close that calls sent once, when the close frame is with the
// kernel, or at once where that is not to be waited for: the socket takes
// nothing now, is gone, or is no socket yet. sent comes on any goroutine, also
// before CloseThen returns, and must not block.
func (c *Conn) CloseThen(code uint16, reason string, sent func()) {
	s := c.shard
	s.mu.Lock()
	wake := false
	if !c.is(flagClosing) {
		wake = s.ending(c, End{Code: code, Local: true}, c.frame(ws.OpClose, closeBody(code, reason), Control))
	}
	if sent != nil && c.is(flagOpen) && !c.is(flagSent|flagBlocked|flagDead) {
		before, then := c.end.sent, sent
		c.end.sent, sent = func() {
			if before != nil {
				before()
			}
			c.engine().guard("sent", then)
		}, nil
	}
	s.mu.Unlock()
	if wake {
		s.worker.wake(s.bit)
	}
	if sent != nil {
		sent()
	}
}

// takeSent takes what is to be called about the close frame, nil if nothing is;
// the caller holds shard.mu.
func (c *Conn) takeSent() (sent func()) {
	if c.end != nil {
		sent, c.end.sent = c.end.sent, nil
	}
	return sent
}

// ending books why c ends and queues its close frame as the last one.
func (s *shard) ending(c *Conn, why End, last *Frame) (wake bool) {
	c.set(flagClosing)
	c.end = &ending{why: why, deadline: s.engine.deadline()}
	if c.q == nil {
		c.q = s.queue()
	}
	c.q.last = last
	c.queued += int32(len(last.bytes))
	if c.is(flagOpen) {
		s.list(c)
	}
	return s.mark(c)
}

// list puts c where the sweeper looks for deadlines.
func (s *shard) list(c *Conn) {
	if !c.is(flagListed) {
		c.set(flagListed)
		s.closing = append(s.closing, c)
	}
}

// fail ends c because of what its peer did: events are dropped, the close frame
// goes next, and of what still comes in a little is thrown away, then none read.
func (c *Conn) fail(code uint16, reason string, err error) {
	s := c.shard
	s.mu.Lock()
	c.set(flagDeaf | flagFailed)
	wake := false
	if !c.is(flagClosing) {
		s.dropEvents(c, dropClosed)
		wake = s.ending(c, End{Code: code, Local: true, Err: err}, c.frame(ws.OpClose, closeBody(code, reason), Control))
	}
	s.mu.Unlock()
	if wake {
		s.worker.wake(s.bit)
	}
}

// peerClosed takes the peer's close frame: it answers ours, or is echoed.
func (c *Conn) peerClosed(code uint16) {
	s := c.shard
	s.mu.Lock()
	c.set(flagPeer | flagDeaf)
	s.dropEvents(c, dropClosed) // nobody reads them any more
	wake, done := false, false
	if c.is(flagClosing) {
		done = c.is(flagSent)
	} else {
		wake = s.ending(c, End{Code: code}, c.frame(ws.OpClose, closeBody(code, ""), Control))
	}
	s.mu.Unlock()
	if wake {
		s.worker.wake(s.bit)
	}
	if done {
		c.hangUp()
	}
}

// hangUp ends the socket after a close handshake.
func (c *Conn) hangUp() {
	if c.overTLS() && c.backlog.Load() == 0 {
		c.wire.closeNotify()
	}
	c.shutdown(unix.SHUT_RDWR)
}

// kill ends the socket without a word, for the reason given unless something
// else began the end; its Err is told in any case.
func (c *Conn) kill(why End) {
	s := c.shard
	s.mu.Lock()
	c.set(flagClosing | flagDeaf | flagKilled)
	if c.end == nil {
		c.end = &ending{why: why}
	} else if c.end.why.Err == nil {
		c.end.why.Err = why.Err
	}
	open := c.is(flagOpen)
	s.mu.Unlock()
	if open {
		c.shutdown(unix.SHUT_RDWR)
	}
}

// shutdownWrite says to a peer that broke the protocol that nothing more comes,
// while the socket stays: closing at once would reset the connection and could
// destroy the close frame on its way.
func (c *Conn) shutdownWrite() {
	if c.overTLS() {
		c.wire.closeNotify()
	}
	c.shutdown(unix.SHUT_WR)
}

// died is told that the socket is closed, or will never be adopted.
func (c *Conn) died(err error) { c.dieUnless(flagDead, err) }

// dieUnless is the one place where a Conn ends. With one of the flags in not it
// does nothing; flagDead is one of them, for only the first call counts.
func (c *Conn) dieUnless(not uint32, err error) {
	s := c.shard
	s.mu.Lock()
	if c.is(not) {
		s.mu.Unlock()
		return
	}
	c.set(flagDead | flagClosing | flagDeaf)
	why := End{Code: codeAbnormal, Err: err}
	if c.end != nil {
		why = c.end.why
		if why.Err == nil && !c.is(flagPeer) {
			why.Err = err
		}
	}
	if why.Err == nil && why.Code == codeAbnormal {
		why.Err = io.EOF
	}
	sent := c.takeSent()
	s.table.remove(c)
	if !c.is(flagBusy) {
		s.dropAll(c)
	}
	s.mu.Unlock()
	if sent != nil {
		sent()
	}
	c.engine().closed(c, why)
}

// Abandon ends a Conn that was made and will not be adopted: what waited is
// discarded, and Closed told with err. Once Adopt has begun it does nothing.
func (c *Conn) Abandon(err error) { c.dieUnless(flagDead|flagAdopting, err) }
