package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// revoke puts an entry into Redis; nobody is told.
func (w *world) revoke(list ...Revocation) *Revocations {
	w.mu.Lock()
	defer w.mu.Unlock()
	version := uint64(1)
	if w.rev != nil {
		version, list = w.rev.Version+1, append(w.rev.List(), list...)
	}
	w.rev = NewRevocations(version, "mark", list)
	return w.rev
}

// revokingPod loads the revocations of w when a login asks for them, as the
// server's loader does: one load at a time.
func (w *world) revokingPod(t testing.TB, owner Owner) (p *pod, load func() int) {
	var mu sync.Mutex
	load = func() int {
		mu.Lock()
		defer mu.Unlock()
		w.mu.Lock()
		set := NewRevocations(w.rev.Version, w.rev.Mark, w.rev.List())
		w.mu.Unlock()
		return p.m.SetRevocations(set)
	}
	p = w.pod(t, owner, func(o *Options[*sock]) {
		o.Refresh = func(context.Context) error { load(); return nil }
	})
	return p, load
}

func (p *pod) loginAs(c Claims) (*Session[*sock], error) {
	s := p.m.NewSession(&sock{}, c.Key(), Profile{Grants: NewGrants(&c), Token: c.TokenID(c.JTI + "t")})
	return s, p.m.Open(context.Background(), s, Login{Claims: &c, Token: c.TokenID(c.JTI + "t")}, func(s *Session[*sock], _ Ready) { s.Sock().say("ready") })
}

var revokedAt = time.UnixMilli(1_790_000_000_000)

