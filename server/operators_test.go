package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// audited looks for the audit line of an action.
func audited(t *testing.T, h *house, action string, status int, target, by string) {
	t.Helper()
	for line := range strings.Lines(h.log.String()) {
		var l struct {
			Message, Action, Target, By, Request, Remote string
			Status                                       int
		}
		if json.Unmarshal([]byte(line), &l) == nil && l.Message == "audit" && l.Action == action && l.Status == status &&
			strings.Contains(l.Target, target) && l.By == by && l.Request != "" && l.Remote != "" {
			return
		}
	}
	t.Errorf("no audit line of %s by %s about %s, status %d, in\n%s", action, by, target, status, h.log)
}

// pathOf fills in the ids of a route's path.
func pathOf(r route, company, agent, user string) string {
	return strings.NewReplacer("{company}", url.PathEscape(company), "{agent}", url.PathEscape(agent), "{user}", url.PathEscape(user)).Replace(r.path)
}

// Rights, as bits.
const (
	look = 1 << iota
	lookAll
	act
	actAll
)

// needsOfRoutes says what each endpoint asks for, told apart from the product.
func needsOfRoutes() map[string]int {
	return map[string]int{
		"GET /admin/sessions": look, "GET /admin/sessions/{company}/{agent}/{user}": look, "DELETE /admin/sessions/{company}/{agent}/{user}": act,
		"GET /admin/routes": look, "GET /admin/pods": look, "GET /admin/poison": look, "GET /admin/openapi.json": look,
		"GET /admin/revocations": look, "POST /admin/revoke": act, "POST /admin/lift": act,
		"GET /admin/config": lookAll, "GET /debug/check": lookAll, "POST /admin/drain": actAll,
		"GET /debug/pprof/": actAll, "GET /debug/pprof/cmdline": actAll, "GET /debug/pprof/profile": actAll, "GET /debug/pprof/symbol": actAll,
		"POST /debug/pprof/symbol": actAll, "GET /debug/pprof/trace": actAll,
	}
}

// Every endpoint of the internal port, for everybody who may come.
func TestOperatorsMayDoWhatTheirTokenSays(t *testing.T) {
	h := newHouse(t, nil)
	admin := func(change func(*session.Claims)) string {
		c := session.Claims{Admin: true, AdminID: "root", ExpiresAt: time.Now().Add(time.Hour)}
		change(&c)
		return h.mintFor(c)
	}
	plain := admin(func(*session.Claims) {})
	viewer := admin(func(c *session.Claims) { c.Role = session.RoleViewer })
	operator := admin(func(c *session.Claims) { c.Role = session.RoleOperator })
	looking := admin(func(c *session.Claims) { c.Role, c.ReadOnly = session.RoleOperator, true })
	scoped := admin(func(c *session.Claims) { c.Role, c.CompanyRestriction = session.RoleOperator, "acme" })
	expired := admin(func(c *session.Claims) { c.Role, c.ExpiresAt = session.RoleOperator, time.Now().Add(-time.Second) })
	gone := admin(func(c *session.Claims) { c.Role, c.JTI = session.RoleOperator, "gone" })
	h.revoked.set(session.Revocation{Revoked: session.Revoked{Kind: session.RevokedToken, Token: session.FingerprintOf("gone")}, At: time.Now()})

	needs := needsOfRoutes()
	f := func(name, key, token string, may int, code string) {
		t.Helper()
		header := map[string]string{}
		if key != "" {
			header["X-API-Key"] = key
		}
		if token != "" {
			header["Authorization"] = "Bearer " + token
		}
		for _, r := range h.internalRoutes() {
			if !strings.HasPrefix(r.path, "/admin/") && !strings.HasPrefix(r.path, "/debug/") {
				continue // probes and metrics are for everybody
			}
			need, told := needs[r.method+" "+r.path]
			if !told {
				t.Fatalf("%s %s: who may?", r.method, r.path)
			}
			path := pathOf(r, "acme", "ag1", "nobody")
			if strings.HasSuffix(path, "profile") || strings.HasSuffix(path, "trace") {
				if may&need != 0 {
					continue // takes its seconds; its refusal does not
				}
			}
			status, answer, body := h.do(call{method: r.method, path: path, internal: true, header: header})
			if may&need == 0 {
				refusedAs(t, status, answer, body, map[string]int{"E4001": 401}[code]+map[bool]int{true: 403}[code != "E4001"], code, "")
				continue
			}
			if status == 401 || status == 403 {
				t.Errorf("%s: %s %s: %d %s", name, r.method, r.path, status, body)
			}
		}
	}
	all := look | lookAll | act | actAll
	f("the key", testAdminKey, "", all, "")
	f("the key and a token without limits", testAdminKey, plain, all, "")
	f("the key and an operator's token", testAdminKey, operator, all, "")
	f("an operator's token", "", operator, all, "")
	f("the key and a viewer's token", testAdminKey, viewer, look|lookAll, "Forbidden")
	f("a viewer's token", "", viewer, look|lookAll, "Forbidden")
	f("a read-only token", "", looking, look|lookAll, "Forbidden")
	f("a token of one company", "", scoped, look|act, "Forbidden")
	f("nothing", "", "", 0, "E4001")
	f("a wrong key", "wrong", "", 0, "E4003")
	f("a wrong key and an operator's token", "wrong", operator, 0, "E4003")
	f("a token without a role", "", plain, 0, "InvalidToken")
	f("an expired token", testAdminKey, expired, 0, "InvalidToken")
	f("a revoked token", testAdminKey, gone, 0, "InvalidToken")
	f("a user's token", testAdminKey, h.token("ag1", "u1"), 0, "InvalidToken")
	if n := h.drained.Load(); n != 4 {
		t.Errorf("drained %d times, by 4 who may", n)
	}
	audited(t, h, "POST /admin/drain", 202, "", "admin:"+fingerprint("root"))
	audited(t, h, "POST /admin/drain", 403, "", "admin:"+fingerprint("root"))
	audited(t, h, "POST /admin/drain", 403, "", "nobody")
}

