package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// chatOf is what the index has as selected.
func (h *house) chatOf(agent, user string) string {
	s := h.core.index.Find(session.Key{Company: "acme", Agent: agent, User: user})
	if s == nil {
		return "no session"
	}
	return h.core.index.Info(s).Chat
}

func TestSelect(t *testing.T) {
	h := newHouse(t, nil)
	h.last.Store(41)
	s := h.login("ag1", "u1", "", nil)
	s.send(`{"type":"select_chat","payload":{"chat_id":"628@s.whatsapp.net"}}`)
	s.barrier() // silent on success
	if got := h.chatOf("ag1", "u1"); got != "628@s.whatsapp.net" {
		t.Fatalf("selected %q", got)
	}
	s.send(`{"type":"select_chat","payload":{"chat_id":"c2","ack":true}}`)
	s.expect("selected", map[string]any{"chat_id": "c2", "seq": 41.0})
	s.send(`{"type":"select_chat","payload":{"chat_id":null,"ack":true}}`)
	s.expect("selected", map[string]any{"chat_id": nil, "seq": 41.0})
	if got := h.chatOf("ag1", "u1"); got != "" {
		t.Fatalf("selected %q after null", got)
	}
	h.redis.full.Store(true)
	s.send(`{"type":"select_chat","payload":{"chat_id":"c3"}}`)
	s.expect("error", map[string]any{"code": "Overloaded", "details": "the former chat stays selected"})
	h.redis.full.Store(false)
	err := errors.New("no NATS")
	h.lastErr.Store(&err)
	s.send(`{"type":"select_chat","payload":{"chat_id":"c4","ack":true}}`)
	s.expect("error", map[string]any{"code": "Overloaded"})
	if got := h.chatOf("ag1", "u1"); got != "c4" {
		t.Fatalf("selected %q", got)
	}
}

func TestSelectAtConnect(t *testing.T) {
	h := newHouse(t, nil)
	h.login("ag1", "u1", "&chat=628%40s.whatsapp.net", nil)
	if got := h.chatOf("ag1", "u1"); got != "628@s.whatsapp.net" {
		t.Fatalf("selected %q", got)
	}
}

// Messages take effect in order: what comes behind a select_chat waits for its
// route, 16 of them at most.
func TestMessagesInOrder(t *testing.T) {
	h := newHouse(t, nil)
	h.redis.holdJoins()
	s := h.login("ag1", "u1", "", nil)
	s.send(`{"type":"select_chat","payload":{"chat_id":"c0"}}`)
	for i := 1; i <= 5; i++ {
		s.send(fmt.Sprintf(`{"type":"select_chat","payload":{"chat_id":"c%d","ack":true}}`, i))
	}
	for range maxWaiting - 5 {
		s.send(`{"type":"ready"}`)
	}
	s.send(`{"type":"ready"}`) // one too many
	s.expect("error", map[string]any{"code": "BadRequest"})
	for i := range 6 {
		eventually(t, "the next join", func() bool { return h.redis.letGo() == 1 })
		if i > 0 {
			s.expect("selected", map[string]any{"chat_id": fmt.Sprintf("c%d", i)})
		}
	}
	for range maxWaiting - 5 {
		s.expect("ready", nil)
	}
	h.redis.mu.Lock()
	h.redis.hold = false
	h.redis.mu.Unlock()
	s.send(`{"type":"select_chat","payload":{"chat_id":"c9"}}`)
	s.barrier()
	if got := h.chatOf("ag1", "u1"); got != "c9" {
		t.Fatalf("selected %q at last", got)
	}
}

