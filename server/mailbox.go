package server

import (
	"sync"

	"github.com/daisi/daisi-ws/session"
)

// maxWaiting is how many messages of one socket may wait for an answer of
// Redis to an earlier one.
const maxWaiting = 16

// maxWaitingBytes is how much they may be together: the longest token, or many of
// the usual ones. A resume takes as long as its client likes.
const maxWaitingBytes = session.MaxToken

// mailbox keeps the order of a socket's messages while one of them waits for
// Redis. A socket has one only for that time.
type mailbox struct {
	mu      sync.Mutex
	waiting []command // mu
	bytes   int       // mu; of them
	closed  bool      // mu; all was done, and the socket has dropped it
}

// put says whether cmd must wait its turn; full, that it can't.
func (m *mailbox) put(cmd command) (waits, full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false, false
	}
	if len(m.waiting) >= maxWaiting || m.bytes+cmd.size() > maxWaitingBytes {
		return true, true
	}
	m.waiting = append(m.waiting, cmd)
	m.bytes += cmd.size()
	return true, false
}

// take gives the next command, or closes the mailbox.
func (m *mailbox) take() (cmd command, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.waiting) == 0 {
		m.closed = true
		return command{}, false
	}
	cmd = m.waiting[0]
	m.waiting[0] = command{}
	m.waiting = m.waiting[1:]
	m.bytes -= cmd.size()
	return cmd, true
}

// held is how many bytes wait in m; nil is empty.
func (m *mailbox) held() int {
	if m == nil {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes
}
