package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// strangeIDs are tried wherever an id goes.
func strangeIDs() []string {
	ids := []string{
		"", ".", "..", "*", ">", "a.b", "acme.*", "acme.>", "acme ", " acme", "acme\x00", "acme\n", "acme\r\nX-Evil: 1", "acme\u0085", "acm\u00e9",
		"ACME", "acme/ag1", "acme%2Fag1", "acme:ag1", "{acme}", "acme|ag1", "acme@1", "*admin", "аcme", "acme\u200b", "\u202eemca", "用户", "\xff\xfe",
		"$JS", "_INBOX", "wa_stream", "null", "undefined", "0", "-1", "acme'--", `acme"`, `acme\`, "<script>", "rival",
		strings.Repeat("a", session.MaxID+1), strings.Repeat("ü", session.MaxID/2+1), strings.Repeat("a", 10_000),
	}
	return ids
}

// refusedForm is an answer without what is allowed to differ.
func refusedForm(status int, body string) string {
	var f struct{ Code, Message, Details string }
	if err := json.Unmarshal([]byte(body), &f); err != nil {
		return fmt.Sprintf("%d, no error body", status)
	}
	return fmt.Sprintf("%d %s: %s: %s", status, f.Code, f.Message, f.Details)
}

// A good token of one tenant on every other tenant's door: the same answer,
// whether that tenant is there, can be there, or can't. Nothing is locked.
func TestForeignDoorsAreAllAlike(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Auth.Failures = 1000 })
	token := h.token("ag1", "u1")
	h.loginOf(session.Claims{Company: "rival", Agent: "ag1", User: "u1"}, "")
	before := h.redis.epoch.Load()
	want := "403 InvalidToken: " + session.ReasonToken.Message() + ": company and agent of the path are not those of the token"
	attempts := 0
	f := func(company, agent string) {
		t.Helper()
		if company == "acme" && agent == "ag1" || company == "" || agent == "" {
			return // its own door; no door
		}
		path := "/ws/" + escapeAll(company) + "/" + escapeAll(agent) + "?token=" + url.QueryEscape(token)
		_, answer := h.dial(path, map[string]string{"X-API-Key": testAPIKey}, nil)
		body, _ := io.ReadAll(answer.Body)
		if got := refusedForm(answer.StatusCode, string(body)); got != want && answer.StatusCode != 431 {
			t.Errorf("%.60q %.60q: %s", company, agent, got)
		}
		attempts++
	}
	for _, id := range strangeIDs() {
		f(id, "ag1")
		f("acme", id)
		f(id, id)
	}
	if h.redis.epoch.Load() != before || attempts < 100 {
		t.Errorf("%d attempts, %d of them reached Redis", attempts, h.redis.epoch.Load()-before)
	}
}

// escapeAll escapes every byte, so that all of an id arrives as one segment.
func escapeAll(id string) string {
	var b strings.Builder
	for i := range len(id) {
		fmt.Fprintf(&b, "%%%02X", id[i])
	}
	return b.String()
}

// A socket of one tenant says everything that can be said, with other tenants'
// ids in every field: it stays within its own, is told the same for each, and
// the other tenant's sockets notice nothing.
func TestForeignIDsInEveryMessage(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Limits.MaxMessage = 1 << 20 })
	victim := h.loginOf(session.Claims{Company: "rival", Agent: "ag1", User: "u1"}, "&chat=secret")
	key := session.Key{Company: "rival", Agent: "ag1", User: "u1"}
	foreign := map[string]session.Claims{
		"company": {Company: "rival", Agent: "ag1", User: "u1"}, "agent": {Company: "acme", Agent: "ag2", User: "u1"}, "user": {Company: "acme", Agent: "ag1", User: "u2"},
		"admin": {Admin: true, AdminID: "root"},
	}
	// Fields that nothing reads, in every message: they must not be read.
	smuggled := func(id string) string {
		q, _ := json.Marshal(id)
		var b strings.Builder
		for _, name := range []string{"company_id", "company", "agent_id", "agent", "user_id", "user", "tenant", "subject", "target_company_id", "admin_id", "scope"} {
			fmt.Fprintf(&b, `,%q:%s`, name, q)
		}
		return b.String()
	}
	for _, id := range strangeIDs() {
		if id == "" {
			continue
		}
		s := h.login("ag1", "u1", "&resume", nil)
		q, _ := json.Marshal(id)
		for _, m := range []string{
			`{"type":"select_chat","payload":{"chat_id":` + string(q) + smuggled(id) + `}` + smuggled(id) + `}`,
			`{"type":"resume","payload":{"stream":` + string(q) + `,"seq":0` + smuggled(id) + `}` + smuggled(id) + `}`,
			`{"type":"refresh","payload":{"token":` + string(q) + smuggled(id) + `}` + smuggled(id) + `}`,
			`{"type":` + string(q) + `,"payload":{}` + smuggled(id) + `}`,
			`{"type":"ready"` + smuggled(id) + `}`,
		} {
			s.send(m)
		}
		for ready := false; !ready; {
			op, payload, err := s.raw()
			if err != nil {
				t.Fatalf("%.60q: %v", id, err)
			}
			var f struct{ Type string }
			if op == 1 && json.Unmarshal(payload, &f) != nil {
				t.Fatalf("%.60q: answered %q", id, payload)
			}
			ready = f.Type == "ready"
		}
		own := h.core.index.Find(session.Key{Company: "acme", Agent: "ag1", User: "u1"})
		if own == nil || own.Key() != (session.Key{Company: "acme", Agent: "ag1", User: "u1"}) {
			t.Fatalf("%.60q: its session is %v", id, own)
		}
	}
	s := h.login("ag1", "u1", "", nil)
	told := map[string]bool{}
	for name, c := range foreign {
		c.ExpiresAt = time.Now().Add(time.Hour)
		s.send(`{"type":"refresh","payload":{"token":"` + h.mintFor(c) + `"}}`)
		f := s.expect("error", map[string]any{"code": "InvalidToken"})
		if name != "admin" { // of another purpose, so it is no token here at all
			told[fmt.Sprint(f.Payload["details"])] = true
		}
	}
	if len(told) != 1 {
		t.Errorf("foreign tokens are not refused alike: %v", told)
	}
	victim.barrier()
	if v := h.core.index.Info(h.core.index.Find(key)); v.Chat != "secret" || v.State != session.Live {
		t.Errorf("the other tenant's session: %+v", v)
	}
	for n := range h.core.partitions {
		for _, w := range h.core.index.Wants(n) {
			if w.Company == "rival" && (w.Agent != "ag1" || w.Chat != "" && w.Chat != "secret") {
				t.Errorf("the other tenant's routes: %+v", w)
			}
		}
	}
}

// No id, however made, breaks a log line or a label.
func TestIDsInLogsAndLabels(t *testing.T) {
	h := newHouse(t, nil)
	for _, id := range strangeIDs() {
		if session.CheckTenantID("company", id) != nil {
			continue
		}
		h.loginOf(session.Claims{Company: id, Agent: id, User: id}, "")
		status, _, _ := h.do(call{method: "DELETE", path: "/admin/sessions/" + escapeAll(id) + "/" + escapeAll(id) + "/" + escapeAll(id), internal: true, header: adminHeader})
		if status != 200 {
			t.Errorf("%q: %d", id, status)
		}
		audited(t, h, "DELETE /admin/sessions/{company}/{agent}/{user}", 200, "", "key:"+fingerprint(testAdminKey))
	}
	lines := 0
	for line := range strings.Lines(h.log.String()) {
		if lines++; !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %q", line)
		}
	}
	_, _, metrics := h.do(call{path: "/metrics", internal: true})
	for _, id := range []string{"rival", "acme", "用户", "$JS"} {
		if strings.Contains(metrics, id) {
			t.Errorf("%q is in the metrics", id)
		}
	}
	if lines < 20 {
		t.Errorf("only %d lines", lines)
	}
}
