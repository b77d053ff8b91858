package main

import (
	"context"
	"strings"
	"testing"
)

// call runs one command with this environment.
func call(environ []string, args ...string) (code int, out, errs string) {
	var o, e strings.Builder
	code = execute(context.Background(), console{in: strings.NewReader(""), out: &o, err: &e, environ: environ}, args)
	return code, o.String(), e.String()
}

func TestTokenRoundTrip(t *testing.T) {
	environ := []string{"DWS_AUTH_TOKEN_KEYS=k1:" + strings.Repeat("0a", 32), "DWS_AUTH_ADMIN_TOKEN_KEYS=" + strings.Repeat("0b", 32)}
	f := func(want []string, args ...string) {
		t.Helper()
		code, minted, errs := call(environ, append([]string{"token", "mint"}, args...)...)
		if code != 0 {
			t.Fatalf("mint %v: %d %s", args, code, errs)
		}
		code, claims, errs := call(environ, "token", "inspect", strings.TrimSpace(minted))
		if code != 0 {
			t.Fatalf("inspect: %d %s", code, errs)
		}
		fields := strings.Join(strings.Fields(claims), " ")
		for _, w := range want {
			if !strings.Contains(fields, w) {
				t.Errorf("mint %v: no %q in %q", args, w, fields)
			}
		}
	}
	f([]string{"purpose user", "(valid)", "company_id acme", "agent_id ag1", "user_id u1", "kid k1", "jti"}, "-company", "acme", "-agent", "ag1", "-user", "u1")
	f([]string{"purpose admin", "admin_id root", "company_restriction acme"}, "-admin", "root", "-restrict", "acme")
	f([]string{"purpose admin", "subscribed_agent ag1"}, "-admin", "root", "-company", "acme", "-agent", "ag1")
}

func TestTokenRefuses(t *testing.T) {
	f := func(code int, want string, environ []string, args ...string) {
		t.Helper()
		got, _, errs := call(environ, append([]string{"token"}, args...)...)
		if got != code || !strings.Contains(errs, want) {
			t.Errorf("%v: %d %s, want %d …%s…", args, got, errs, code, want)
		}
	}
	key := []string{"DWS_AUTH_TOKEN_KEYS=" + strings.Repeat("0a", 32)}
	f(2, "mint, inspect, revoke, lift or revocations", nil)
	f(2, `no command token "make"`, nil, "make")
	f(2, "set DWS_AUTH_TOKEN_KEYS", nil, "mint", "-company", "a", "-agent", "b", "-user", "c")
	f(2, "DWS_AUTH_TOKEN_KEYS: ", []string{"DWS_AUTH_TOKEN_KEYS=short"}, "mint", "-company", "a", "-agent", "b", "-user", "c")
	f(2, "-company, -agent and -user", key, "mint", "-company", "a")
	f(2, "-expires", key, "mint", "-company", "a", "-agent", "b", "-user", "c", "-expires", "-1s")
	f(1, "agent", key, "mint", "-company", "a", "-agent", "b.*", "-user", "c")
	f(2, "as a token of purpose user", key, "inspect", "AAAA")
	f(2, "token revoke", key, "revoke", "user")
	f(2, "token revoke", key, "revoke", "planet", "earth")
	f(2, "token revoke", key, "lift", "company", "a", "b")
	f(2, "set DWS_AUTH_ADMIN_KEY", key, "revoke", "user", "acme", "u1")
}

func TestUsage(t *testing.T) {
	f := func(code int, want string, args ...string) {
		t.Helper()
		got, out, errs := call(nil, args...)
		if got != code || !strings.Contains(out+errs, want) {
			t.Errorf("%v: %d %s%s, want %d …%s…", args, got, out, errs, code, want)
		}
	}
	f(0, "daisi-ws dev go", "version")
	f(0, "daisi-ws publish", "help")
	f(0, "usage: daisi-ws connect", "connect", "-h")
	f(2, `no command "fly"`, "fly")
	f(2, "run takes no arguments", "run", "fast")
	f(2, "connect URL", "connect")
	f(2, "connect URL", "connect", "ws://a/", "-n", "1", "ws://b/")
	f(2, "flag provided but not defined", "connect", "-fast", "ws://a/")
	f(2, "publish SUBJECT JSON", "publish", "websocket.a.b.chats")
	f(2, "an event is a JSON object", "publish", "websocket.a.b.chats", `{"a":`)
	f(1, "connect", "connect", "ws://127.0.0.1:1/")
}
