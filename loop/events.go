package loop

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/gobwas/ws"
	"github.com/lesismal/nbio"
)

// onData runs on a poller; data is lent.
func (e *Engine) onData(nb *nbio.Conn, data []byte) {
	c, ok := nb.Session().(*Conn)
	if !ok {
		return
	}
	c.lastByte.Store(e.now.Load())
	e.pollers[nb.Hash()%len(e.pollers)].bytes.Add(uint64(len(data)))
	if c.mutes(len(data)) {
		c.mute()
		return
	}
	if c.is(flagDeaf) {
		return
	}
	defer c.rescue()
	if c.overTLS() {
		c.readTLS(data)
		return
	}
	c.read(data)
}

// onClose runs on nbio's closing goroutine.
func (e *Engine) onClose(nb *nbio.Conn, err error) {
	if c, ok := nb.Session().(*Conn); ok {
		c.died(err)
	}
}

// onWritten runs under nbio's lock, on the worker or a poller: n bytes went to
// the kernel.
func (e *Engine) onWritten(nb *nbio.Conn, _ []byte, n int) {
	c, ok := nb.Session().(*Conn)
	if !ok || !c.sent(n) || !c.is(flagBlocked) {
		return
	}
	s := c.shard
	s.mu.Lock()
	wake := false
	if c.is(flagBlocked) {
		c.unset(flagBlocked)
		wake = s.mark(c)
	}
	s.mu.Unlock()
	if wake {
		s.worker.wake(s.bit)
	}
}

// closed tells the handler the last word.
func (e *Engine) closed(c *Conn, why End) {
	e.guard("closed", func() { c.handler.Closed(c, why) })
}

// guard calls f, whose panic costs nothing but its count.
func (e *Engine) guard(where string, f func()) {
	defer func() {
		if p := recover(); p != nil {
			e.panicked(where, p)
		}
	}()
	f()
}

// rescue makes a panic in a callback cost one socket.
func (c *Conn) rescue() {
	if p := recover(); p != nil {
		c.engine().panicked("message", p)
		c.rd = nil
		c.fail(codeInternal, "internal error", nil)
	}
}

func (e *Engine) panicked(where string, p any) {
	e.metrics.panics.Inc()
	e.opts.Log.Error().Str("callback", where).Interface("panic", p).Stack().Msg("handler panicked")
}

// read parses plaintext.
func (c *Conn) read(data []byte) {
	r, err := c.parser().feed(c.rd, data, c)
	c.rd = r
	if slow := c.progress(); slow != nil {
		c.parser().drop(r)
		c.rd = nil
		err = slow
	}
	if wrong := (*ProtocolError)(nil); errors.As(err, &wrong) {
		c.fail(wrong.Code, wrong.What, wrong)
	}
}

func (c *Conn) parser() *parser {
	if c.is(flagDeflate) {
		return c.engine().zparser
	}
	return c.engine().parser
}

var _ frameSink = (*Conn)(nil)

// message hands a message to the handler, unless we are closing.
func (c *Conn) message(op ws.OpCode, payload []byte) bool {
	if c.is(flagClosing) {
		return !c.is(flagDeaf) // the peer's close frame is still to come
	}
	c.engine().pollers[c.lane()].messages.Add(1)
	c.handler.Message(c, op, payload)
	return !c.is(flagDeaf)
}

// lane spreads counters; before adoption all use the first.
func (c *Conn) lane() int {
	if c.nb == nil {
		return 0
	}
	return c.nb.Hash() % len(c.engine().pollers)
}

// empty takes a fragment without a byte.
func (c *Conn) empty() bool { return c.is(flagClosing) || c.bears() }

// bears counts a frame that is no message, and ends a socket that has sent too
// many of them.
func (c *Conn) bears() bool {
	if c.noise.add(c.engine().now.Load()) {
		return true
	}
	flood := c.engine().opts.Flood
	c.fail(flood.Code, flood.What, flood)
	return false
}

func (c *Conn) control(op ws.OpCode, payload []byte) bool {
	if op != ws.OpClose && !c.is(flagClosing) && !c.bears() {
		return false
	}
	switch op {
	case ws.OpPing:
		if c.answersPings() {
			_ = c.Queue(c.frame(ws.OpPong, payload, Control)) // over budget or closing: not answered
		}
	case ws.OpPong:
		c.pong(payload)
	case ws.OpClose:
		code, err := closeCode(payload)
		if err != nil {
			c.fail(err.Code, err.What, err)
		} else {
			c.peerClosed(code)
		}
		return false
	}
	return !c.is(flagDeaf)
}

// maxPongs bounds the control frames that wait for a socket when its peer's ping
// is still answered.
const maxPongs = 16

// answersPings says whether a ping is to be answered: not where so much waits
// already that the peer can't be reading. A pong of a few bytes takes a hundred
// of memory, which the budget does not see; RFC 6455 (5.5.3) asks only for that
// of the latest ping.
func (c *Conn) answersPings() bool {
	c.shard.mu.Lock()
	defer c.shard.mu.Unlock()
	return c.q == nil || len(c.q.control)-c.q.nextC < maxPongs
}

// pong takes the round trip of our last ping; others are only a sign of life.
func (c *Conn) pong(payload []byte) {
	if len(payload) != 12 || binary.BigEndian.Uint32(payload) != c.pingAt.Load() {
		return
	}
	stamp := time.Duration(binary.BigEndian.Uint64(payload[4:]))
	d := time.Since(c.engine().base) - stamp
	if stamp < 0 || d < 0 || d > c.engine().opts.PongTimeout {
		return // not ours after all
	}
	c.rtt.Store(uint32(min(d/time.Microsecond, 1<<32-1)))
	c.engine().metrics.rtt.Update(d.Seconds())
}

// closeCode reads a close frame's payload.
func closeCode(p []byte) (uint16, *ProtocolError) {
	if len(p) == 0 {
		return codeNoStatus, nil
	}
	if len(p) == 1 {
		return 0, errCloseBody
	}
	code := binary.BigEndian.Uint16(p)
	switch {
	case code >= 3000 && code <= 4999:
	case code >= 1000 && code <= 1014 && code != 1004 && code != codeNoStatus && code != codeAbnormal:
	default:
		return 0, errCloseBody
	}
	var u utf8Stream
	if !u.write(p[2:]) || !u.whole() {
		return 0, errCloseText
	}
	return code, nil
}

// readTLS feeds records and parses what they hold.
func (c *Conn) readTLS(records []byte) {
	e := c.engine()
	buf := e.plain.Get().(*[plainSize]byte)
	defer e.plain.Put(buf)
	err := c.wire.open(records, buf[:], func(plain []byte) bool {
		c.read(plain)
		return !c.is(flagDeaf)
	})
	if err != nil { // io.EOF after close_notify
		c.kill(End{Code: codeAbnormal, Err: err})
		return
	}
	if err := c.recordProgress(); err != nil {
		c.fail(errSlowMessage.Code, errSlowMessage.What, err)
	}
}
