package redisx

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/daisi/daisi-ws/session"
)

// name is one key of the layout and everything it is made of.
type name struct {
	kind string
	n    int
	a    [3]string
}

func (k name) key() string {
	switch k.kind {
	case "inc":
		return incKey(k.n)
	case "epoch":
		return epochKey(k.n)
	case "lock":
		return lockKey(k.n, session.Key{Company: k.a[0], Agent: k.a[1], User: k.a[2]})
	case "sel":
		return selKey(k.n, session.Key{Company: k.a[0], Agent: k.a[1], User: k.a[2]})
	case "takeovers":
		return takeoversKey(k.n, session.Key{Company: k.a[0], Agent: k.a[1], User: k.a[2]})
	case "fence":
		return fenceKey(k.n, k.a[0], k.a[1])
	case "route":
		return routeKey(k.n, session.Want{Company: k.a[0], Agent: k.a[1], Chat: k.a[2]})
	case "kill":
		return killChannel(session.Owner(k.a[0]))
	}
	return tokenKey(k.a[0])
}

func TestKeysInjective(t *testing.T) {
	// Few letters, so that ids collide wherever the layout lets them.
	id := rapid.StringOf(rapid.SampledFrom([]rune("a:{}%* p3cmü2A\n\x00")))
	draw := rapid.Custom(func(t *rapid.T) name {
		k := name{kind: rapid.SampledFrom([]string{"inc", "epoch", "lock", "sel", "takeovers", "fence", "route", "kill"}).Draw(t, "kind")}
		parts := map[string]int{"lock": 3, "sel": 3, "takeovers": 3, "fence": 2, "route": 3, "kill": 1}[k.kind]
		for i := range parts {
			k.a[i] = rapid.OneOf(id, rapid.SampledFrom([]string{"chats", "messages", "*admin", "*", ""})).Draw(t, "part")
		}
		if k.kind != "kill" {
			k.n = rapid.IntRange(0, 12).Draw(t, "n")
		}
		return k
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw.Draw(t, "a"), draw.Draw(t, "b")
		if (a.key() == b.key()) != (a == b) {
			t.Fatalf("%+v and %+v: keys %q and %q", a, b, a.key(), b.key())
		}
		if a.kind == "kill" {
			return
		}
		// One hash tag, that of the partition: the rest can't move the slot.
		key := a.key()
		if strings.Count(key, "{") != 1 || strings.Count(key, "}") != 1 || !strings.Contains(key, string(appendTag(nil, a.n))) {
			t.Fatalf("%+v: hash tag of %q", a, key)
		}
	})
}

func TestEscape(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		e := escape(s)
		if unescape(e) != s {
			t.Fatalf("%q, escaped %q, unescaped %q", s, e, unescape(e))
		}
		if strings.ContainsAny(e, " :{}\n\r\t\x00") {
			t.Fatalf("%q, escaped %q", s, e)
		}
	})
}

func TestKeyNames(t *testing.T) {
	f := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(incKey(5), "inc:{p5}")
	f(epochKey(5), "e:{p5}")
	f(lockKey(5, alice), "s:{p5}:acme:ag1:alice")
	f(selKey(5, alice), "sel:{p5}:acme:ag1:alice")
	f(fenceKey(5, "acme", "ag1"), "f:{p5}:acme:ag1")
	f(routeKey(5, session.Want{Company: "acme", Agent: "ag1"}), "r:{p5}:acme:ag1:chats")
	f(routeKey(5, session.Want{Company: "acme", Agent: "ag1", Chat: "628@s.whatsapp.net"}), "r:{p5}:acme:ag1:messages:628@s.whatsapp.net")
	f(routeKey(5, session.AdminWant()), "r:{p5}:*admin")
	f(killChannel("pod:1@x"), "kill:pod%3A1@x")
}
