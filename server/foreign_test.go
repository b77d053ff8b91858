package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/session"
)

// A good token of one tenant on every other tenant's door: the same answer,
// whether that tenant is there, can be there, or can't. Nothing is locked.
func TestForeignDoorsAreAllAlike(t *testing.T) {
	attempts, err := foreignDoors(newHouse(t, func(o *Options) { o.Auth.Failures = 1000 }))
	if err != nil || attempts < 100 {
		t.Errorf("%d attempts: %v", attempts, err)
	}
}

// foreignDoors says which doors did not answer as they should.
func foreignDoors(h *house) (attempts int, err error) {
	token := h.token("ag1", "u1")
	h.loginOf(session.Claims{Company: "rival", Agent: "ag1", User: "u1"}, "")
	before := h.redis.epoch.Load()
	want := "403 InvalidToken: " + session.ReasonToken.Message() + ": company and agent of the path are not those of the token"
	f := func(company, agent string) {
		if company == "acme" && agent == "ag1" || company == "" || agent == "" {
			return // its own door; no door
		}
		path := "/ws/" + escapeAll(company) + "/" + escapeAll(agent) + "?token=" + url.QueryEscape(token)
		s, answer := h.dial(path, map[string]string{"X-API-Key": testAPIKey}, nil)
		defer func() { _ = s.nc.Close() }()
		attempts++
		if answer.StatusCode == 101 {
			err = errors.Join(err, fmt.Errorf("%.60q %.60q: let in", company, agent))
			return
		}
		body, _ := io.ReadAll(answer.Body)
		if got := refusedForm(answer.StatusCode, string(body)); got != want && answer.StatusCode != 431 {
			err = errors.Join(err, fmt.Errorf("%.60q %.60q: %s", company, agent, got))
		}
	}
	for _, id := range strangeIDs() {
		f(id, "ag1")
		f("acme", id)
		f(id, id)
	}
	if n := h.redis.epoch.Load() - before; n != 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d attempts reached Redis", n, attempts))
	}
	return attempts, err
}

// trespass is a socket of one tenant that says everything that can be said, with
// other tenants' ids in every field, beside a socket of another tenant.
type trespass struct {
	h      *house
	own    *socket
	victim *socket
	// leak does, behind a message, what a server would do that let the ids in it
	// through; nil: nothing.
	leak func(message string)
}

// Who they are.
var (
	trespasser = session.Key{Company: "acme", Agent: "ag1", User: "u1"}
	trespassed = session.Key{Company: "rival", Agent: "ag1", User: "u1"}
)

func newTrespass(t *testing.T) *trespass {
	h := newHouse(t, func(o *Options) { o.Limits.MaxMessage = 1 << 20 })
	return &trespass{h: h, victim: h.loginOf(session.Claims{Company: "rival", Agent: "ag1", User: "u1"}, "&chat=secret")}
}

// It stays within its own, is told the same for each, and the other tenant's
// socket notices nothing.
func TestForeignIDsInEveryMessage(t *testing.T) {
	if err := newTrespass(t).judge(); err != nil {
		t.Error(err)
	}
}

