package session

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/elastic/go-freelru"
)

// VerifierOptions configures a Verifier.
type VerifierOptions struct {
	Ring   *KeyRing         // required
	TTL    time.Duration    // how long claims are remembered; 30 s for users, 60 s for admins
	Size   int              // how many; 1024: who shows a token twice within TTL mostly does so at once
	Shared TokenCache       // nil: none
	Now    func() time.Time // time.Now
}

func (o VerifierOptions) withDefaults() (VerifierOptions, error) {
	if o.Ring == nil {
		return o, errors.New("verifier: Ring is required")
	}
	if o.TTL == 0 {
		o.TTL = 30 * time.Second
		if o.Ring.purpose == PurposeAdmin {
			o.TTL = 60 * time.Second
		}
	}
	if o.Size == 0 {
		o.Size = 1024
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.TTL < 0 || o.Size < 0 {
		return o, errors.New("verifier: TTL and Size must not be negative")
	}
	return o, nil
}

// Verifier verifies tokens of one purpose and remembers the good ones, by
// their hash and never past their expiry. Ready after NewVerifier, for any
// number of goroutines; it starts none.
type Verifier struct {
	o     VerifierOptions
	ring  atomic.Pointer[KeyRing]
	cache *freelru.SyncedLRU[tokenHash, remembered]
}

type tokenHash [sha256.Size]byte

// remembered belongs to one ring: a rotation forgets all without a purge that
// a verification under way could outlive.
type remembered struct {
	claims *Claims
	ring   *KeyRing
}

// NewVerifier makes a Verifier.
func NewVerifier(o VerifierOptions) (*Verifier, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	cache, err := freelru.NewSynced[tokenHash, remembered](uint32(o.Size), func(h tokenHash) uint32 { return binary.LittleEndian.Uint32(h[:]) })
	if err != nil {
		return nil, fmt.Errorf("make token cache: %w", err)
	}
	v := &Verifier{o: o, cache: cache}
	v.ring.Store(o.Ring)
	return v, nil
}

// Ring is the current ring.
func (v *Verifier) Ring() *KeyRing { return v.ring.Load() }

// SetRing rotates: from now on nothing verified by another ring counts.
func (v *Verifier) SetRing(r *KeyRing) { v.ring.Store(r) }

// Verify returns the claims of a token; they are shared and must not be
// changed. Errors wrap ErrToken or ErrExpired. It blocks only on a shared cache.
func (v *Verifier) Verify(ctx context.Context, token string) (*Claims, error) {
	if len(token) > MaxToken {
		return nil, fmt.Errorf("%w: too long", ErrToken)
	}
	ring, now, hash := v.ring.Load(), v.o.Now(), tokenHash(sha256.Sum256([]byte(token)))
	if m, ok := v.cache.Get(hash); ok && m.ring == ring {
		if !now.Before(m.claims.ExpiresAt) {
			return nil, ErrExpired
		}
		return m.claims, nil
	}
	if c := v.sharedGet(ctx, ring, token, now); c != nil {
		v.remember(hash, ring, c, now)
		return c, nil
	}
	c, err := ring.Verify(token, now)
	if err != nil {
		return nil, err
	}
	v.remember(hash, ring, &c, now)
	v.sharedSet(ctx, token, &c, now)
	return &c, nil
}

func (v *Verifier) remember(hash tokenHash, ring *KeyRing, c *Claims, now time.Time) {
	v.cache.AddWithLifetime(hash, remembered{c, ring}, max(time.Millisecond, min(v.o.TTL, c.ExpiresAt.Sub(now))))
}

// sharedName is the hash today's service names its cache entries by.
func (v *Verifier) sharedName(token string) string {
	if v.o.Ring.purpose == PurposeAdmin {
		token = "admin_" + token
	}
	h := sha256.Sum256([]byte(token))
	return hex.EncodeToString(h[:])
}

func (v *Verifier) sharedGet(ctx context.Context, ring *KeyRing, token string, now time.Time) *Claims {
	if v.o.Shared == nil {
		return nil
	}
	kid, _, err := splitToken(token)
	if err != nil || !ring.has(kid) || kid == "" && ring.isNamed() {
		return nil // a key that was taken out, or revoked, takes its tokens along, cached or not
	}
	raw, ok, err := v.o.Shared.TokenGet(ctx, v.sharedName(token))
	if err != nil || !ok || !json.Valid(raw) {
		return nil
	}
	c, err := parseClaims(ring.purpose, raw)
	if err != nil || c.valid(now) != nil {
		return nil
	}
	c.KID, c.Bare = kid, kid == ""
	return &c
}

func (v *Verifier) sharedSet(ctx context.Context, token string, c *Claims, now time.Time) {
	if v.o.Shared == nil {
		return
	}
	raw, err := c.plaintext()
	if err != nil {
		return
	}
	// Lost writes cost a decryption elsewhere, nothing more.
	_ = v.o.Shared.TokenSet(ctx, v.sharedName(token), raw, min(v.o.TTL, c.ExpiresAt.Sub(now)))
}
