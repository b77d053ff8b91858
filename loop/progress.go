package loop

// A message, and a TLS record, has MessageTimeout from its first byte to its
// last. Where it stands is in the reader, which is there while something is
// unfinished. The poller finds one that trickles with its next bytes, the
// sweeper one that stopped.

// progress notes that a message is under way, or no more; the error ends the
// socket. The poller calls it when it has parsed what came.
func (c *Conn) progress() error {
	r := c.rd
	if r == nil {
		if c.is(flagPartly) {
			c.setPartly(false)
			c.partial.Store(0)
		}
		return nil
	}
	c.partial.Store(uint32(r.size() + c.recordSize()))
	if r.began == 0 {
		r.began = max(c.engine().now.Load(), 1)
		c.setPartly(true)
	}
	if c.engine().now.Load()-r.began >= c.engine().messageTimeout() {
		return errSlowMessage
	}
	return nil
}

// recordProgress is progress for a record, or one of TLS's own messages, of which
// no plaintext came yet. An empty reader stands for it.
func (c *Conn) recordProgress() error {
	e := c.engine()
	if c.is(flagDeaf) || !e.fields().holds(c.wire.tls) {
		c.rd = c.parser().rest(c.rd)
	} else if c.rd == nil {
		c.rd = c.parser().get()
	}
	return c.progress()
}

// Partial is how many bytes are kept of a message, a TLS record or one of TLS's
// own messages that has begun and not ended; 0: there is none.
func (c *Conn) Partial() int { return int(c.partial.Load()) }

// recordSize is what TLS keeps of what has begun.
func (c *Conn) recordSize() int {
	if !c.overTLS() {
		return 0
	}
	return c.engine().fields().size(c.wire.tls)
}

// Cut ends the socket at once, without a word: what is kept of a message that
// has begun is free then, and not after a close handshake that never comes.
func (c *Conn) Cut() { c.kill(End{Code: codeAbnormal, Local: true, Err: ErrSlow}) }

func (c *Conn) setPartly(on bool) {
	c.shard.mu.Lock()
	defer c.shard.mu.Unlock()
	if on {
		c.set(flagPartly)
		e := c.engine()
		c.shard.table.hasten(c, e.now.Load()+e.messageTimeout()+1)
	} else {
		c.unset(flagPartly)
	}
}

// messageTimeout is in seconds, as Engine.now.
func (e *Engine) messageTimeout() uint32 { return uint32(e.opts.MessageTimeout.Seconds()) }
