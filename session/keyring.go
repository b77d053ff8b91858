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
	kid    string // empty: mints bare tokens
	answer string // the kid whose revocation stops it: its own, or that of the same key in this ring
	aead   cipher.AEAD
	aad    []byte
}

// ParseKeyRing reads "kid:hex,kid:hex" or a bare "hex" of 32 bytes each.
// legacy lets bare tokens (no kid, no AAD) in, sealed with any key of the ring.
func ParseKeyRing(purpose Purpose, spec string, legacy bool) (*KeyRing, error) {
	if purpose != PurposeUser && purpose != PurposeAdmin {
		return nil, fmt.Errorf("purpose %q: must be user or admin", purpose)
	}
	r := &KeyRing{purpose: purpose, legacy: legacy}
	named := map[string]string{} // the key itself -> its kid
	for i, entry := range strings.Split(spec, ",") {
		k, key, err := parseRingKey(purpose, strings.TrimSpace(entry))
		if err != nil {
			return nil, fmt.Errorf("token key %d: %w", i+1, err)
		}
		if k.kid == "" && !legacy {
			return nil, fmt.Errorf("token key %d: without a kid it mints bare tokens, which are not accepted; write kid:hex or accept legacy tokens", i+1)
		}
		if slices.ContainsFunc(r.keys, func(o ringKey) bool { return o.kid != "" && o.kid == k.kid }) {
			return nil, fmt.Errorf("token key %d: kid %q is given twice", i+1, k.kid)
		}
		if k.kid != "" && named[key] == "" {
			named[key] = k.kid
		}
		k.answer = key
		r.keys = append(r.keys, k)
	}
	for i := range r.keys {
		r.keys[i].answer = named[r.keys[i].answer]
	}
	return r, nil
}

// parseRingKey never repeats the key's text in an error: that goes to logs.
func parseRingKey(purpose Purpose, entry string) (k ringKey, key string, err error) {
	kid, digits, ok := strings.Cut(entry, ":")
	if !ok {
		kid, digits = "", entry
	} else if !validKID(kid) {
		return k, "", errors.New("kid must be 1-32 of A-Z a-z 0-9 _ -")
	}
	bytes, err := hex.DecodeString(digits)
	if err != nil || len(bytes) != 32 {
		return k, "", errors.New("must be 32 bytes as 64 hex characters")
	}
	block, err := aes.NewCipher(bytes)
	if err != nil {
		return k, "", fmt.Errorf("make cipher: %w", err)
	}
	k.kid = kid
	if k.aead, err = cipher.NewGCM(block); err != nil {
		return k, "", fmt.Errorf("make GCM: %w", err)
	}
	if kid != "" {
		k.aad = []byte(kid + "." + string(purpose))
	}
	return k, string(bytes), nil
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
	plain, key, err := r.open(kid, sealed)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	c, err := parseClaims(r.purpose, plain)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrToken, err)
	}
	c.KID, c.Bare = key.kid, kid == ""
	if c.Bare {
		c.KID = key.answer
	}
	return c, nil
}

// isNamed says whether some key here has a kid: who sealed a bare token then
// shows only when it is opened.
func (r *KeyRing) isNamed() bool {
	return slices.ContainsFunc(r.keys, func(k ringKey) bool { return k.kid != "" })
}

// has says whether tokens of kid may be verified here at all.
func (r *KeyRing) has(kid string) bool {
	if kid == "" {
		return r.legacy
	}
	return slices.ContainsFunc(r.keys, func(k ringKey) bool { return k.kid == kid })
}

func (r *KeyRing) open(kid string, sealed []byte) (plain []byte, by *ringKey, err error) {
	if len(sealed) < nonceSize {
		return nil, nil, errors.New("too short")
	}
	nonce, sealed := sealed[:nonceSize], sealed[nonceSize:]
	if kid == "" && !r.legacy {
		return nil, nil, errors.New("tokens without a kid are not accepted")
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
			return plain, k, nil
		}
	}
	if kid == "" {
		return nil, nil, errors.New("not sealed by any key here")
	}
	return nil, nil, errors.New("unknown kid, or not sealed by its key for this purpose")
}