// A pod that does not know what is revoked, for it starts, or has not heard of
// Redis lately, takes no operator's token: the revoked ones are among them. The
// key alone counts.
func TestOperatorsTokensNeedRevocations(t *testing.T) {
	h := newHouse(t, nil)
	token := h.mintFor(session.Claims{Admin: true, AdminID: "root", Role: session.RoleOperator, ExpiresAt: time.Now().Add(time.Hour)})
	alone, both := map[string]string{"Authorization": "Bearer " + token}, map[string]string{"Authorization": "Bearer " + token, "X-API-Key": testAdminKey}
	drained := int32(0)
	f := func(name string, unknown bool) {
		t.Helper()
		for _, header := range []map[string]string{alone, both} {
			status, answer, body := h.do(call{method: http.MethodPost, path: "/admin/drain", internal: true, header: header})
			switch {
			case unknown:
				refusedAs(t, status, answer, body, 503, "Overloaded", "revoked")
			case status != 202:
				t.Errorf("%s: %d %s", name, status, body)
			default:
				drained++
			}
		}
		h.admin(http.MethodPost, "/admin/drain", 202)
		if drained++; h.drained.Load() != drained {
			t.Errorf("%s: drained %d times, want %d", name, h.drained.Load(), drained)
		}
	}
	f("known", false)
	h.starts.Store(true)
	f("it starts", true)
	h.starts.Store(false)
	h.cutOff.Store(true)
	f("it is cut off", true)
	h.cutOff.Store(false)
	f("known again", false)
}