// Many messages at once, from many sockets, with answers from other goroutines:
// none is lost, none overtakes.
func TestMessagesStress(t *testing.T) {
	h := newHouse(t, nil)
	done := make(chan error, 8)
	for u := range 8 {
		s := h.login("ag1", fmt.Sprintf("u%d", u), "", nil)
		go func() {
			for round := range 100 {
				var b []byte
				for i := range 8 {
					b = append(b, text(fmt.Sprintf(`{"type":"select_chat","payload":{"chat_id":"c%d-%d","ack":true}}`, round, i))...)
				}
				b = append(b, text(`{"type":"ready"}`)...)
				if _, err := s.nc.Write(b); err != nil {
					done <- err
					return
				}
				for i := range 9 {
					f, err := s.read()
					if want := fmt.Sprintf("c%d-%d", round, i); err != nil || i < 8 && f.Payload["chat_id"] != want || i == 8 && f.Type != "ready" {
						done <- fmt.Errorf("round %d, frame %d: %v, %w", round, i, f, err)
						return
					}
				}
			}
			done <- nil
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestBadMessages(t *testing.T) {
	h := newHouse(t, nil)
	s := h.login("ag1", "u1", "", nil)
	f := func(message, details string) {
		t.Helper()
		s.send(message)
		got := s.expect("error", map[string]any{"code": "BadRequest"})
		if d, _ := got.Payload["details"].(string); !strings.Contains(d, details) {
			t.Fatalf("details %q, want %q", d, details)
		}
	}
	f(`[]`, "no JSON object")
	f(`{"type":"subscribe"}`, "unknown type")
	f(`{"type":"select_chat","payload":{"chat_id":""}}`, "chat_id")
	f(`{"type":"resume","payload":{"stream":"`+testStream+`"}}`, "seq")
	if _, err := s.nc.Write(ws.MustCompileFrame(ws.MaskFrameInPlace(ws.NewBinaryFrame([]byte{0, 1})))); err != nil {
		t.Fatal(err)
	}
	s.barrier() // binary means nothing, and the socket is still there
	var flood []byte
	for range 2 * 20 {
		flood = append(flood, text(`x`)...)
	}
	if _, err := s.nc.Write(flood); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := s.read()
		var c closed
		if errors.As(err, &c) {
			if c.code != 4429 {
				t.Fatalf("closed with %d %s", c.code, c.reason)
			}
			break
		}
		if err != nil || frame.Type != "error" {
			t.Fatalf("%v, %v", frame, err)
		}
	}
}

func TestAdminSocket(t *testing.T) {
	h := newHouse(t, nil)
	token := h.mintFor(session.Claims{Admin: true, AdminID: "root", ExpiresAt: time.Now().Add(time.Hour)})
	s, _ := h.dial("/ws/admin?resume="+testStream+":3&token="+token, map[string]string{"X-API-Key": testAdminKey}, nil)
	s.expect("ready", map[string]any{"seq": 0.0})
	s.expect("gap", map[string]any{"reason": "admin", "replayable": false})
	s.send(`{"type":"resume","payload":{"stream":"` + testStream + `","seq":1}}`)
	s.expect("gap", map[string]any{"reason": "admin"})
	s.send(`{"type":"select_chat","payload":{"chat_id":"c"}}`)
	s.expect("error", map[string]any{"code": "BadRequest"})
}

func TestRefresh(t *testing.T) {
	h := newHouse(t, nil)
	s := h.login("ag1", "u1", "&resume", nil)
	kept := h.core.index.Find(session.Key{Company: "acme", Agent: "ag1", User: "u1"})
	before := kept.Expires()
	refresh := func(c session.Claims) {
		t.Helper()
		s.send(`{"type":"refresh","payload":{"token":"` + h.mintFor(c) + `"}}`)
	}
	claims := session.Claims{Company: "acme", Agent: "ag1", User: "u1", ExpiresAt: time.Now().Add(2 * time.Hour)}
	refresh(claims)
	s.barrier() // silent on success
	if after := kept.Expires(); after < before+3000 {
		t.Fatalf("expires %d, before %d", after, before)
	}
	bad := func(details string, change func(*session.Claims)) {
		t.Helper()
		c := claims
		c.ExpiresAt = time.Now().Add(9 * time.Hour)
		change(&c)
		refresh(c)
		f := s.expect("error", map[string]any{"code": "InvalidToken"})
		if d, _ := f.Payload["details"].(string); !strings.Contains(d, details) {
			t.Fatalf("details %q, want %q", d, details)
		}
	}
	bad("identity", func(c *session.Claims) { c.User = "u2" })
	bad("identity", func(c *session.Claims) { c.Company = "acme2" })
	bad("rights", func(c *session.Claims) { c.Chats = []string{"x*"} })
	bad("", func(c *session.Claims) { c.ExpiresAt = time.Now().Add(-time.Second) })
	s.send(`{"type":"refresh","payload":{"token":"AAAA"}}`)
	s.expect("error", map[string]any{"code": "InvalidToken"})
	if after := kept.Expires(); after > before+4000 {
		t.Fatal("a refused token moved the expiry")
	}
}

func TestExpiry(t *testing.T) {
	h := newHouse(t, nil)
	login := func(user, query string, life time.Duration) *socket {
		t.Helper()
		token := h.mintFor(session.Claims{Company: "acme", Agent: "ag1", User: user, ExpiresAt: time.Now().Add(life)})
		s, _ := h.dial("/ws/acme/ag1?token="+token+query, map[string]string{"X-API-Key": testAPIKey}, nil)
		s.expect("ready", nil)
		return s
	}
	legacy, modern, saved := login("u1", "", 3*time.Second), login("u2", "&resume", 3*time.Second), login("u3", "&resume", 3*time.Second)
	saved.expect("token_expiring", nil)
	saved.send(`{"type":"refresh","payload":{"token":"` + h.token("ag1", "u3") + `"}}`)
	saved.barrier()
	modern.expect("token_expiring", nil)
	modern.expect("error", map[string]any{"code": "InvalidToken"})
	modern.expectClose(4403, "token-expired")
	legacy.expect("error", map[string]any{"code": "InvalidToken"})
	legacy.expectClose(4403, "token-expired")
	saved.barrier()
}

// Only the newest socket of a key stays; the other hears why.
func TestReplaced(t *testing.T) {
	h := newHouse(t, nil)
	old := h.login("ag1", "u1", "", nil)
	old.t = t
	newer := h.login("ag1", "u1", "", nil)
	old.expect("error", map[string]any{"code": "SessionConflict"})
	old.expectClose(4402, "session-replaced")
	newer.barrier()
	if n := h.core.index.Len(); n != 1 {
		t.Fatalf("%d sessions", n)
	}
}

func TestDrainAndGap(t *testing.T) {
	h := newHouse(t, nil)
	of := func(user string) *client {
		s := h.core.index.Find(session.Key{Company: "acme", Agent: "ag1", User: user})
		return s.Sock().Handler().(*client)
	}
	legacy, modern := h.login("ag1", "u1", "", nil), h.login("ag1", "u2", "&resume", nil)
	if of("u1").gap(1, 2, "retention", false) || !of("u2").gap(1, 2, "retention", true) {
		t.Fatal("gap frames go to those that asked, and no others")
	}
	modern.expect("gap", map[string]any{"from": 1.0, "to": 2.0, "reason": "retention", "replayable": true})
	for _, u := range []string{"u1", "u2"} {
		of(u).drain()
		of(u).drain()
		h.core.manager.Close(&of(u).Session, session.ReasonDraining, "")
	}
	f := modern.expect("draining", nil)
	if after := f.Payload["reconnect_after_ms"].(float64); after < 100 || after > 5100 {
		t.Fatalf("come back after %v ms", after)
	}
	for _, s := range []*socket{modern, legacy} {
		s.expect("error", map[string]any{"code": "Draining", "message": "Service shutting down"})
		s.expectClose(1001, "draining")
	}
}

// One that does not read is told why, in place of what it did not take.
func TestSlowIsTold(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Limits.SendBudget = 64 << 10 })
	s := h.login("ag1", "u1", "", nil)
	kept := h.core.index.Find(session.Key{Company: "acme", Agent: "ag1", User: "u1"})
	big := loop.NewEvent(make([]byte, 32<<10), 0, 0)
	eventually(t, "the budget is used up", func() bool {
		for kept.Sock().Queue(big) == nil {
		}
		return kept.Sock().Queued() > 32<<10
	})
	h.core.manager.Close(kept, session.ReasonSlow, "")
	for {
		op, payload, err := s.raw()
		if err != nil {
			t.Fatalf("no word: %v", err)
		}
		if op == ws.OpText && strings.Contains(string(payload), "SlowConsumer") {
			break
		}
	}
	eventually(t, "the close frame comes", func() bool {
		_, err := s.read()
		var c closed
		return errors.As(err, &c) && c.code == 4408
	})
}

