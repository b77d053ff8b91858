package session

import (
	"runtime"
	"strings"
	"sync"
	"weak"
)

// GrantTable gives all sessions with the same limits and key one Grants, for as
// long as one of them lives. For any number of goroutines; the zero value is
// ready.
type GrantTable struct {
	mu   sync.Mutex
	made map[string]weak.Pointer[Grants] // mu
}

// Of is NewGrants, shared.
func (t *GrantTable) Of(c *Claims) *Grants {
	g := NewGrants(c)
	if g == nil {
		return nil
	}
	name := g.kid + "\x00" + g.limits
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.made[name].Value(); old != nil {
		return old
	}
	// The strings of claims are parts of a plaintext, which must not live on.
	own := *g
	own.kid, own.role, own.company, own.agent = strings.Clone(g.kid), strings.Clone(g.role), strings.Clone(g.company), strings.Clone(g.agent)
	own.chats = make([]string, len(g.chats))
	for i, p := range g.chats {
		own.chats[i] = strings.Clone(p)
	}
	if t.made == nil {
		t.made = make(map[string]weak.Pointer[Grants])
	}
	t.made[name] = weak.Make(&own)
	runtime.AddCleanup(&own, t.forget, name)
	return &own
}

// forget drops a name whose Grants nobody has any more.
func (t *GrantTable) forget(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.made[name].Value() == nil {
		delete(t.made, name)
	}
}

// Len is how many are in use, or were until lately.
func (t *GrantTable) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.made)
}
