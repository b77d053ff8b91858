package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// nonceSize is that of AES-GCM, the first bytes of every sealed token.
const nonceSize = 12

// KeyRing mints with its first key and verifies with all. Immutable, for any
// number of goroutines; a rotation is another ring.
type KeyRing struct {
	purpose Purpose
	legacy  bool
	keys    []ringKey
}

type ringKey struct {
	kid  string // empty: mints bare tokens
	aead cipher.AEAD
	aad  []byte
}

// ParseKeyRing reads "kid:hex,kid:hex" or a bare "hex" of 32 bytes each.
// legacy lets bare tokens (no kid, no AAD) in, sealed with any key of the ring.
func ParseKeyRing(purpose Purpose, spec string, legacy bool) (*KeyRing, error) {
	if purpose != PurposeUser && purpose != PurposeAdmin {
		return nil, fmt.Errorf("purpose %q: must be user or admin", purpose)
	}
	r := &KeyRing{purpose: purpose, legacy: legacy}
	for i, entry := range strings.Split(spec, ",") {
		k, err := parseRingKey(purpose, strings.TrimSpace(entry))
		if err != nil {
			return nil, fmt.Errorf("token key %d: %w", i+1, err)
		}
		if k.kid == "" && !legacy {
			return nil, fmt.Errorf("token key %d: without a kid it mints bare tokens, which are not accepted; write kid:hex or accept legacy tokens", i+1)
		}
		if slices.ContainsFunc(r.keys, func(o ringKey) bool { return o.kid != "" && o.kid == k.kid }) {
			return nil, fmt.Errorf("token key %d: kid %q is given twice", i+1, k.kid)
		}
		r.keys = append(r.keys, k)
	}
	return r, nil
}

// parseRingKey never repeats the key's text in an error: that goes to logs.
func parseRingKey(purpose Purpose, entry string) (ringKey, error) {
	kid, digits, ok := strings.Cut(entry, ":")
	if !ok {
		kid, digits = "", entry
	} else if !validKID(kid) {
		return ringKey{}, errors.New("kid must be 1-32 of A-Z a-z 0-9 _ -")
	}
	key, err := hex.DecodeString(digits)
	if err != nil || len(key) != 32 {
		return ringKey{}, errors.New("must be 32 bytes as 64 hex characters")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return ringKey{}, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return ringKey{}, fmt.Errorf("make GCM: %w", err)
	}
	k := ringKey{kid: kid, aead: aead}
	if kid != "" {
		k.aad = []byte(kid + "." + string(purpose))
	}
	return k, nil
}

// Mint seals claims with the first key. A token with a kid gets a random JTI
// and the present time as its issue when c has none; bare ones stay what they
// always were. KID is ignored.
func (r *KeyRing) Mint(c Claims) (string, error) {
	if r.keys[0].kid != "" && c.IssuedAt.IsZero() {
		c.IssuedAt = time.Now()
	}
	nonce := make([]byte, nonceSize)
	if _, err := rand.Read(nonce); err != nil {
		return "", fmt.Errorf("mint token: %w", err)
	}
	return r.mint(c, nonce)
}

func (r *KeyRing) mint(c Claims, nonce []byte) (string, error) {
	if c.Admin != (r.purpose == PurposeAdmin) {
		return "", fmt.Errorf("mint token: claims are not for a ring of purpose %s", r.purpose)
	}
	if err := c.check(); err != nil {
		return "", fmt.Errorf("mint token: %w", err)
	}
	k := &r.keys[0]
	if k.kid != "" && c.JTI == "" {
		c.JTI = rand.Text()
	}
	plain, err := c.plaintext()
	if err != nil {
		return "", fmt.Errorf("mint token: %w", err)
	}
	return joinToken(k.kid, k.aead.Seal(slices.Clone(nonce), nonce, plain, k.aad)), nil
}

// Verify opens a token and holds it against the clock. Errors wrap ErrToken or
// ErrExpired and say what is wrong without quoting the token; expired claims
// are returned with ErrExpired.
func (r *KeyRing) Verify(token string, now time.Time) (Claims, error) {
	c, err := r.Open(token)
	if err != nil {
		return Claims{}, err
	}
	return c, c.valid(now)
}

// Open is Verify without the clock, for those who look at tokens. Errors wrap
// ErrToken.
func (r *KeyRing) Open(token string) (Claims, error) {
	kid, sealed, err := splitToken(token)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	plain, err := r.open(kid, sealed)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	c, err := parseClaims(r.purpose, plain)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	c.KID = kid
	return c, nil
}

// has says whether tokens of kid may be verified here at all.
func (r *KeyRing) has(kid string) bool {
	if kid == "" {
		return r.legacy
	}
	return slices.ContainsFunc(r.keys, func(k ringKey) bool { return k.kid == kid })
}

func (r *KeyRing) open(kid string, sealed []byte) ([]byte, error) {
	if len(sealed) < nonceSize {
		return nil, errors.New("too short")
	}
	nonce, sealed := sealed[:nonceSize], sealed[nonceSize:]
	if kid == "" && !r.legacy {
		return nil, errors.New("tokens without a kid are not accepted")
	}
	for i := range r.keys {
		k := &r.keys[i]
		aad := k.aad
		if kid == "" {
			aad = nil // a bare token may be of any key, and has no AAD
		} else if k.kid != kid {
			continue
		}
		if plain, err := k.aead.Open(nil, nonce, sealed, aad); err == nil {
			return plain, nil
		}
	}
	if kid == "" {
		return nil, errors.New("not sealed by any key here")
	}
	return nil, errors.New("unknown kid, or not sealed by its key for this purpose")
}