// Operators of one company can't take all the room that revocations have: nobody
// could revoke anything of another tenant's.
func TestOperatorsRoom(t *testing.T) {
	h := newHouse(t, nil)
	entry := func(i int) session.Revocation {
		return session.Revocation{Revoked: session.Revoked{Kind: session.RevokedUser, Company: "acme", User: fmt.Sprint("u", i)}, At: time.Now()}
	}
	list := make([]session.Revocation, maxScoped-1)
	for i := range list {
		list[i] = entry(i)
	}
	h.revoked.set(list...)
	f := func(company, user string, want int) {
		t.Helper()
		token := h.mintFor(session.Claims{Admin: true, AdminID: "a", Role: session.RoleOperator, CompanyRestriction: company, ExpiresAt: time.Now().Add(time.Hour)})
		body := fmt.Sprintf(`{"kind":"user","company":%q,"user":%q}`, company, user)
		status, _, answer := h.do(call{method: http.MethodPost, path: "/admin/revoke", body: body, internal: true, header: map[string]string{"Authorization": "Bearer " + token}})
		if status != want {
			t.Errorf("%s of %s: %d %s", user, company, status, answer)
		}
	}
	f("acme", "last", 200)
	f("acme", "more", 507)
	f("acme", "u1", 200) // stands already
	f("rival", "u1", 200)
	h.post("/admin/revoke", `{"kind":"user","company":"acme","user":"more"}`, 200)
}

// A key is guessed at the endpoints that act as little as at the others.
func TestOperatorsKeyIsNotGuessed(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Auth.Failures = 3 })
	wrong := map[string]string{"X-API-Key": "wrong"}
	for range 3 {
		status, header, body := h.do(call{method: http.MethodPost, path: "/admin/revoke", internal: true, header: wrong})
		refusedAs(t, status, header, body, 403, "E4003", "")
	}
	status, header, body := h.do(call{method: http.MethodPost, path: "/admin/drain", internal: true, header: adminHeader})
	refusedAs(t, status, header, body, 429, "RateLimitExceeded", "")
}

// An operator of one company sees and ends sessions of no other, and can't tell
// whether they are there.
func TestOperatorsScope(t *testing.T) {
	h := newHouse(t, nil)
	h.login("ag1", "u1", "&chat=c1", nil)
	other := h.loginOf(session.Claims{Company: "rival", Agent: "ag1", User: "u1"}, "&chat=c1")
	token := h.mintFor(session.Claims{
		Admin: true, AdminID: "a", Role: session.RoleOperator, CompanyRestriction: "acme", SubscribedAgent: "ag1", ExpiresAt: time.Now().Add(time.Hour),
	})
	do := func(method, path, body string) (int, string) {
		t.Helper()
		status, _, answer := h.do(call{method: method, path: path, body: body, internal: true, header: map[string]string{"Authorization": "Bearer " + token}})
		return status, answer
	}
	for _, path := range []string{"/admin/sessions", "/admin/sessions?company=rival", "/admin/routes", "/admin/routes?company=rival", "/admin/revocations"} {
		status, body := do(http.MethodGet, path, "")
		if status != 200 || strings.Contains(body, "rival") || !strings.Contains(path, "rival") && !strings.Contains(path, "revo") && !strings.Contains(body, "acme") {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		s1, there := do(method, "/admin/sessions/rival/ag1/u1", "")
		s2, absent := do(method, "/admin/sessions/rival/ag1/u2", "")
		s3, admins := do(method, "/admin/sessions/%2Aadmin/%2A/root", "")
		if s1 != 404 || s2 != 404 || s3 != 404 || there != absent || there != admins {
			t.Errorf("%s: %d %s; %d %s; %d %s", method, s1, there, s2, absent, s3, admins)
		}
	}
	f := func(body string, want int) {
		t.Helper()
		if status, answer := do(http.MethodPost, "/admin/revoke", body); status != want {
			t.Errorf("revoke %s: %d %s", body, status, answer)
		}
	}
	f(`{"kind":"user","company":"rival","agent":"ag1","user":"u1"}`, 403)
	f(`{"kind":"user","company":"rival","user":"u1"}`, 403)
	f(`{"kind":"user","company":"acme","user":"u1"}`, 403) // of every agent
	f(`{"kind":"user","company":"acme","agent":"ag2","user":"u1"}`, 403)
	f(`{"kind":"company","company":"acme"}`, 403) // it has agents beside ag1
	f(`{"kind":"company","company":"rival"}`, 403)
	f(`{"kind":"kid","kid":"k1"}`, 403)
	f(`{"kind":"admin","admin":"root"}`, 403)
	f(`{"kind":"token","jti":"j"}`, 403)
	other.barrier()
	f(`{"kind":"user","company":"acme","agent":"ag1","user":"u1"}`, 200)
	other.barrier()
}
