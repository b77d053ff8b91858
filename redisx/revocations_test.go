package redisx

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/daisi/daisi-ws/redisx/redistest"
	"github.com/daisi/daisi-ws/session"
)

var revokedAt = time.UnixMilli(1_790_000_000_123)

func revokedCompany(name string) session.Revocation {
	return session.Revocation{Revoked: session.Revoked{Kind: session.RevokedCompany, Company: name}, At: revokedAt, By: "key:ab"}
}

func (c *Client) mustRevocations(t *testing.T, known *session.Revocations) *session.Revocations {
	t.Helper()
	set, err := c.Revocations(within(t, 10*time.Second), known)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func (c *Client) mustRevoke(t *testing.T, r session.Revocation, over ...session.Revocation) {
	t.Helper()
	if err := c.Revoke(within(t, 10*time.Second), r, over); err != nil {
		t.Fatal(err)
	}
}

func testRevocations(t *testing.T, e *env) {
	a, b := e.pod(t, "a@1"), e.pod(t, "b@1")
	if set := a.mustRevocations(t, nil); set.Version != 0 || set.Mark != "" || set.Len() != 0 {
		t.Errorf("an empty Redis has %+v", set)
	}
	all := []session.Revocation{
		revokedCompany("a:c%m{e}"),
		{Revoked: session.Revoked{Kind: session.RevokedUser, Company: "acme", User: "u 1\u00fc"}, At: revokedAt.Add(-time.Second)},
		{Revoked: session.Revoked{Kind: session.RevokedUser, Company: "acme", Agent: "ag:1", User: "u"}, At: revokedAt.Add(-2 * time.Second)},
		{Revoked: session.Revoked{Kind: session.RevokedAdmin, User: "root"}, At: revokedAt.Add(-3 * time.Second), By: "admin x"},
		{Revoked: session.Revoked{Kind: session.RevokedKID, KID: "k-1", Purpose: session.PurposeUser}, At: revokedAt.Add(-4 * time.Second)},
		{Revoked: session.Revoked{Kind: session.RevokedToken, Token: 0xfffffffffffffff1}, At: revokedAt.Add(-5 * time.Second), Until: time.Unix(1_800_000_000, 0)},
	}
	versions := []uint64{0}
	for i := range all {
		a.mustRevoke(t, all[i])
		set := b.mustRevocations(t, nil)
		if set.Version <= versions[i] || set.Mark == "" {
			t.Errorf("version %d after %d, mark %q", set.Version, versions[i], set.Mark)
		}
		versions = append(versions, set.Version)
	}
	set := b.mustRevocations(t, nil)
	if got := set.List(); !reflect.DeepEqual(got, all) {
		t.Errorf("read\n%+v, want\n%+v", got, all)
	}
	// The latest date stands; what changes nothing is no new version.
	older := all[0]
	older.At = revokedAt.Add(-time.Hour)
	a.mustRevoke(t, older)
	a.mustRevoke(t, all[0])
	if now := b.mustRevocations(t, set); now.Version != set.Version || !reflect.DeepEqual(now.List(), all) {
		t.Errorf("version %d, was %d", now.Version, set.Version)
	}
	lifted := func(r session.Revoked, want bool) {
		t.Helper()
		if ok, err := b.Lift(within(t, 10*time.Second), session.Revocation{Revoked: r}); ok != want || err != nil {
			t.Errorf("lift %+v: %v, %v", r, ok, err)
		}
	}
	lifted(all[0].Revoked, true)
	lifted(all[0].Revoked, false)
	// Run-out ones go with the next revocation, unless they were renewed.
	renewed := all[5]
	renewed.At = revokedAt.Add(time.Minute)
	a.mustRevoke(t, renewed)
	a.mustRevoke(t, revokedCompany("next"), all[5], all[4])
	got := a.mustRevocations(t, nil)
	left := map[session.Revoked]bool{}
	for _, r := range got.List() {
		left[r.Revoked] = true
	}
	if got.Len() != 5 || left[all[4].Revoked] || !left[all[5].Revoked] || left[all[0].Revoked] {
		t.Errorf("left: %+v", got.List())
	}
	eventually(t, "the version in the beat", func() bool { return b.RevVersion() == got.Version })
}

// Whatever Redis loses, the pods that know write again, and nobody is let in
// by that; what was lifted stays lifted as long as Redis knows.
func testRevocationsLost(t *testing.T, e *env) {
	a, b := e.pod(t, "a@1"), e.pod(t, "b@1")
	over := revokedCompany("over")
	over.Until = revokedAt
	a.mustRevoke(t, revokedCompany("acme"))
	a.mustRevoke(t, over)
	inA := a.mustRevocations(t, nil)
	inB := b.mustRevocations(t, nil)

	e.flush(t)
	now := a.mustRevocations(t, inA)
	if now.Len() != 1 || now.Mark == inA.Mark || now.Version <= inA.Version {
		t.Errorf("after the loss: %d entries, version %d after %d", now.Len(), now.Version, inA.Version)
	}
	if again := b.mustRevocations(t, inB); again.Version != now.Version || again.Len() != 1 {
		t.Errorf("the second pod: version %d, want %d", again.Version, now.Version)
	}

	// Lost only the latest write: the same mark, an older version.
	version, hash := e.get(t, revVersionKey), e.do(t, "HGETALL", revKey)
	a.mustRevoke(t, revokedCompany("late"))
	inA = a.mustRevocations(t, now)
	restore(t, e, version, hash)
	after := a.mustRevocations(t, inA)
	if after.Len() != 2 || after.Mark != inA.Mark || after.Version <= inA.Version {
		t.Errorf("after the lost write: %+v, version %d after %d", after.List(), after.Version, inA.Version)
	}

	if ok, err := b.Lift(within(t, 5*time.Second), revokedCompany("late")); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if last := a.mustRevocations(t, after); last.Len() != 1 {
		t.Errorf("lifted, and written again by a pod that had it: %+v", last.List())
	}
}

func restore(t *testing.T, e *env, version string, hash any) {
	t.Helper()
	e.do(t, "DEL", revKey)
	e.do(t, "SET", revVersionKey, version)
	put := func(k, v any) { e.do(t, "HSET", revKey, k, v) }
	switch h := hash.(type) {
	case map[any]any:
		for k, v := range h {
			put(k, v)
		}
	case []any:
		for i := 0; i < len(h); i += 2 {
			put(h[i], h[i+1])
		}
	default:
		t.Fatalf("HGETALL gave %T", hash)
	}
}

// On redis-server alone: miniredis takes more than our patience for so many.
func TestRevocationsFull(t *testing.T) {
	server := redistest.Start(t)
	raw, err := connect(server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	e := &env{url: server.URL, raw: raw}
	a := e.pod(t, "a@1")
	const chunk = 1000
	for i := 0; i < session.MaxRevocations; i += chunk {
		args := []any{"HSET", revKey, markField, "m"}
		for j := range chunk {
			r := revokedCompany(fmt.Sprint("c", i+j))
			r.Until = revokedAt
			field, value := formatRevocation(r)
			args = append(args, field, value)
		}
		e.do(t, args...)
	}
	if err := a.Revoke(within(t, 10*time.Second), revokedCompany("one-more"), nil); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	newer := revokedCompany("c1")
	newer.At = revokedAt.Add(time.Hour)
	a.mustRevoke(t, newer) // there is room for what is there
	set := a.mustRevocations(t, nil)
	if set.Len() != session.MaxRevocations {
		t.Errorf("%d stand", set.Len())
	}
	over := set.RunOut(revokedAt.Add(time.Second), 10)
	if len(over) != 10 {
		t.Fatalf("%d run out, want 10", len(over))
	}
	a.mustRevoke(t, revokedCompany("one-more"), over...)
	if set := a.mustRevocations(t, set); set.Len() != session.MaxRevocations-9 {
		t.Errorf("%d stand after 10 had run out", set.Len())
	}
}

// Not to understand an entry is not to know whom it names.
func testRevocationsUnknown(t *testing.T, e *env) {
	a := e.pod(t, "a@1")
	f := func(field, value string) {
		t.Helper()
		e.do(t, "DEL", revKey)
		e.do(t, "HSET", revKey, field, value)
		if set, err := a.Revocations(within(t, 5*time.Second), nil); err == nil {
			t.Errorf("%q %q was read as %+v", field, value, set.List())
		}
	}
	f("planet:earth", "1 1 0 x")
	f("company:", "1 1 0 x")
	f("company:a:b", "1 1 0 x")
	f("company:a", "2 1 0 x")
	f("company:a", "1 1 x")
	f("company:a", "1 x 0 x")
	f("token:xyz", "1 1 0 x")
	e.do(t, "DEL", revKey)
	e.do(t, "SET", revVersionKey, "many")
	if _, err := a.Revocations(context.Background(), nil); err == nil {
		t.Error("a version that is no number was read")
	}
	e.do(t, "DEL", revVersionKey)
}

// Different things never share a field, and a field says what it is about.
func TestRevocationFieldsInjective(t *testing.T) {
	id := rapid.StringOfN(rapid.SampledFrom([]rune("a:{}%3cü2A#@/")), 1, 6, -1)
	draw := rapid.Custom(func(t *rapid.T) session.Revoked {
		r := session.Revoked{Kind: rapid.SampledFrom([]session.RevokedKind{
			session.RevokedToken, session.RevokedUser, session.RevokedCompany, session.RevokedAdmin, session.RevokedKID,
		}).Draw(t, "kind")}
		switch r.Kind {
		case session.RevokedToken:
			r.Token = rapid.Uint64Range(1, 20).Draw(t, "token")
		case session.RevokedUser:
			r.Company, r.User = id.Draw(t, "company"), id.Draw(t, "user")
			if rapid.Bool().Draw(t, "one agent") {
				r.Agent = id.Draw(t, "agent")
			}
		case session.RevokedCompany:
			r.Company = id.Draw(t, "company")
		case session.RevokedAdmin:
			r.User = id.Draw(t, "admin")
		case session.RevokedKID:
			r.KID = rapid.StringMatching(`[a-b_-]{1,3}`).Draw(t, "kid")
			r.Purpose = rapid.SampledFrom([]session.Purpose{"", session.PurposeUser, session.PurposeAdmin}).Draw(t, "purpose")
		}
		return r
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw.Draw(t, "a"), draw.Draw(t, "b")
		fa, value := formatRevocation(session.Revocation{Revoked: a, At: revokedAt, By: id.Draw(t, "by")})
		fb, _ := formatRevocation(session.Revocation{Revoked: b, At: revokedAt})
		if (fa == fb) != (a == b) {
			t.Fatalf("%+v and %+v: fields %q and %q", a, b, fa, fb)
		}
		back, err := parseRevocation(fa, value)
		if err != nil || back.Revoked != a || !back.At.Equal(revokedAt) {
			t.Fatalf("%+v is read back as %+v, %v", a, back, err)
		}
		if strings.ContainsAny(fa, " \n") || strings.HasPrefix(fa, markField) {
			t.Fatalf("field %q", fa)
		}
	})
}

func FuzzParseRevocation(f *testing.F) {
	for _, field := range []string{"company:a", "user:a::u", "user:a:b:u", "token:00000000000000ff", "admin:root", "kid::k1", "kid:user:k1", "#", ""} {
		f.Add(field, "1 1790000000123 1800000000 key:ab")
	}
	f.Fuzz(func(t *testing.T, field, value string) {
		r, err := parseRevocation(field, value)
		if err != nil {
			return
		}
		if err := r.Check(); err != nil {
			t.Fatalf("%q %q is read as %+v: %v", field, value, r, err)
		}
		again, err := parseRevocation(formatRevocation(r))
		if err != nil || again != r {
			t.Fatalf("%q %q is read as %+v, written and read as %+v, %v", field, value, r, again, err)
		}
	})
}
