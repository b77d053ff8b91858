package bench

import (
	"strings"
	"testing"
)

// Tokens come from the doors, one a user, in one process and in a crew, plain
// and over TLS.
func TestMintAtTheDoors(t *testing.T) {
	t.Parallel()
	f := func(secure bool) {
		t.Helper()
		g := bareGate(t, wrongNothing)
		g.secure = secure
		g.listen()
		g.listen()
		o := small(g)
		o.TokenKey, o.MintKey = "", gateMintKey
		r, err := Fanout(t.Context(), o)
		if err != nil || !passes(r) || r.Oracle.Sessions != 60 || r.Oracle.Met != r.Oracle.Expected {
			t.Fatalf("error %v:\n%s", err, tableOf(r))
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.minted != 60 {
			t.Errorf("%d tokens for 60 users", g.minted)
		}
	}
	f(false)
	f(true)
	g := newGate(t, 2, wrongNothing)
	o := scripted(g, Step{Do: DeedStorm})
	o.TokenKey, o.MintKey = "", gateMintKey
	r, err := Script(t.Context(), o)
	if err != nil || !passes(r) || r.Oracle.Sessions != 120 || g.minted != 60 {
		t.Fatalf("%d tokens for 60 users, error %v:\n%s", g.minted, err, tableOf(r))
	}
}

// Without a token no login begins, and the report says what the door answered.
func TestMintRefused(t *testing.T) {
	t.Parallel()
	g := newGate(t, 1, wrongNothing)
	o := ConnectOptions{Options: g.options(), Sessions: 5}
	o.TokenKey, o.MintKey = "", "wrong"
	r, err := Connect(t.Context(), o)
	if err == nil || r == nil || r.Exit != ExitError || !strings.Contains(err.Error(), "401") || !strings.Contains(err.Error(), "key of its own") || r.Logins != nil {
		t.Errorf("error %v, report %+v", err, r)
	}
	if strings.Contains(err.Error(), o.MintKey+" ") || strings.Contains(tableOf(r), gateMintKey) {
		t.Error("a key is in what was said")
	}
}