// The session goes when its socket does.
func TestSocketEnds(t *testing.T) {
	h := newHouse(t, nil)
	s := h.login("ag1", "u1", "", nil)
	_ = s.nc.Close()
	eventually(t, "the session is gone", func() bool { return h.core.index.Len() == 0 && h.redis.released.Load() == 1 })
}

func TestReasonOf(t *testing.T) {
	for want, ends := range map[session.Reason][]loop.End{
		session.ReasonClient:   {{Code: 1000}, {Code: 1001}, {Code: 1005}},
		session.ReasonGone:     {{Code: 1006, Err: io.EOF}, {Code: 1006, Err: errors.New("reset")}},
		session.ReasonTimeout:  {{Code: 1006, Local: true, Err: loop.ErrTimeout}},
		session.ReasonProtocol: {{Code: 1002, Local: true, Err: &loop.ProtocolError{Code: 1002}}},
		session.ReasonUTF8:     {{Code: 1007, Local: true, Err: &loop.ProtocolError{Code: 1007}}},
		session.ReasonTooBig:   {{Code: 1009, Local: true, Err: &loop.ProtocolError{Code: 1009}}},
		session.ReasonRate:     {{Code: 4429, Local: true, Err: &loop.ProtocolError{Code: 4429}}},
		session.ReasonInternal: {{Code: 1011, Local: true}},
		session.ReasonDraining: {{Code: 1001, Local: true, Err: loop.ErrClosed}},
	} {
		for _, end := range ends {
			if got := reasonOf(end); got != want {
				t.Errorf("%+v is %v, want %v", end, got, want)
			}
		}
	}
}