func TestRevocationsRefuse(t *testing.T) {
	user := Claims{Company: "acme", Agent: "ag1", User: "u1", KID: "k1", JTI: "j1"}
	admin := Claims{Admin: true, AdminID: "root", KID: "k1", JTI: "j2"}
	now := revokedAt.Add(time.Hour)
	const never = time.Duration(1)
	f := func(name string, r Revoked, c Claims, issued time.Duration, want bool) {
		t.Helper()
		if err := r.Check(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.IssuedAt = revokedAt.Add(issued); issued == never {
			c.IssuedAt = time.Time{}
		}
		set := NewRevocations(1, "m", []Revocation{{Revoked: r, At: revokedAt}})
		if _, got := set.Refuses(&c, c.TokenID("token"), now); got != want {
			t.Errorf("%s: refused %v, want %v", name, got, want)
		}
		over := NewRevocations(1, "m", []Revocation{{Revoked: r, At: revokedAt, Until: now}})
		if _, got := over.Refuses(&c, c.TokenID("token"), now); got {
			t.Errorf("%s: refused after it had run out", name)
		}
	}
	token := Revoked{Kind: RevokedToken, Token: FingerprintOf("j1")}
	f("its jti", token, user, time.Hour, true)
	f("another's jti", token, admin, time.Hour, false)
	bare := user
	bare.JTI, bare.KID = "", ""
	f("hash of a bare token", Revoked{Kind: RevokedToken, Token: FingerprintOf("token===")}, bare, never, true)
	f("hash of a token with a jti", Revoked{Kind: RevokedToken, Token: FingerprintOf("token")}, user, time.Hour, true)
	f("hash of another", Revoked{Kind: RevokedToken, Token: FingerprintOf("tokem===")}, bare, never, false)

	company := Revoked{Kind: RevokedCompany, Company: "acme"}
	f("company, no issue", company, user, never, true)
	f("company, issued before", company, user, -time.Second, true)
	f("company, issued at that moment", company, user, 0, true)
	f("company, issued later", company, user, time.Millisecond, false)
	f("company, an admin", company, admin, never, false)
	f("company of another name", Revoked{Kind: RevokedCompany, Company: "acm"}, user, never, false)

	f("user", Revoked{Kind: RevokedUser, Company: "acme", Agent: "ag1", User: "u1"}, user, never, true)
	f("user of any agent", Revoked{Kind: RevokedUser, Company: "acme", User: "u1"}, user, never, true)
	f("user of another agent", Revoked{Kind: RevokedUser, Company: "acme", Agent: "ag2", User: "u1"}, user, never, false)
	f("user of another company", Revoked{Kind: RevokedUser, Company: "acme2", User: "u1"}, user, never, false)
	f("user, issued later", Revoked{Kind: RevokedUser, Company: "acme", User: "u1"}, user, time.Second, false)

	f("admin", Revoked{Kind: RevokedAdmin, User: "root"}, admin, never, true)
	f("admin, issued later", Revoked{Kind: RevokedAdmin, User: "root"}, admin, time.Second, false)
	f("admin of a user's name", Revoked{Kind: RevokedAdmin, User: "u1"}, user, never, false)

	f("kid", Revoked{Kind: RevokedKID, KID: "k1"}, user, time.Hour, true)
	f("kid of both purposes", Revoked{Kind: RevokedKID, KID: "k1"}, admin, time.Hour, true)
	f("kid of users", Revoked{Kind: RevokedKID, KID: "k1", Purpose: PurposeUser}, user, time.Hour, true)
	f("kid of users, an admin", Revoked{Kind: RevokedKID, KID: "k1", Purpose: PurposeUser}, admin, time.Hour, false)
	f("another kid", Revoked{Kind: RevokedKID, KID: "k2"}, user, never, false)
	f("a kid, a bare token", Revoked{Kind: RevokedKID, KID: "k1"}, bare, never, false)
}

func TestRevokedCheck(t *testing.T) {
	f := func(r Revoked) {
		t.Helper()
		if r.Check() == nil {
			t.Errorf("%+v was accepted", r)
		}
	}
	f(Revoked{})
	f(Revoked{Kind: "everything"})
	f(Revoked{Kind: RevokedToken})
	f(Revoked{Kind: RevokedToken, Token: 1, Company: "acme"})
	f(Revoked{Kind: RevokedUser, Company: "acme"})
	f(Revoked{Kind: RevokedUser, User: "u"})
	f(Revoked{Kind: RevokedUser, Company: "*", User: "u"})
	f(Revoked{Kind: RevokedUser, Company: "acme", Agent: "a.b", User: "u"})
	f(Revoked{Kind: RevokedCompany, Company: ">"})
	f(Revoked{Kind: RevokedCompany, Company: "acme", User: "u"})
	f(Revoked{Kind: RevokedAdmin})
	f(Revoked{Kind: RevokedKID, KID: "k.1"})
	f(Revoked{Kind: RevokedKID, KID: "k1", Purpose: "robot"})
}

// A revocation ends whom it names, at once, and nobody else.
func TestSetRevocationsEnds(t *testing.T) {
	w := newWorld()
	w.revoke()
	a, load := w.revokingPod(t, "a@1")
	claims := func(company, user, kid, jti string) Claims {
		return Claims{Company: company, Agent: "ag", User: user, KID: kid, JTI: jti, IssuedAt: revokedAt.Add(-time.Hour)}
	}
	all := map[string]Claims{
		"acme-1": claims("acme", "u1", "k1", "j1"), "acme-2": claims("acme", "u2", "k2", "j2"),
		"other-1": claims("other", "u1", "k1", "j3"), "other-2": claims("other", "u2", "k2", "j4"),
		"admin": {Admin: true, AdminID: "root", KID: "k2", JTI: "j5"},
	}
	open := map[string]*Session[*sock]{}
	reopen := func() {
		t.Helper()
		for name, c := range all {
			if s := open[name]; s != nil && s.Sock().closed() == 0 {
				continue
			}
			s, err := a.loginAs(c)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			open[name] = s
		}
	}
	f := func(r Revoked, want ...string) {
		t.Helper()
		reopen()
		w.revoke(Revocation{Revoked: r, At: revokedAt})
		if n := load(); n != len(want) {
			t.Errorf("%+v ended %d sessions, want %d", r, n, len(want))
		}
		ended := map[string]bool{}
		for _, name := range want {
			ended[name] = true
		}
		for name, s := range open {
			if got := s.Sock().closed() == 4403; got != ended[name] {
				t.Errorf("%+v: %s ended: %v", r, name, got)
			}
			if _, err := a.loginAs(all[name]); ended[name] {
				wantReason(t, err, ReasonRevoked)
			}
		}
		w.mu.Lock()
		w.rev = NewRevocations(w.rev.Version+1, "mark", nil) // lifted
		w.mu.Unlock()
		if n := load(); n != 0 {
			t.Errorf("lifting ended %d", n)
		}
		for name := range open {
			delete(open, name)
		}
		a.whole(t)
	}
	f(Revoked{Kind: RevokedCompany, Company: "acme"}, "acme-1", "acme-2")
	f(Revoked{Kind: RevokedUser, Company: "other", User: "u1"}, "other-1")
	f(Revoked{Kind: RevokedUser, Company: "other", Agent: "another", User: "u1"})
	f(Revoked{Kind: RevokedKID, KID: "k2"}, "acme-2", "other-2", "admin")
	f(Revoked{Kind: RevokedKID, KID: "k2", Purpose: PurposeAdmin}, "admin")
	f(Revoked{Kind: RevokedToken, Token: FingerprintOf("j3")}, "other-1")
	f(Revoked{Kind: RevokedToken, Token: FingerprintOf("j4t")}, "other-2") // by its hash
	f(Revoked{Kind: RevokedAdmin, User: "root"}, "admin")
}

// A login with a token issued after the revocation stands, also when the set it
// was let in by is walked only now.
func TestSetRevocationsPassesOver(t *testing.T) {
	w := newWorld()
	w.revoke()
	a, load := w.revokingPod(t, "a@1")
	later := Claims{Company: "acme", Agent: "ag", User: "u1", JTI: "j1", IssuedAt: revokedAt.Add(time.Second)}
	w.revoke(Revocation{Revoked: Revoked{Kind: RevokedCompany, Company: "acme"}, At: revokedAt})
	s, err := a.loginAs(later) // loads the set itself
	if err != nil {
		t.Fatal(err)
	}
	// The walk of that set may reach it only now: it is passed over.
	set := a.m.Revocations()
	if over := a.m.shard(s).outdated(set.odd, set, revokedAt, nil); len(over) != 0 {
		t.Error("a token issued later would be ended by the walk of the set it was let in by")
	}
	if over := a.m.shard(s).outdated(!set.odd, set, revokedAt, nil); len(over) != 1 {
		t.Error("the walk of a later set does not see it")
	}
	a.m.Close(s, ReasonClient, "")
	if s, err = a.loginAs(later); err != nil {
		t.Fatal(err)
	}
	w.revoke(Revocation{Revoked: Revoked{Kind: RevokedCompany, Company: "nobody"}, At: revokedAt})
	if n := load(); n != 0 || s.Sock().closed() != 0 {
		t.Errorf("a token issued later was ended with the old ones (%d)", n)
	}
}

// What comes between the look at the revocations and ready still refuses.
func TestRevokedWhileLoggingIn(t *testing.T) {
	w := newWorld()
	w.revoke()
	a, load := w.revokingPod(t, "a@1")
	c := Claims{Company: "acme", Agent: "ag", User: "u1", JTI: "j1"}
	old := a.m.NewSession(&sock{slow: 200 * time.Millisecond}, c.Key(), Profile{})
	if err := a.m.Open(context.Background(), old, Login{}, func(*Session[*sock], Ready) {}); err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() { // waits for the close frame of old
		_, err := a.loginAs(c)
		result <- err
	}()
	for a.m.Index().State(old) != Closing {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	w.revoke(Revocation{Revoked: Revoked{Kind: RevokedToken, Token: FingerprintOf("j1")}, At: revokedAt})
	load()
	wantReason(t, <-result, ReasonRevoked)
	a.nothing(t)
}

func TestOpenWhileRevocationsAreUnreadable(t *testing.T) {
	bad := errors.New("redis down")
	a := newWorld().pod(t, "a@1", func(o *Options[*sock]) {
		o.Refresh = func(context.Context) error { return bad }
	})
	_, err := a.login(alice, Login{})
	wantReason(t, err, ReasonOverloaded)
	if !errors.Is(err, bad) {
		t.Errorf("cause is hidden: %v", err)
	}
	a.nothing(t)
}

func TestManagerRefresh(t *testing.T) {
	w := newWorld()
	w.revoke()
	a, load := w.revokingPod(t, "a@1")
	c := Claims{Company: "acme", Agent: "ag", User: "u1", KID: "k1", JTI: "j1", Chats: []string{"x*"}, ExpiresAt: time.Unix(2e9, 0)}
	s, err := a.loginAs(c)
	if err != nil {
		t.Fatal(err)
	}
	f := func(change func(*Claims), want error) {
		t.Helper()
		next := c
		next.KID, next.JTI, next.ExpiresAt = "k2", "j2", time.Unix(3e9, 0)
		change(&next)
		before := s.Expires()
		err := a.m.Refresh(s, &next, NewGrants(&next), next.TokenID(next.JTI+"t"))
		if !errors.Is(err, want) || (err == nil) == (s.Expires() == before) {
			t.Errorf("refresh with %+v: %v, want %v; expires %d, was %d", next, err, want, s.Expires(), before)
		}
	}
	f(func(n *Claims) { n.User = "u2" }, ErrDenied)
	f(func(n *Claims) { n.Chats = []string{"*"} }, ErrDenied)
	f(func(n *Claims) { n.Chats = nil }, ErrDenied)
	f(func(n *Claims) { n.Events = []string{KindChats} }, ErrDenied)
	f(func(n *Claims) { n.ReadOnly = true }, ErrDenied)
	w.revoke(Revocation{Revoked: Revoked{Kind: RevokedToken, Token: FingerprintOf("bad")}, At: revokedAt})
	load()
	f(func(n *Claims) { n.JTI = "bad" }, ErrRevoked)
	f(func(*Claims) {}, nil)
	// The former token and key are nothing to it any more; the new ones are.
	w.revoke(Revocation{Revoked: Revoked{Kind: RevokedKID, KID: "k1"}, At: revokedAt}, Revocation{Revoked: Revoked{Kind: RevokedToken, Token: FingerprintOf("j1")}, At: revokedAt})
	if n := load(); n != 0 {
		t.Errorf("its former token ended it (%d)", n)
	}
	w.revoke(Revocation{Revoked: Revoked{Kind: RevokedKID, KID: "k2"}, At: revokedAt})
	if n := load(); n != 1 || s.Sock().closed() != 4403 {
		t.Errorf("its new key did not end it (%d)", n)
	}
	f(func(*Claims) {}, ErrClosed)
}

// Logins, refreshes and revocations race: in the end no session is live whose
// token the last set refuses, and nobody was ended whom nothing named.
func TestRevocationsRace(t *testing.T) {
	w := newWorld()
	w.revoke()
	a, load := w.revokingPod(t, "a@1")
	const companies, users, rounds = 4, 8, 40
	var mu sync.Mutex
	token := map[Key]Claims{} // what the live session of a key shows
	var clock int64           // what tokens and revocations are dated by
	tick := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		clock++
		return revokedAt.Add(time.Duration(clock) * time.Millisecond)
	}
	var wg sync.WaitGroup
	for i := range companies * users {
		wg.Go(func() {
			for n := range rounds {
				c := Claims{Company: fmt.Sprint("c", i%companies), Agent: "ag", User: fmt.Sprint("u", i), KID: fmt.Sprint("k", n%3), JTI: fmt.Sprint(i, "-", n)}
				if n%2 == 0 {
					c.IssuedAt = tick()
				}
				if s, err := a.loginAs(c); err == nil {
					mu.Lock()
					token[c.Key()] = c
					mu.Unlock()
					c.JTI += "r"
					c.IssuedAt = tick()
					if a.m.Refresh(s, &c, NewGrants(&c), c.TokenID(c.JTI+"t")) == nil {
						mu.Lock()
						token[c.Key()] = c
						mu.Unlock()
					}
				}
			}
		})
	}
	wg.Go(func() {
		for range rounds {
			i := rand.IntN(companies * users)
			e := []Revoked{
				{Kind: RevokedCompany, Company: fmt.Sprint("c", 1+rand.IntN(companies-1))}, // never c0
				{Kind: RevokedUser, Company: fmt.Sprint("c", i%companies), User: fmt.Sprint("u", i)},
				{Kind: RevokedToken, Token: FingerprintOf(fmt.Sprint(i, "-", rand.IntN(rounds)))},
			}[rand.IntN(3)]
			if i%companies == 0 && e.Kind != RevokedCompany {
				continue
			}
			w.revoke(Revocation{Revoked: e, At: tick()})
			if rand.IntN(2) == 0 {
				load()
			}
		}
	})
	wg.Wait()
	load()
	set, live := a.m.Revocations(), 0
	for n := range testPartitions {
		for _, s := range a.m.Index().Snapshot(n, nil) {
			live++
			c := token[s.Key()]
			if e, refused := set.Refuses(&c, c.TokenID(c.JTI+"t"), revokedAt); refused {
				t.Errorf("%v is live with a token that is revoked: %+v", s.Key(), e)
			}
		}
	}
	for i := range users { // those of c0 were never named
		key := Key{"c0", "ag", fmt.Sprint("u", i*companies)}
		if s := a.m.Index().Find(key); s == nil {
			t.Errorf("%v was ended though nothing names it", key)
		}
	}
	a.whole(t)
	if live == 0 {
		t.Error("nobody is left: nothing was tested")
	}
}
