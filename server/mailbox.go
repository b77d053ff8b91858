package server

import "sync"

// maxWaiting is how many messages of one socket may wait for an answer of
// Redis to an earlier one.
const maxWaiting = 16

// mailbox keeps the order of a socket's messages while one of them waits for
// Redis. A socket has one only for that time.
type mailbox struct {
	mu      sync.Mutex
	waiting []command // mu
	closed  bool      // mu; all was done, and the socket has dropped it
}

// put says whether cmd must wait its turn; full, that it can't.
func (m *mailbox) put(cmd command) (waits, full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false, false
	}
	if len(m.waiting) >= maxWaiting {
		return true, true
	}
	m.waiting = append(m.waiting, cmd)
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
	m.waiting = m.waiting[1:]
	return cmd, true
}