// An event reaches a socket as appendEvent writes it.
func TestEventFrame(t *testing.T) {
	h := newHouse(t, nil)
	s := h.login("ag1", "u1", "", nil)
	ev := session.Event{Seq: 5, Route: session.Route{Company: "acme", Agent: "ag1", Kind: "chats"}, Body: []byte(`{"n":1e400}`)}
	var d session.Delivered[*loop.Conn]
	h.core.index.Deliver(session.Partition("acme", "ag1", 4), &ev, nil, func(c *loop.Conn) session.Put {
		if c.Queue(eventFrame(&ev)) != nil {
			return session.Gone
		}
		return session.Queued
	}, &d)
	_, payload, err := s.raw()
	if err != nil || string(payload) != `{"type":"event","payload":{"n":1e400,"event_type":"chat"},"seq":5}` || !json.Valid(payload) {
		t.Fatalf("frame %s, %v", payload, err)
	}
}

func TestPanicCostsTheRequest(t *testing.T) {
	h := newHouse(t, nil)
	h.redis.acquire = func(context.Context) (session.Acquired, error) { panic("planted") }
	s, answer := h.dial("/ws/acme/ag1?token="+h.token("ag1", "u1"), map[string]string{"X-API-Key": testAPIKey}, nil)
	body, _ := io.ReadAll(answer.Body)
	refusedAs(t, answer.StatusCode, s.h, string(body), 500, "InternalServerError", "")
	h.redis.acquire = nil
	if n := len(h.gate.logins); n != 0 || h.gate.reserved.Load() != 0 {
		t.Fatal("a panic kept a slot")
	}
	h.login("ag1", "u2", "", nil).barrier()
	if !strings.Contains(h.log.String(), "planted") {
		t.Fatal("the panic was not logged")
	}
}
