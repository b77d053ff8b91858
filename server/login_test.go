package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// refusedAs holds an answer against the error body of wire.md.
func refusedAs(t *testing.T, status int, header http.Header, body string, want int, code, details string) {
	t.Helper()
	if status != want || header.Get("Content-Type") != "application/json" || !cleanRequestID(header.Get("X-Request-Id")) {
		t.Fatalf("status %d, header %v, body %s; want %d", status, header, body, want)
	}
	var f struct{ Code, Message, Details string }
	if err := json.Unmarshal([]byte(body), &f); err != nil {
		t.Fatalf("body %q: %v", body, err)
	}
	if f.Code != code || f.Message == "" || !strings.Contains(f.Details, details) {
		t.Fatalf("body %s, want code %s, details %q", body, code, details)
	}
	if retry := header.Get("Retry-After"); (retry != "") != (want == 429 || want == 503) {
		t.Fatalf("status %d with Retry-After %q", want, retry)
	}
}

func TestLoginSuccess(t *testing.T) {
	h := newHouse(t, nil)
	token := h.token("ag1", "u1")
	admin := h.mintFor(session.Claims{Admin: true, AdminID: "root", ExpiresAt: time.Now().Add(time.Hour)})
	f := func(path string, header map[string]string, protocol string) {
		t.Helper()
		s, answer := h.dial(path, header, text(`{"type":"ready"}`))
		if answer.StatusCode != http.StatusSwitchingProtocols || s.h.Get("X-Request-Id") == "" || s.h.Get("Sec-WebSocket-Protocol") != protocol {
			body, _ := io.ReadAll(answer.Body)
			t.Fatalf("GET %s: %d %v %s", path, answer.StatusCode, s.h, body)
		}
		ready := s.expect("ready", map[string]any{"pod": "pod-1", "stream": testStream, "seq": 0.0, "resume_window_s": 300.0})
		if ready.Payload["epoch"].(float64) < 1 || !strings.HasPrefix(ready.Payload["session"].(string), "pod-1@boot/") {
			t.Fatalf("ready %v", ready)
		}
		s.expect("ready", nil) // the early message, answered after
	}
	key := map[string]string{"X-API-Key": testAPIKey}
	with := func(k, v string) map[string]string { return map[string]string{"X-API-Key": testAPIKey, k: v} }
	query := "?token=" + url.QueryEscape(token)
	f("/ws/acme/ag1"+query, key, "")
	f("/ws/acme/ag1"+query+"&x-api-key="+testAPIKey, nil, "")
	f("/ws/%61cme/ag1"+query, key, "")
	f("/ws/acme/ag1", with("Authorization", "Bearer "+token), "")
	f("/ws/acme/ag1", with("Authorization", "bearer  "+token), "")
	f("/ws/acme/ag1", with("Sec-WebSocket-Protocol", "json.v1, token."+token), "json.v1")
	f("/ws/acme/ag1", with("Sec-WebSocket-Protocol", "json.v1+resume, json.v1,token."+token), "json.v1+resume")
	f("/ws/acme/ag1"+query, with("Sec-WebSocket-Protocol", "graphql"), "")
	f("/ws/acme/ag1"+query, with("Origin", "http://"+h.public.Addr().String()), "")
	f("/ws/admin?token="+url.QueryEscape(admin), map[string]string{"X-API-Key": testAdminKey}, "")
	f("/ws/admin?x-api-key="+testAdminKey+"&token="+url.QueryEscape(admin), nil, "")
	h.stop()
	if n := h.core.index.Len(); n != 0 {
		t.Fatalf("%d sessions are left", n)
	}
}

