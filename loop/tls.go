package loop

import (
	"crypto/tls"
	"errors"
	"io"
)

const (
	// maxRecord is the plaintext of one TLS record: more than this is several.
	maxRecord = 16 << 10
	// plainSize is the plaintext that is decrypted before it is parsed.
	plainSize = maxRecord
	// keepSeal bounds the buffer that a worker keeps for joined records.
	keepSeal = 2 * joinLimit
)

// wear puts the adopted connection under t. Until release, what t writes (an
// answer to a key update among the early bytes) is kept.
func (w *Wire) wear(c *Conn, t *tls.Conn, kept *[]byte) {
	w.conn, w.tls, w.out = c, t, kept
}

// unleash sends what was kept; from now on records go out.
func (w *Wire) unleash() {
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := w.out
	w.out = nil
	if len(*kept) > 0 {
		_ = w.conn.write(*kept) // an error closes the socket, and Closed tells
	}
}

// seal encrypts b and sends it with one write; scratch joins the records when
// there are several. The worker calls it.
func (w *Wire) seal(b []byte, scratch *[]byte) error {
	if len(b) <= maxRecord {
		_, err := w.tls.Write(b)
		return err
	}
	if cap(*scratch) > keepSeal {
		*scratch = nil
	}
	*scratch = (*scratch)[:0]
	w.mu.Lock()
	w.out = scratch
	w.mu.Unlock()
	_, err := w.tls.Write(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out = nil
	if err == nil {
		err = w.conn.write(*scratch)
	}
	return err
}

// open decrypts what it is fed and calls f with the plaintext, lent, until
// nothing whole is left or f returns false. The poller calls it. tls.Conn's
// input buffer is lent for the call: an idle connection has none.
func (w *Wire) open(records []byte, plain []byte, f func([]byte) bool) error {
	w.in = records
	e := w.conn.engine()
	fields := e.fields()
	lent := fields.lend(w.tls, e.alloc)
	defer func() {
		w.in = nil
		fields.takeBack(w.tls, e.alloc, lent)
	}()
	for {
		n, err := w.tls.Read(plain)
		if n > 0 && !f(plain[:n]) {
			return nil
		}
		switch {
		case err == nil:
		case errors.Is(err, errAgain):
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return io.EOF
		default:
			return err
		}
	}
}

// closeNotify tells the peer's TLS that nothing more comes.
func (w *Wire) closeNotify() { _ = w.tls.CloseWrite() }
