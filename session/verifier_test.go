package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestVerifier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(testNow)) // synctest begins in 2000
		r := ring(t, PurposeUser, "k1:"+testKeyHex, true)
		v, err := NewVerifier(VerifierOptions{Ring: r})
		if err != nil {
			t.Fatal(err)
		}
		verify := func(token string) (*Claims, error) { return v.Verify(t.Context(), token) }
		first, err := verify(kidVector)
		if err != nil || first.User != "u1" {
			t.Fatal(first, err)
		}
		if again, _ := verify(kidVector); again != first {
			t.Error("not remembered")
		}
		time.Sleep(31 * time.Second)
		if again, _ := verify(kidVector); again == first || again == nil {
			t.Error("remembered for longer than its time")
		}
		short := userClaims
		short.ExpiresAt = time.Now().Add(2 * time.Second)
		token, err := r.Mint(short)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verify(token); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Second)
		if _, err := verify(token); !errors.Is(err, ErrExpired) {
			t.Errorf("after its expiry: %v", err)
		}
		v.SetRing(ring(t, PurposeUser, "k2:"+strings.Repeat("ab", 32), true))
		if _, err := verify(kidVector); !errors.Is(err, ErrToken) {
			t.Errorf("after its key was taken out: %v", err)
		}
		if _, err := verify(strings.Repeat("A", MaxToken+1)); !errors.Is(err, ErrToken) {
			t.Errorf("too long: %v", err)
		}
		if _, err := NewVerifier(VerifierOptions{}); err == nil {
			t.Error("a verifier without a ring")
		}
	})
}

type tokenCache struct {
	values map[string]string
	ttl    time.Duration
	err    error
}

func (c *tokenCache) TokenGet(_ context.Context, hash string) ([]byte, bool, error) {
	v, ok := c.values[hash]
	return []byte(v), ok, c.err
}

func (c *tokenCache) TokenSet(_ context.Context, hash string, claims []byte, ttl time.Duration) error {
	c.values[hash], c.ttl = string(claims), ttl
	return c.err
}

// The shared cache does not say which key sealed a bare token, and its kid may be
// revoked: where keys have names the token itself is asked.
func TestVerifierSharedKeysWithNames(t *testing.T) {
	hash := sha256.Sum256([]byte(userVector))
	c := &tokenCache{values: map[string]string{
		hex.EncodeToString(hash[:]): `{"company_id":"other","agent_id":"ag1","user_id":"u1","expires_at":"2099-01-01T00:00:00Z"}`,
	}}
	v, err := NewVerifier(VerifierOptions{Ring: ring(t, PurposeUser, "k1:"+testKeyHex, true), Shared: c, Now: func() time.Time { return testNow }})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.Verify(t.Context(), userVector); err != nil || got.Company != "acme" || got.KID != "k1" || !got.Bare {
		t.Errorf("%+v, %v", got, err)
	}
}

// The shared cache has today's names and values.
func TestVerifierShared(t *testing.T) {
	f := func(p Purpose, token, prefix, plain string) {
		t.Helper()
		hash := sha256.Sum256([]byte(prefix + token))
		name := hex.EncodeToString(hash[:])
		c := &tokenCache{values: map[string]string{}}
		fresh := func() *Verifier {
			v, err := NewVerifier(VerifierOptions{Ring: ring(t, p, testKeyHex, true), Shared: c, Now: func() time.Time { return testNow }})
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		if _, err := fresh().Verify(t.Context(), token); err != nil || c.values[name] != plain {
			t.Errorf("%v; stored %q", err, c.values)
		}
		c.values[name] = strings.Replace(plain, "acme", "other", 1)
		if got, err := fresh().Verify(t.Context(), token); err != nil || got.Company != "other" && got.CompanyRestriction != "other" {
			t.Errorf("not taken from the cache: %+v, %v", got, err)
		}
		for _, bad := range []string{"", "null", "{}", strings.Replace(plain, "2099", "2001", 1), strings.Replace(plain, "acme", "*", 1) + "x"} {
			c.values[name] = bad
			if got, err := fresh().Verify(t.Context(), token); err != nil || got.Company == "*" {
				t.Errorf("bad entry %q: %+v, %v", bad, got, err)
			}
		}
		c.err = errors.New("redis down")
		if _, err := fresh().Verify(t.Context(), token); err != nil {
			t.Errorf("without the cache: %v", err)
		}
	}
	f(PurposeUser, userVector, "", `{"company_id":"acme","agent_id":"ag1","user_id":"u1","expires_at":"2099-01-01T00:00:00Z"}`)
	f(PurposeAdmin, adminVector, "admin_", `{"admin_id":"root1","company_id_restriction":"acme","subscribed_company_id":"*","subscribed_agent_id":"*","expires_at":"2099-01-01T00:00:00Z"}`)
}
