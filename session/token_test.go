package session

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	testKeyHex  = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	userVector  = "AAECAwQFBgcICQoLPCC1dKiVo3X0Hv7vk9NaDOC74hbcWT4bXQmR2nQNIogjccnNje0w7QfBDbLh4woCzCxRr3b0xqJP_lh8a7yUmtIG5Ejj6B9MLGWHXt7bPtgCuvlYRlMJSoDdIG-kjOvSpXV7dqtz6cMM"
	adminVector = "AAECAwQFBgcICQoLPCC3f6iMrETkJbWxk5sXAvfnpRjSGDARSAaL_EIAZO1zdd2I3ahx7B3LEc-ypUlbgzxCoXil1rhM9FhweoaRsZNTqwqyv18-dTCIVM2lLMQa-bwABQAhAZ-Y-pMZl9zjv6cwgoZ76jC8MBzXMAVIDd8UPcqX5x-4f89u9K_WXyOLY1T2hO37YzLRePsfp2znhIzYtj4OcYtSDrTxLLk="
	kidVector   = "k1.AAECAwQFBgcICQoLPCC1dKiVo3X0Hv7vk9NaDOC74hbcWT4bXQmR2nQNIogjccnNje0w7QfBDbLh4woCzCxRr3b0xqJP_lh8a7yUmtIG5Ejj6B9MLGWHXt7bPtgCuvlYRlMJStHf9LgR0oOvocl7m7y8MZvuoLAr9kz4nQtYsPc"
)

var (
	year2099  = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	testNow   = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	testNonce = []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}

	userClaims  = Claims{Company: "acme", Agent: "ag1", User: "u1", ExpiresAt: year2099}
	adminClaims = Claims{Admin: true, AdminID: "root1", CompanyRestriction: "acme", SubscribedCompany: "*", SubscribedAgent: "*", ExpiresAt: year2099}
)

