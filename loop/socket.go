package loop

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// A descriptor that the poller watches is closed by the poller alone. It handles
// the events of a round one by one, and nbio finds the socket of each by its
// descriptor: were it closed by another goroutine meanwhile, the next socket
// could get the number, and be ended by the older one's last event. So whoever
// else wants a socket gone shuts it down, which is an event.

// write sends b, or gives nbio what the kernel doesn't take. On an error the
// socket is on its way out, and the bytes count as stuck until it is.
func (c *Conn) write(b []byte) error {
	if c.backlog.Load() == 0 {
		n, err := c.tryWrite(b)
		if b = b[n:]; len(b) == 0 {
			return nil
		}
		if err != nil {
			c.backlog.Add(int64(len(b)))
			c.shutdown(unix.SHUT_RDWR)
			return err
		}
	}
	c.backlog.Add(int64(len(b)))
	_, err := c.nb.Write(b)
	return err
}

// tryWrite gives b to the kernel; what it has no room for is no error. nbio's Write
// closes the socket where it fails, on this goroutine; it has nothing of this
// one's to send before.
func (c *Conn) tryWrite(b []byte) (n int, err error) {
	c.nb.Lock()
	defer c.nb.Unlock()
	if closed, _ := c.nb.IsClosed(); closed {
		return 0, net.ErrClosed
	}
	for {
		n, err = unix.Write(c.nb.Hash(), b) // Hash is the descriptor
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return 0, nil
		default:
			return max(n, 0), err
		}
	}
}

// Unsent is how many bytes the kernel keeps for the peer and has not sent, for the
// peer takes no more now. Those that are on their way to it are not among them: a
// peer that reads all at once has some, too. It is a call to the kernel.
func (c *Conn) Unsent() (n int) {
	c.onSocket(func(fd int) {
		n, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQNSD) // an error: it keeps nothing
	})
	return n
}

// Abort is Cut that has the kernel forget what it keeps for the peer, too, which
// is told by a reset: else it would try for minutes to get rid of that.
func (c *Conn) Abort() {
	c.onSocket(func(fd int) {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	})
	c.Cut()
}

// onSocket calls f with the descriptor, unless it is closed or not there yet.
func (c *Conn) onSocket(f func(fd int)) {
	c.shard.mu.Lock()
	nb := c.nb
	c.shard.mu.Unlock()
	if nb == nil {
		return
	}
	nb.Lock()
	defer nb.Unlock()
	if closed, _ := nb.IsClosed(); !closed {
		f(nb.Hash())
	}
}

// shutdown ends one or both directions; after both the poller closes the socket.
func (c *Conn) shutdown(how int) {
	c.onSocket(func(fd int) {
		_ = unix.Shutdown(fd, how) // an error: the peer has ended it, and the poller knows
	})
}
