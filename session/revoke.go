package session

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"time"
)

// ErrRevoked refuses a token that a revocation names.
var ErrRevoked = errors.New("token revoked")

// TokenID names a token for revocations: by its jti (0: it has none) and by
// itself.
type TokenID struct{ JTI, Hash uint64 }

// TokenID names the token that these claims are of.
func (c *Claims) TokenID(token string) TokenID {
	if c.Bare || c.KID == "" { // it may come without its padding, and is the same
		token = strings.TrimRight(token, "=")
		token += strings.Repeat("=", -len(token)&3)
	}
	id := TokenID{Hash: FingerprintOf(token)}
	if c.JTI != "" {
		id.JTI = FingerprintOf(c.JTI)
	}
	return id
}

// short is what a session remembers: half of each. One session in four thousand
// millions is taken for another's: it has to log in again, and there the whole
// decides.
func (t TokenID) short() uint64 { return t.JTI>>32<<32 | t.Hash>>32 }

// FingerprintOf a jti or a token is the first eight bytes of its sha256.
func FingerprintOf(s string) uint64 {
	hash := sha256.Sum256([]byte(s))
	return binary.LittleEndian.Uint64(hash[:])
}

// FingerprintOfHash is FingerprintOf of a token that is known by its sha256 in
// hex alone.
func FingerprintOfHash(digits string) (uint64, error) {
	hash, err := hex.DecodeString(digits)
	if err != nil || len(hash) != sha256.Size {
		return 0, errors.New("hash must be the sha256 of a token, 64 hex characters")
	}
	return binary.LittleEndian.Uint64(hash), nil
}

// Revocations is the set in force here, nil before the first.
func (m *Manager[C]) Revocations() *Revocations { return m.revoked.Load() }

// SetRevocations puts set in force: from now on it decides about logins and
// refreshes, and every session it is news to has been closed when this returns,
// which says how many. One call at a time; set is the Manager's from then on.
//
// Sessions do not remember when their tokens were issued. They need not: one
// that is here was held, when it went live, against all that stood in Redis at
// its acquire. What this set adds came later, so it ends the session; and a
// session that went live under this very set was held against it and is passed
// over: every walk leaves all sessions held against its news, so one bit tells
// those of the walk before from those let in since.
func (m *Manager[C]) SetRevocations(set *Revocations) int {
	old := m.revoked.Load()
	fresh := set.since(old)
	if old != nil {
		set.odd = old.odd
	}
	if len(fresh.entries) > 0 {
		set.odd = !set.odd
	}
	m.revoked.Store(set) // before the walk: see goLive
	if len(fresh.entries) == 0 {
		return 0
	}
	closed, now := 0, time.Now()
	var over []*Session[C]
	for n := range m.index.shards {
		over = m.index.shards[n].outdated(set.odd, fresh, now, over[:0])
		for _, s := range over {
			m.Close(s, ReasonRevoked, "")
		}
		closed += len(over)
	}
	return closed
}

// outdated appends the sessions that fresh ends; those held against these
// news were let in with them.
func (sh *shard[C]) outdated(odd bool, fresh *Revocations, now time.Time, over []*Session[C]) []*Session[C] {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, a := range sh.agents {
		for _, s := range a.members {
			if s.state == Joining || s.wasHeld(odd) {
				continue // a login is held against the newest set before it goes live
			}
			s.heldAgainst(odd)
			if fresh.ends(bearer{s.Key(), s.Grants().KID()}, s.token, now) {
				s.doomed = true
				over = append(over, s)
			}
		}
	}
	return over
}

// recheck holds a login against the revocations as they were when its lock was
// taken, or newer ones.
func (m *Manager[C]) recheck(ctx context.Context, l *login[C], version uint64) error {
	set := m.revoked.Load()
	if m.o.Refresh != nil && (set == nil || set.Version != version) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := m.o.Refresh(ctx); err != nil {
			return &Refusal{Reason: ReasonOverloaded, Details: "revocations could not be read", Err: err}
		}
		if set = m.revoked.Load(); set == nil {
			return &Refusal{Reason: ReasonInternal, Details: "no revocations"}
		}
	}
	if c := l.opt.Claims; c != nil && set != nil {
		if _, revoked := set.Refuses(c, l.opt.Token, time.Now()); revoked {
			return &Refusal{Reason: ReasonRevoked}
		}
	}
	l.checked = set
	return nil
}

// Refresh gives s the newer token of claims c, whose grants are g. ErrClosed,
// ErrDenied (another identity, or other rights), ErrRevoked: s goes on with the
// one it had.
func (m *Manager[C]) Refresh(s *Session[C], c *Claims, g *Grants, token TokenID) error {
	if c.Key() != s.Key() || !g.Same(s.Grants()) {
		return ErrDenied
	}
	sh := m.shard(s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if s.state != Live && s.state != Replay {
		return ErrClosed
	}
	if set := m.revoked.Load(); set != nil {
		if _, revoked := set.Refuses(c, token, time.Now()); revoked {
			return ErrRevoked
		}
	}
	s.token = token.short()
	s.grants.Store(g)
	s.SetExpires(c.ExpiresAt)
	s.Unset(FlagWarned)
	return nil
}