func TestLoginRefused(t *testing.T) {
	h := newHouse(t, nil)
	token := h.token("ag1", "u1")
	expired := h.mintFor(session.Claims{Company: "acme", Agent: "ag1", User: "u", ExpiresAt: time.Now().Add(-time.Second)})
	admin := h.mintFor(session.Claims{Admin: true, AdminID: "root", ExpiresAt: time.Now().Add(time.Hour)})
	f := func(name, path string, header map[string]string, want int, code, details string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			s, answer := h.dial(path, header, nil)
			body, _ := io.ReadAll(answer.Body)
			refusedAs(t, answer.StatusCode, s.h, string(body), want, code, details)
		})
	}
	good := "/ws/acme/ag1?token=" + url.QueryEscape(token)
	key := func(more ...string) map[string]string {
		m := map[string]string{"X-API-Key": testAPIKey}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	f("no key", good, nil, 401, "InvalidAPIKey", "")
	f("wrong key", good, map[string]string{"X-API-Key": testAPIKey + "x"}, 401, "InvalidAPIKey", "")
	f("minting key", good, map[string]string{"X-API-Key": testMintKey}, 401, "InvalidAPIKey", "")
	f("no token", "/ws/acme/ag1", key(), 403, "InvalidToken", "no token")
	f("junk token", "/ws/acme/ag1?token=abc", key(), 403, "InvalidToken", "")
	f("long token", "/ws/acme/ag1?token="+strings.Repeat("A", 9000), key(), 403, "InvalidToken", "")
	f("expired", "/ws/acme/ag1?token="+url.QueryEscape(expired), key(), 403, "InvalidToken", "expired at")
	f("admin token", "/ws/acme/ag1?token="+url.QueryEscape(admin), key(), 403, "InvalidToken", "")
	f("foreign company", "/ws/acme2/ag1?token="+url.QueryEscape(token), key(), 403, "InvalidToken", "path")
	f("foreign agent", "/ws/acme/ag2?token="+url.QueryEscape(token), key(), 403, "InvalidToken", "path")
	f("wildcard", "/ws/acme/%3E?token="+url.QueryEscape(token), key(), 403, "InvalidToken", "path")
	f("slash in an id", "/ws/acme/ag1%2F?token="+url.QueryEscape(token), key(), 403, "InvalidToken", "path")
	f("foreign origin", good, key("Origin", "https://evil.example"), 403, "OriginNotAllowed", "")
	f("null origin", good, key("Origin", "null"), 403, "OriginNotAllowed", "")
	f("no upgrade", good, key("Upgrade", ""), 400, "BadRequest", "Upgrade")
	f("no connection", good, key("Connection", ""), 400, "BadRequest", "Connection")
	f("no websocket key", good, key("Sec-WebSocket-Key", ""), 400, "BadRequest", "Key")
	f("old version", good, key("Sec-WebSocket-Version", "8"), 400, "BadRequest", "Version")
	f("bad upgrade and bad token", "/ws/acme/ag1?token=x", key("Upgrade", ""), 403, "InvalidToken", "")
	f("bad chat", good+"&chat=%00", key(), 400, "BadRequest", "chat_id")
	f("bad resume", good+"&resume=7", key(), 400, "BadRequest", "resume")
	f("admin, no key", "/ws/admin?token="+url.QueryEscape(admin), nil, 401, "E4001", "")
	f("admin, wrong key", "/ws/admin?token="+url.QueryEscape(admin), key(), 403, "E4003", "")
	f("admin, user token", "/ws/admin?token="+url.QueryEscape(token), map[string]string{"X-API-Key": testAdminKey}, 403, "InvalidToken", "")
	h.starts.Store(true)
	f("no core yet", good, key(), 503, "Overloaded", "starting")
	h.starts.Store(false)
	h.gate.draining.Store(true)
	f("draining", good, key(), 503, "Draining", "")
	if n := h.redis.epoch.Load(); n != 0 {
		t.Fatalf("%d refused logins reached Redis", n)
	}
}

func TestLoginRefusedBySession(t *testing.T) {
	h := newHouse(t, nil)
	h.redis.acquire = func(context.Context) (session.Acquired, error) {
		return session.Acquired{}, context.DeadlineExceeded
	}
	s, answer := h.dial("/ws/acme/ag1?token="+url.QueryEscape(h.token("ag1", "u1")), map[string]string{"X-API-Key": testAPIKey}, nil)
	body, _ := io.ReadAll(answer.Body)
	refusedAs(t, answer.StatusCode, s.h, string(body), 503, "Overloaded", "")
	if len(h.gate.logins) != 0 || h.gate.reserved.Load() != 0 || h.env.engine.Len() != 0 {
		t.Fatal("a refused login holds on to something")
	}
}

// A client that goes away in the middle leaves nothing: no lock, no session, no
// slot, no socket.
func TestLoginAbandoned(t *testing.T) {
	h := newHouse(t, nil)
	waits := make(chan struct{}, 1)
	h.redis.acquire = func(ctx context.Context) (session.Acquired, error) {
		waits <- struct{}{}
		<-ctx.Done()
		return session.Acquired{}, ctx.Err()
	}
	nc := h.ask("/ws/acme/ag1?token=" + url.QueryEscape(h.token("ag1", "u1")))
	<-waits
	_ = nc.Close()
	eventually(t, "the lock is released", func() bool { return h.redis.released.Load() == 1 })
	eventually(t, "the slot is free", func() bool {
		return len(h.gate.logins) == 0 && h.gate.reserved.Load() == 0 && h.public.pending() <= 1 // Accept's own place
	})
	if h.core.index.Len() != 0 || h.env.engine.Len() != 0 {
		t.Fatal("something is left in the tables")
	}
}