func ring(t testing.TB, p Purpose, spec string, legacy bool) *KeyRing {
	t.Helper()
	r, err := ParseKeyRing(p, spec, legacy)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The vectors of wire.md, both ways.
func TestTokenVectors(t *testing.T) {
	f := func(r *KeyRing, c Claims, token string) {
		t.Helper()
		kid := c.KID
		c.KID = ""
		minted, err := r.mint(c, testNonce)
		if err != nil || minted != token {
			t.Errorf("minted %s, %v; want %s", minted, err, token)
		}
		c.KID = kid
		got, err := r.Verify(token, testNow)
		if err != nil || !equalClaims(got, c) {
			t.Errorf("verified %+v, %v; want %+v", got, err, c)
		}
	}
	f(ring(t, PurposeUser, testKeyHex, true), userClaims, userVector)
	f(ring(t, PurposeAdmin, testKeyHex, true), adminClaims, adminVector)
	withKID := userClaims
	withKID.JTI, withKID.KID = "j1", "k1"
	f(ring(t, PurposeUser, "k1:"+testKeyHex, true), withKID, kidVector)
}

func equalClaims(a, b Claims) bool {
	return a.Key() == b.Key() && a.ExpiresAt.Equal(b.ExpiresAt) && a.JTI == b.JTI && a.KID == b.KID &&
		a.CompanyRestriction == b.CompanyRestriction && a.SubscribedCompany == b.SubscribedCompany && a.SubscribedAgent == b.SubscribedAgent &&
		slices.Equal(a.Chats, b.Chats) && slices.Equal(a.Events, b.Events) && a.IssuedAt.Equal(b.IssuedAt) && a.ReadOnly == b.ReadOnly && a.Role == b.Role
}

func TestVerifyFailure(t *testing.T) {
	other := strings.Repeat("ab", 32)
	user := ring(t, PurposeUser, testKeyHex, true)
	f := func(name string, r *KeyRing, token string, want error) {
		t.Helper()
		if _, err := r.Verify(token, testNow); !errors.Is(err, want) || strings.Contains(err.Error(), token) && token != "" {
			t.Errorf("%s: got %v; want %v", name, err, want)
		}
	}
	f("empty", user, "", ErrToken)
	f("junk", user, "!!!", ErrToken)
	f("short", user, "AAAA", ErrToken)
	f("too long", user, strings.Repeat("A", MaxToken+1), ErrToken)
	f("line feed inside", user, userVector[:20]+"\n"+userVector[20:], ErrToken)
	f("carriage return at the end", user, userVector+"\r", ErrToken)
	f("too much padding", user, userVector+"=", ErrToken)
	f("padding after a kid", ring(t, PurposeUser, "k1:"+testKeyHex, true), kidVector+"=", ErrToken)
	f("malformed kid", user, "k!."+userVector, ErrToken)
	f("unknown kid", user, kidVector, ErrToken)
	f("kid's key for the other purpose", ring(t, PurposeAdmin, "k1:"+testKeyHex, true), kidVector, ErrToken)
	f("other key", ring(t, PurposeUser, other, true), userVector, ErrToken)
	f("user's token for admins", ring(t, PurposeAdmin, testKeyHex, true), userVector, ErrToken)
	f("admin's token for users", user, adminVector, ErrToken)
	f("bare token, legacy off", ring(t, PurposeUser, "k1:"+testKeyHex, false), userVector, ErrToken)
	if _, err := user.Verify(userVector, year2099); !errors.Is(err, ErrExpired) {
		t.Errorf("at its expiry: %v", err)
	}
	if _, err := user.Verify(userVector, year2099.Add(-time.Second)); err != nil {
		t.Errorf("a second before its expiry: %v", err)
	}
}

func TestVerifyClaims(t *testing.T) {
	r := ring(t, PurposeUser, testKeyHex, true)
	f := func(plain string, ok bool) {
		t.Helper()
		sealed := r.keys[0].aead.Seal(slices.Clone(testNonce), testNonce, []byte(plain), nil)
		if _, err := r.Verify(joinToken("", sealed), testNow); (err == nil) != ok {
			t.Errorf("%s: %v", plain, err)
		}
	}
	f(`{"company_id":"a","agent_id":"b","user_id":"c","expires_at":"2099-01-01T00:00:00Z","unknown":1}`, true)
	f(`{"company_id":"a","agent_id":"b","user_id":"c d","expires_at":"2099-01-01T00:00:00+07:00"}`, true)
	f(`{"company_id":"","agent_id":"b","user_id":"c","expires_at":"2099-01-01T00:00:00Z"}`, false)
	f(`{"agent_id":"b","user_id":"c","expires_at":"2099-01-01T00:00:00Z"}`, false)
	f(`{"company_id":">","agent_id":"b","user_id":"c","expires_at":"2099-01-01T00:00:00Z"}`, false)
	f(`{"company_id":"a","agent_id":"b.c","user_id":"c","expires_at":"2099-01-01T00:00:00Z"}`, false)
	f(`{"company_id":"a","agent_id":"b","user_id":"c\u0000","expires_at":"2099-01-01T00:00:00Z"}`, false)
	f(`{"company_id":"a","agent_id":"b","user_id":"c","expires_at":"tomorrow"}`, false)
	f(`{"company_id":"a","agent_id":"b","user_id":"c","expires_at":4102444800}`, false)
	f(`{"company_id":"a","agent_id":"b","user_id":"c"}`, false)
	f(`[]`, false)
	f(``, false)
	with := func(claim string, ok bool) {
		t.Helper()
		f(`{"company_id":"a","agent_id":"b","user_id":"c","expires_at":"2099-01-01T00:00:00Z",`+claim+`}`, ok)
	}
	with(`"chats":["x*","y"],"events":["chats","messages","agents","contacts","other"],"read_only":true,"iat":1767225600.5`, true)
	with(`"chats":null,"events":null`, true)
	with(`"chats":[]`, false)
	with(`"chats":[""]`, false)
	with(`"chats":["a\u0000"]`, false)
	with(`"chats":"x"`, false)
	with(`"events":[]`, false)
	with(`"events":["message"]`, false)
	with(`"events":["labels"]`, false) // would be all that have no name
	with(`"read_only":"yes"`, false)
	with(`"role":"viewer"`, false) // a user has none
	with(`"jti":"a\u0000"`, false)
	with(`"iat":0.5`, false)
	with(`"iat":-1`, false)
	with(`"iat":1e300`, false)
	with(`"iat":"2026-01-01T00:00:00Z"`, false)
	with(`"iat":1767225661`, false) // a minute and a second ahead
	with(`"iat":1767225659`, true)
}

// Rotation: the first mints, all verify.
func TestKeyRing(t *testing.T) {
	other := strings.Repeat("ab", 32)
	old := ring(t, PurposeUser, "k1:"+testKeyHex, true)
	both := ring(t, PurposeUser, "k2:"+other+", k1:"+testKeyHex, true)
	legacy := ring(t, PurposeUser, other+","+testKeyHex, true)
	f := func(mint, verify *KeyRing, ok bool) {
		t.Helper()
		token, err := mint.Mint(userClaims)
		if err != nil {
			t.Fatal(err)
		}
		c, err := verify.Verify(token, time.Now())
		if (err == nil) != ok {
			t.Errorf("got %v", err)
		}
		if ok && c.Bare == (c.JTI != "" && time.Since(c.IssuedAt).Abs() < time.Minute) {
			t.Errorf("a token with a kid, and no other, says its jti and when it was issued: %+v", c)
		}
	}
	f(old, both, true)
	f(both, both, true)
	f(both, old, false)
	f(legacy, both, true) // bare, by a key that has a kid here
	for spec, want := range map[string]string{"k1:" + testKeyHex: "k1", testKeyHex: "", testKeyHex + ",k1:" + testKeyHex: "k1", other + ",k1:" + testKeyHex: "k1"} {
		if c, err := ring(t, PurposeUser, spec, true).Verify(userVector, testNow); err != nil || c.KID != want || !c.Bare {
			t.Errorf("a bare token of the key k1, or none: %+v, %v; want %q", c, err, want)
		}
	}
	if _, err := legacy.Verify(userVector, testNow); err != nil {
		t.Error(err)
	}
	for _, c := range []Claims{{}, {Company: "a", Agent: "*", User: "u", ExpiresAt: year2099}, adminClaims} {
		if _, err := both.Mint(c); err == nil {
			t.Errorf("minted %+v", c)
		}
	}
}

func TestParseKeyRingFailure(t *testing.T) {
	f := func(spec string, legacy bool) {
		t.Helper()
		_, err := ParseKeyRing(PurposeUser, spec, legacy)
		if err == nil {
			t.Errorf("%q was accepted", spec)
		} else if strings.Contains(err.Error(), testKeyHex) {
			t.Errorf("the error tells the key: %v", err)
		}
	}
	f("", true)
	f("zz", true)
	f(testKeyHex+"00", true)
	f(testKeyHex[2:], true)
	f(testKeyHex, false)
	f("k1:"+testKeyHex+",", true)
	f("k1:"+testKeyHex+",k1:"+testKeyHex, true)
	f(":"+testKeyHex, true)
	f("k.1:"+testKeyHex, true)
	f(strings.Repeat("k", 33)+":"+testKeyHex, true)
	if _, err := ParseKeyRing("robot", testKeyHex, true); err == nil {
		t.Error("an unknown purpose was accepted")
	}
}

// tampered says which changes of a token verify lets pass: every bit of its
// bytes, and every character of its string, changed to and preceded by each other.
func tampered(t *testing.T, verify func(string) error, token string) (passed []string) {
	t.Helper()
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=.\r\n +/"
	kid, sealed, err := splitToken(token)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(token); err != nil {
		t.Fatalf("the token itself: %v", err)
	}
	try := func(changed, format string, args ...any) {
		if changed != token && verify(changed) == nil {
			passed = append(passed, fmt.Sprintf(format, args...))
		}
	}
	for i := range len(sealed) * 8 {
		flipped := slices.Clone(sealed)
		flipped[i/8] ^= 1 << (i % 8)
		try(joinToken(kid, flipped), "bit %d flipped", i)
	}
	for i := range token {
		for _, c := range alphabet {
			try(token[:i]+string(c)+token[i+1:], "character %d changed to %q", i, c)
			try(token[:i]+string(c)+token[i:], "%q inserted at %d", c, i)
		}
	}
	return passed
}

// Nothing but the token itself (and its unpadded form) is the token.
func TestTamperedTokens(t *testing.T) {
	verifier := func(r *KeyRing) func(string) error {
		return func(token string) error { _, err := r.Verify(token, testNow); return err }
	}
	f := func(r *KeyRing, token string) {
		t.Helper()
		for _, what := range tampered(t, verifier(r), token) {
			t.Errorf("%s and accepted", what)
		}
	}
	f(ring(t, PurposeUser, testKeyHex, true), userVector)
	f(ring(t, PurposeAdmin, testKeyHex, true), adminVector)
	f(ring(t, PurposeUser, "k1:"+testKeyHex, true), kidVector)
	if _, err := ring(t, PurposeAdmin, testKeyHex, true).Verify(strings.TrimRight(adminVector, "="), testNow); err != nil {
		t.Errorf("without padding: %v", err)
	}

	// What the judge is worth: verifiers with a fault, each of which it must find.
	good := verifier(ring(t, PurposeUser, "k1:"+testKeyHex, true))
	planted := func(name, want string, faulty func(string) error) {
		t.Helper()
		if passed := tampered(t, faulty, kidVector); !slices.ContainsFunc(passed, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("a verifier that %s: found %q, not %q", name, passed, want)
		}
	}
	last := len(kidVector) - 1
	planted("ignores the last character", fmt.Sprintf("character %d changed", last), func(s string) error {
		if len(s) == len(kidVector) {
			s = s[:last] + kidVector[last:]
		}
		return good(s)
	})
	planted("passes over line ends, as encoding/base64 does", `'\n' inserted`, func(s string) error {
		return good(strings.ReplaceAll(s, "\n", ""))
	})
	_, sealed, _ := splitToken(kidVector)
	bit := len(sealed)*8 - 1
	planted("does not look at one bit of the tag", fmt.Sprintf("bit %d flipped", bit), func(s string) error {
		if kid, b, err := splitToken(s); err == nil && len(b) == len(sealed) {
			b[bit/8] = b[bit/8]&0x7f | sealed[bit/8]&0x80
			s = joinToken(kid, b)
		}
		return good(s)
	})
}

func FuzzVerify(f *testing.F) {
	for _, s := range []string{userVector, adminVector, kidVector, "", ".", "k1.", "=", "AAAA"} {
		f.Add(s, []byte(`{"company_id":"a","agent_id":"b","user_id":"c","expires_at":"2099-01-01T00:00:00Z"}`))
	}
	key, _ := hex.DecodeString(testKeyHex)
	f.Fuzz(func(t *testing.T, token string, plain []byte) {
		for _, p := range []Purpose{PurposeUser, PurposeAdmin} {
			r := ring(t, p, testKeyHex+",k1:"+testKeyHex, true)
			c, err := r.Verify(token, testNow)
			if err == nil {
				again, err := r.Verify(token, testNow)
				if err != nil || !equalClaims(c, again) {
					t.Errorf("%q is another token the second time", token)
				}
			}
			// Whatever was sealed with our key: claims that pass are usable.
			sealed := r.keys[0].aead.Seal(slices.Clone(testNonce), testNonce, plain, nil)
			c, err = r.Verify(base64.RawURLEncoding.EncodeToString(sealed), testNow)
			if err != nil {
				continue
			}
			if cerr := c.check(); cerr != nil {
				t.Errorf("accepted %q: %v", plain, cerr)
			}
			back, err := r.Mint(c)
			if err != nil {
				t.Errorf("can't mint what was verified: %v", err)
			} else if d, err := r.Verify(back, testNow); err != nil || d.Key() != c.Key() {
				t.Errorf("minted again it is %+v, %v", d, err)
			}
		}
		_ = key
	})
}
