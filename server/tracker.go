package server

import (
	"context"
	"sync"
)

// tracker counts logins from their first byte of work to the adoption of their
// socket. http.Server forgets a connection when it is hijacked, so without it a
// stop could overtake a login. A sync.WaitGroup does not allow an Add that
// meets its Wait.
type tracker struct {
	mu   sync.Mutex
	n    int           // mu
	idle chan struct{} // mu; nil unless somebody waits; closed when n falls to 0
}

func (t *tracker) enter() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n++
}

func (t *tracker) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// wait returns when no login is under way, or ctx ends.
func (t *tracker) wait(ctx context.Context) {
	t.mu.Lock()
	if t.n == 0 {
		t.mu.Unlock()
		return
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}