// A stop waits for a login under way, which net/http would not.
func TestStopWaitsForLogin(t *testing.T) {
	h := newHouse(t, nil)
	waits, goOn := make(chan struct{}), make(chan struct{})
	h.redis.acquire = func(context.Context) (session.Acquired, error) {
		close(waits)
		<-goOn
		return session.Acquired{Epoch: 1}, nil
	}
	got := make(chan int, 1)
	go func() {
		_, answer := h.dial("/ws/acme/ag1?token="+url.QueryEscape(h.token("ag1", "u1")), map[string]string{"X-API-Key": testAPIKey}, nil)
		got <- answer.StatusCode
	}()
	<-waits
	stopped := make(chan struct{})
	go func() { h.stop(); close(stopped) }()
	eventually(t, "the port is closed", func() bool { _, err := h.tryDial(); return err != nil })
	select {
	case <-stopped:
		t.Fatal("stopped over a login")
	default:
	}
	close(goOn)
	if status := <-got; status != http.StatusSwitchingProtocols {
		t.Fatalf("the login that was under way got %d", status)
	}
	<-stopped
}

func TestRefusalTold(t *testing.T) {
	f := func(mode string, origin bool, want int) {
		t.Helper()
		h := newHouse(t, func(o *Options) { o.Auth.Refuse = mode })
		header := map[string]string{"X-API-Key": testAPIKey, "Sec-WebSocket-Protocol": "json.v1"}
		if origin {
			header["Origin"] = "http://" + h.public.Addr().String()
		}
		s, answer := h.dial("/ws/acme/ag1?token=x", header, text(`{"type":"ready"}`))
		if answer.StatusCode != want || s.h.Get("X-Request-Id") == "" {
			t.Fatalf("refuse %s, origin %v: %d", mode, origin, answer.StatusCode)
		}
		if want == http.StatusSwitchingProtocols {
			if s.h.Get("Sec-WebSocket-Protocol") != "json.v1" {
				t.Fatal("the subprotocol was not answered: browsers would fail")
			}
			s.expect("error", map[string]any{"code": "InvalidToken"})
			s.expectClose(4403, "invalid-token")
		}
		_ = s.nc.Close()
		eventually(t, "the place is free", func() bool { return len(h.refused) == 0 })
	}
	f(RefuseAuto, true, 101)
	f(RefuseAuto, false, 403)
	f(RefuseHTTP, true, 403)
	f(RefuseClose, false, 101)
}

// Beyond the bound a browser gets the status like everybody else, and what is
// no upgrade or comes from elsewhere always does.
func TestRefusalNotTold(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Auth.Refuse = RefuseClose })
	f := func(path string, header map[string]string, want int) {
		t.Helper()
		if _, answer := h.dial(path, header, nil); answer.StatusCode != want {
			t.Fatalf("%s: %d, want %d", path, answer.StatusCode, want)
		}
	}
	f("/ws/acme/ag1?token=x", map[string]string{"X-API-Key": testAPIKey, "Upgrade": ""}, 403)
	f("/ws/acme/ag1?token=x", map[string]string{"X-API-Key": testAPIKey, "Origin": "http://evil"}, 403)
	for range maxToldRefusals {
		h.refused <- struct{}{}
	}
	f("/ws/acme/ag1?token=x", map[string]string{"X-API-Key": testAPIKey}, 403)
}

// Whatever is written to the log, at its finest, no secret is in it.
func TestLogsTellNoSecret(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.HTTP.MaxConnsPerIP = 100 })
	token := h.token("ag1", "u1")
	h.login("ag1", "u1", "&x-api-key="+testAPIKey, nil).send(`{"type":"refresh","payload":{"token":"` + token + `"}}`)
	for _, path := range []string{"/ws/acme/ag2?token=" + token, "/ws/acme/ag1?x-api-key=" + testMintKey, "/ws/admin?x-api-key=" + testAdminKey + "&token=" + token} {
		h.dial(path, map[string]string{"X-API-Key": testAPIKey}, nil)
	}
	h.do(call{path: "/admin/config?x-api-key=" + testAdminKey, internal: true})
	h.do(call{path: "/admin/drain", method: http.MethodPost, internal: true, header: map[string]string{"X-API-Key": testAdminKey}})
	h.stop()
	all := h.log.String()
	if !strings.Contains(all, "logged in") || !strings.Contains(all, "login refused") || !strings.Contains(all, "audit") {
		t.Fatalf("the log is not what was to be searched:\n%s", all)
	}
	for _, secret := range []string{testAPIKey, testMintKey, testAdminKey, testRing[3:], token, token[:20]} {
		if strings.Contains(all, secret) {
			t.Errorf("the log tells %q", secret)
		}
	}
}