// What the judge is worth: it sees servers that act on an id that is not the
// sender's, each in another way.
func TestForeignIDsSeesFaults(t *testing.T) {
	f := func(want string, leak func(x *trespass)) {
		t.Helper()
		x := newTrespass(t)
		var once sync.Once
		x.leak = func(message string) {
			if strings.Contains(message, `"company":"rival"`) {
				once.Do(func() { leak(x) })
			}
		}
		if err := x.judge(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the judge says %v, want %q", err, want)
		}
	}
	f("the other tenant's session", func(x *trespass) { // selects for whom it names
		chat, done := "stolen", make(chan error, 1)
		if err := x.h.core.manager.Select(x.session(trespassed), &chat, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	f("the other tenant's", func(x *trespass) { x.h.core.manager.Close(x.session(trespassed), session.ReasonKilled, "") })
	f("another tenant's event", func(x *trespass) { x.whisper(trespasser, `{"type":"event","payload":{"of":"rival"}}`) })
	f("told apart", func(x *trespass) { x.whisper(trespasser, string(encodeError("NotFound", "No such company", ""))) })
	f("heard", func(x *trespass) {
		x.whisper(trespassed, string(encodeError("InvalidRequest", "Somebody asked for you", "")))
	})
	f("the other tenant's routes", func(x *trespass) {
		x.h.loginOf(session.Claims{Company: "rival", Agent: "ag2", User: "u1"}, "")
	})
	f("ended", func(x *trespass) { x.h.core.manager.Close(x.session(trespasser), session.ReasonKilled, "") })
}

func (x *trespass) session(key session.Key) *session.Session[*loop.Conn] {
	return x.h.core.index.Find(key)
}

// whisper sends a session what is not meant for it.
func (x *trespass) whisper(key session.Key, frame string) {
	_ = x.session(key).Sock().Queue(loop.NewFrame(ws.OpText, []byte(frame), loop.Control))
}

// judge says what was not as it should be.
func (x *trespass) judge() error {
	told := map[string]string{}
	for _, id := range append(strangeIDs(), "nobody") {
		if id == "" {
			continue
		}
		answers, err := x.try(id)
		if err == nil {
			err = x.apart()
		}
		if err != nil {
			return fmt.Errorf("%.60q: %w", id, err)
		}
		told[id] = answers
	}
	if told["rival"] != told["nobody"] {
		return fmt.Errorf("a tenant that is there is told apart from one that is not:\n%s\n%s", told["rival"], told["nobody"])
	}
	if err := x.refresh(); err != nil {
		return err
	}
	return x.apart()
}

// compared are the ids whose answers must be alike; others may be refused as such.
func compared(id string) bool { return id == "rival" || id == "nobody" }

// smuggled are fields that nothing reads, in every message: they must not be read.
func smuggled(id string) string {
	q, _ := json.Marshal(id)
	var b strings.Builder
	for _, name := range []string{"company_id", "company", "agent_id", "agent", "user_id", "user", "tenant", "subject", "target_company_id", "admin_id", "scope"} {
		fmt.Fprintf(&b, `,%q:%s`, name, q)
	}
	return b.String()
}

// try says everything with one id, on a socket of its own, and gives what was
// answered, without the id.
func (x *trespass) try(id string) (answers string, err error) {
	x.own = x.h.login("ag1", "u1", "&resume", nil)
	q, _ := json.Marshal(id)
	for _, m := range []string{
		`{"type":"select_chat","payload":{"chat_id":` + string(q) + smuggled(id) + `}` + smuggled(id) + `}`,
		`{"type":"resume","payload":{"stream":` + string(q) + `,"seq":0` + smuggled(id) + `}` + smuggled(id) + `}`,
		`{"type":"refresh","payload":{"token":` + string(q) + smuggled(id) + `}` + smuggled(id) + `}`,
		`{"type":` + string(q) + `,"payload":{}` + smuggled(id) + `}`,
		`{"type":"ready"` + smuggled(id) + `}`,
	} {
		x.own.send(m)
		if x.leak != nil {
			x.leak(m)
		}
	}
	// Resume and refresh are answered when their work is done, in any order.
	answers, err = x.own.upTo(func(text string) bool {
		return !compared(id) || strings.Contains(text, "gap ") && strings.Contains(text, "InvalidToken")
	})
	lines := strings.Split(strings.ReplaceAll(answers, id, "ID"), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n"), err
}

// upToReady is what came before the next barrier's echo.
func (s *socket) upToReady() (text string, err error) {
	return s.upTo(func(string) bool { return true })
}

// upTo is what came before the next barrier's echo, and until it is whole.
func (s *socket) upTo(whole func(text string) bool) (text string, err error) {
	_ = s.nc.SetDeadline(time.Now().Add(20 * time.Second))
	for echoed := false; !echoed || !whole(text); {
		f, err := s.read()
		switch {
		case err != nil:
			return text, fmt.Errorf("ended: %w", err)
		case f.Type == "ready":
			echoed = true
		case f.Type == "event":
			return text, fmt.Errorf("another tenant's event: %v", f.Payload)
		default:
			text += fmt.Sprintln(f.Type, f.Payload)
		}
	}
	return text, nil
}

// apart says whether both are who they were, have what they had, and an event of
// the one's chat reaches that one alone.
func (x *trespass) apart() error {
	if own := x.session(trespasser); own == nil || own.Key() != trespasser {
		return fmt.Errorf("its session is %v", own)
	}
	victim := x.session(trespassed)
	if victim == nil {
		return errors.New("the other tenant's session is gone")
	}
	if v := x.h.core.index.Info(victim); v.Chat != "secret" || v.State != session.Live {
		return fmt.Errorf("the other tenant's session: %+v", v)
	}
	for n := range x.h.core.partitions {
		for _, w := range x.h.core.index.Wants(n) {
			if w.Company == "rival" && (w.Agent != "ag1" || w.Chat != "" && w.Chat != "secret") {
				return fmt.Errorf("the other tenant's routes: %+v", w)
			}
		}
	}
	x.victim.send(`{"type":"ready"}`)
	if heard, err := x.victim.upToReady(); err != nil || heard != "" {
		return fmt.Errorf("the other tenant's socket heard %q, %v", heard, err)
	}
	frame := loop.NewFrame(ws.OpText, []byte(`{"type":"event","payload":{"of":"rival"}}`), loop.Events)
	n := trespassed.Partition(x.h.core.partitions)
	took := x.h.core.index.Push(n, session.Route{Company: "rival", Agent: "ag1", Kind: session.KindMessages, Chat: "secret"}, func(c *loop.Conn) session.Put {
		if c.Queue(frame) != nil {
			return session.Gone
		}
		return session.Queued
	})
	if f, err := x.victim.read(); took != 1 || err != nil || f.Payload["of"] != "rival" {
		return fmt.Errorf("the other tenant's event was taken by %d, and its socket got %v, %v", took, f, err)
	}
	x.own.send(`{"type":"ready"}`)
	_, err := x.own.upToReady()
	return err
}

// refresh comes with good tokens of others.
func (x *trespass) refresh() error {
	x.own = x.h.login("ag1", "u1", "", nil)
	told := map[string]bool{}
	for name, c := range map[string]session.Claims{
		"company": {Company: "rival", Agent: "ag1", User: "u1"}, "agent": {Company: "acme", Agent: "ag2", User: "u1"}, "user": {Company: "acme", Agent: "ag1", User: "u2"},
		"admin": {Admin: true, AdminID: "root"},
	} {
		c.ExpiresAt = time.Now().Add(time.Hour)
		x.own.send(`{"type":"refresh","payload":{"token":"` + x.h.mintFor(c) + `"}}`)
		x.own.send(`{"type":"ready"}`)
		answer, err := x.own.upToReady()
		if err != nil || !strings.Contains(answer, "InvalidToken") {
			return fmt.Errorf("a refresh with another %s was answered %q, %v", name, answer, err)
		}
		if name != "admin" { // of another purpose, so it is no token here at all
			told[answer] = true
		}
	}
	if len(told) != 1 {
		return fmt.Errorf("foreign tokens are not refused alike: %v", told)
	}
	return nil
}
