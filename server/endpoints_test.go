package server

import (
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/session"
)

var (
	mintHeader  = map[string]string{"X-API-Key": testMintKey}
	adminHeader = map[string]string{"X-API-Key": testAdminKey}
)

func TestHealth(t *testing.T) {
	h := newHouse(t, nil)
	f := func(path string, want int, body string) {
		t.Helper()
		for _, internal := range []bool{false, true} {
			status, header, got := h.do(call{path: path, internal: internal})
			if status != want || strings.TrimSpace(got) != body || !cleanRequestID(header.Get("X-Request-Id")) {
				t.Fatalf("%s: %d %s", path, status, got)
			}
		}
	}
	ready := `{"status":"READY","dependencies":{"admission":"ok","listener":"ok","nats":"ok","redis":"ok"}}`
	f("/health", 200, `{"status":"OK"}`)
	f("/livez", 200, `{"status":"OK"}`)
	f("/ready", 200, ready)
	f("/readyz", 200, ready)
	h.status.Store(&Status{State: StateDegraded, Dependencies: map[string]string{"redis": "no beat for 3s"}})
	f("/readyz", 200, `{"status":"DEGRADED","dependencies":{"admission":"ok","listener":"ok","redis":"no beat for 3s"}}`)
	h.status.Store(&Status{State: StateNotReady, Dependencies: map[string]string{"nats": "not connected"}})
	f("/readyz", 503, `{"status":"NOT_READY","dependencies":{"admission":"ok","listener":"ok","nats":"not connected"}}`)
	f("/livez", 200, `{"status":"OK"}`)
	h.status.Store(&Status{State: StateReady, Dead: "stuck"})
	f("/livez", 503, `{"details":"stuck","status":"DEAD"}`)
	h.status.Store(&Status{State: StateReady})
	h.gate.draining.Store(true)
	f("/readyz", 503, `{"status":"NOT_READY","dependencies":{"admission":"draining","listener":"ok"}}`)
}

func TestSelfProbe(t *testing.T) {
	h := newHouse(t, nil)
	if err := h.probeOnce(t.Context()); err != nil {
		t.Fatal(err)
	}
	failure := "no route"
	h.probe.failure.Store(&failure)
	if s := h.readiness(); s.State != StateNotReady || s.Dependencies["listener"] != failure {
		t.Fatalf("status %+v", s)
	}
	h.stop()
	if err := h.probeOnce(t.Context()); err == nil {
		t.Fatal("a closed port answered")
	}
}

// A component that failed is run again: on the same port.
func TestPortsServeAgain(t *testing.T) {
	h := newHouse(t, nil)
	public, internal := h.public.Addr().String(), h.internal.Addr().String()
	h.stop()
	stop := start(t, h.runPublic, h.runInternal)
	defer stop()
	eventually(t, "both ports answer again", func() bool {
		for _, addr := range []string{public, internal} {
			nc, err := net.Dial("tcp", addr)
			if err != nil {
				return false
			}
			_ = nc.Close()
		}
		return true
	})
	if status, _, _ := h.do(call{path: "/health"}); status != 200 {
		t.Fatalf("status %d", status)
	}
}

func TestRequestID(t *testing.T) {
	h := newHouse(t, nil)
	f := func(given string, kept bool) {
		t.Helper()
		_, header, _ := h.do(call{path: "/health", header: map[string]string{"X-Request-Id": given}})
		if got := header.Get("X-Request-Id"); (got == given) != kept || !cleanRequestID(got) {
			t.Fatalf("given %q, got %q", given, got)
		}
	}
	f("abc.DEF_1-2", true)
	f(strings.Repeat("x", 64), true)
	f(strings.Repeat("x", 65), false)
	f("a b", false)
	f(`a"b`, false)
}

func TestMint(t *testing.T) {
	h := newHouse(t, nil)
	f := func(path, body string, header map[string]string, claims session.Claims) {
		t.Helper()
		status, _, got := h.do(call{method: http.MethodPost, path: path, body: body, header: header})
		var answer struct{ Token string }
		if status != 200 || json.Unmarshal([]byte(got), &answer) != nil {
			t.Fatalf("%s %s: %d %s", path, body, status, got)
		}
		v := h.env.users
		if claims.Admin {
			v = h.env.admins
		}
		c, err := v.Verify(t.Context(), answer.Token)
		if err != nil || c.Key() != claims.Key() || c.CompanyRestriction != claims.CompanyRestriction {
			t.Fatalf("claims %+v, %v", c, err)
		}
		if left := time.Until(c.ExpiresAt); left < 55*time.Second || left > time.Minute {
			t.Fatalf("expires in %v", left)
		}
	}
	user := `{"company_id":"acme","agent_id":"ag1","user_id":"u:1","expires_in_seconds":60,"unknown":1}`
	f("/generate-token", user, mintHeader, session.Claims{Company: "acme", Agent: "ag1", User: "u:1"})
	f("/generate-token?x-api-key="+testMintKey, user, nil, session.Claims{Company: "acme", Agent: "ag1", User: "u:1"})
	f("/admin/generate-token", `{"admin_id":"root","expires_in_seconds":60,"company_id_restriction":"acme"}`, adminHeader,
		session.Claims{Admin: true, AdminID: "root", CompanyRestriction: "acme"})
}

func TestMintRefused(t *testing.T) {
	h := newHouse(t, nil)
	off := newHouse(t, func(o *Options) { o.Auth.MintKey, o.Auth.AdminKey = "", "" })
	noAdmins := newHouse(t, func(o *Options) { o.Auth.AdminTokenKeys = "" })
	f := func(h *house, path, body string, header map[string]string, want int, code, details string) {
		t.Helper()
		status, got, answer := h.do(call{method: http.MethodPost, path: path, body: body, header: header})
		refusedAs(t, status, got, answer, want, code, details)
	}
	user := `{"company_id":"acme","agent_id":"ag1","user_id":"u1","expires_in_seconds":60}`
	f(h, "/generate-token", user, nil, 401, "InvalidAPIKey", "")
	f(h, "/generate-token", user, map[string]string{"X-API-Key": testAPIKey}, 401, "InvalidAPIKey", "key of its own")
	f(h, "/generate-token", user, adminHeader, 401, "InvalidAPIKey", "")
	f(off, "/generate-token", user, map[string]string{"X-API-Key": ""}, 404, "NotFound", "off")
	f(h, "/generate-token", `{"company`, mintHeader, 400, "BadRequest", "JSON")
	f(h, "/generate-token", `[]`, mintHeader, 400, "BadRequest", "JSON")
	f(h, "/generate-token", user+user, mintHeader, 400, "BadRequest", "JSON")
	f(h, "/generate-token", ``, mintHeader, 400, "BadRequest", "JSON")
	f(h, "/generate-token", `{"company_id":1}`, mintHeader, 400, "BadRequest", "company_id must not be a number")
	f(h, "/generate-token", `{"agent_id":"a","user_id":"u","expires_in_seconds":60}`, mintHeader, 400, "BadRequest", "company_id")
	f(h, "/generate-token", strings.Replace(user, "ag1", ">", 1), mintHeader, 400, "BadRequest", "agent_id")
	f(h, "/generate-token", strings.Replace(user, "60", "0", 1), mintHeader, 400, "BadRequest", "expires_in_seconds")
	f(h, "/generate-token", strings.Replace(user, "60", "99999999999", 1), mintHeader, 400, "BadRequest", "expires_in_seconds")
	f(h, "/generate-token", `{"user_id":"`+strings.Repeat("x", 70<<10)+`"}`, mintHeader, 413, "BadRequest", "")
	f(h, "/admin/generate-token", `{}`, nil, 401, "E4001", "")
	f(h, "/admin/generate-token", `{}`, mintHeader, 403, "E4003", "")
	f(h, "/admin/generate-token", `{"expires_in_seconds":60}`, adminHeader, 400, "BadRequest", "admin_id")
	f(off, "/admin/generate-token", `{}`, adminHeader, 404, "NotFound", "off")
	f(noAdmins, "/admin/generate-token", `{}`, adminHeader, 404, "NotFound", "off")
}

func TestNotFound(t *testing.T) {
	h := newHouse(t, nil)
	f := func(c call, want int, code string) {
		t.Helper()
		status, header, body := h.do(c)
		refusedAs(t, status, header, body, want, code, "")
	}
	f(call{path: "/nothing"}, 404, "NotFound")
	f(call{path: "/"}, 404, "NotFound") // not embedded
	f(call{path: "/dev/events", method: http.MethodPost}, 404, "NotFound")
	f(call{path: "/metrics"}, 404, "NotFound")
	f(call{path: "/admin/sessions", header: adminHeader}, 404, "NotFound")
	f(call{path: "/ws/acme"}, 404, "NotFound")
	f(call{path: "/generate-token"}, 405, "MethodNotAllowed")
	f(call{path: "/ws/acme/ag1", method: http.MethodPost}, 405, "MethodNotAllowed")
	f(call{path: "/health", method: http.MethodDelete}, 405, "MethodNotAllowed")
	if status, _, _ := h.do(call{path: "/health", method: http.MethodHead}); status != 200 {
		t.Fatalf("HEAD: %d", status)
	}
}

func TestAdminGuarded(t *testing.T) {
	h := newHouse(t, nil)
	off := newHouse(t, func(o *Options) { o.Auth.AdminKey = "" })
	for _, r := range h.internalRoutes() {
		if slices.Contains([]string{"/health", "/livez", "/ready", "/readyz", "/metrics"}, r.path) {
			continue
		}
		path := strings.NewReplacer("{company}", "a", "{agent}", "b", "{user}", "c").Replace(r.path)
		f := func(h *house, header map[string]string, want int, code string) {
			t.Helper()
			status, got, body := h.do(call{method: r.method, path: path, internal: true, header: header})
			refusedAs(t, status, got, body, want, code, "")
		}
		f(h, nil, 401, "E4001")
		f(h, mintHeader, 403, "E4003")
		f(off, adminHeader, 404, "NotFound")
	}
	if h.drained.Load() != 0 {
		t.Fatal("drained without the key")
	}
}

// admin asks the internal port, and wants JSON of it.
func (h *house) admin(method, path string, want int) map[string]any {
	h.t.Helper()
	status, _, body := h.do(call{method: method, path: path, internal: true, header: adminHeader})
	var m map[string]any
	if status != want || json.Unmarshal([]byte(body), &m) != nil {
		h.t.Fatalf("%s %s: %d %s", method, path, status, body)
	}
	return m
}

func TestAdminSessions(t *testing.T) {
	h := newHouse(t, nil)
	var sockets []*socket
	for _, agent := range []string{"ag1", "ag2", "ag3"} {
		for _, user := range []string{"u1", "u2", "u 3/ö"} {
			sockets = append(sockets, h.login(agent, user, "&chat=c-"+agent, nil))
		}
	}
	list := func(query string) (users []string, next string) {
		t.Helper()
		answer := h.admin(http.MethodGet, "/admin/sessions?"+query, 200)
		for _, s := range answer["sessions"].([]any) {
			m := s.(map[string]any)
			users = append(users, m["company"].(string)+"/"+m["agent"].(string)+"/"+m["user"].(string))
		}
		next, _ = answer["next"].(string)
		return users, next
	}
	all, next := list("")
	if len(all) != 9 || next != "" {
		t.Fatalf("all: %v, next %q", all, next)
	}
	var paged []string
	for after := ""; ; {
		page, next := list("limit=2&after=" + after)
		if paged = append(paged, page...); next == "" {
			break
		}
		after = next
	}
	if !slices.Equal(all, paged) {
		t.Fatalf("pages %v, all %v", paged, all)
	}
	f := func(query string, want int) {
		t.Helper()
		if got, _ := list(query); len(got) != want {
			t.Fatalf("%s: %v", query, got)
		}
	}
	f("company=acme", 9)
	f("agent=ag2", 3)
	f("company=acme&agent=ag2&user=u1", 1)
	f("company=acme&agent=ag9", 0)
	f("chat=c-ag3", 3)
	for _, query := range []string{"limit=0", "limit=1001", "limit=x", "after=!", "after=AAAA"} {
		h.admin(http.MethodGet, "/admin/sessions?"+query, 400)
	}

	one := h.admin(http.MethodGet, "/admin/sessions/acme/ag1/u%203%2F%C3%B6", 200)
	if one["state"] != "live" || one["chat"] != "c-ag1" || one["remote"] == "" || one["expires_at"] == nil || one["connected_s"].(float64) > 5 {
		t.Fatalf("session %v", one)
	}
	h.admin(http.MethodGet, "/admin/sessions/acme/ag1/nobody", 404)
	h.admin(http.MethodDelete, "/admin/sessions/acme/ag1/u%203%2F%C3%B6", 200)
	sockets[2].expect("error", map[string]any{"code": "SessionKilled"})
	sockets[2].expectClose(1008, "closed-by-operator")
	h.admin(http.MethodDelete, "/admin/sessions/acme/ag1/u%203%2F%C3%B6", 404)
	f("", 8)
	audited(t, h, "DELETE /admin/sessions/{company}/{agent}/{user}", 200, `"acme"`, "key:"+fingerprint(testAdminKey))
	audited(t, h, "DELETE /admin/sessions/{company}/{agent}/{user}", 404, `"acme"`, "key:"+fingerprint(testAdminKey))
}

func TestAdminRest(t *testing.T) {
	h := newHouse(t, nil)
	h.login("ag1", "u1", "&chat=c1", nil)
	routes := h.admin(http.MethodGet, "/admin/routes?company=acme", 200)["routes"].([]any)
	if len(routes) != 2 || routes[0].(map[string]any)["agent"] != "ag1" {
		t.Fatalf("routes %v", routes)
	}
	if more := h.admin(http.MethodGet, "/admin/routes?limit=1", 200)["more"]; more != true {
		t.Fatal("a cut list does not say so")
	}
	pods := h.admin(http.MethodGet, "/admin/pods", 200)["pods"].([]any)
	if len(pods) != 2 || pods[0].(map[string]any)["self"] != true || pods[1].(map[string]any)["addr"] != "10.0.0.2:1" {
		t.Fatalf("pods %v", pods)
	}
	config := h.admin(http.MethodGet, "/admin/config", 200)
	if config["PodID"] != "pod-1" || config["Auth"].(map[string]any)["APIKey"] != masked || config["Ping"].(map[string]any)["Interval"] != "30s" {
		t.Fatalf("config %v", config)
	}
	if ok := h.admin(http.MethodGet, "/debug/check", 200)["ok"]; ok != true {
		t.Fatal("check is not ok")
	}
	h.faults = []string{"planted"}
	if found := h.admin(http.MethodGet, "/debug/check", 500)["found"].([]any); found[0] != "planted" {
		t.Fatalf("found %v", found)
	}
	h.admin(http.MethodPost, "/admin/drain", 202)
	if h.drained.Load() != 1 {
		t.Fatal("not drained")
	}
	h.starts.Store(true)
	h.admin(http.MethodGet, "/admin/sessions", 503)
	h.admin(http.MethodGet, "/admin/routes", 503)
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine", "/debug/pprof/cmdline"} {
		if status, _, _ := h.do(call{path: path, internal: true, header: adminHeader}); status != 200 {
			t.Fatalf("%s: %d", path, status)
		}
	}
}

// The document tells all of the internal port, and nothing else.
func TestOpenAPI(t *testing.T) {
	h := newHouse(t, nil)
	paths := h.admin(http.MethodGet, "/admin/openapi.json", 200)["paths"].(map[string]any)
	served := map[string]bool{}
	for _, r := range h.internalRoutes() {
		served[r.path] = true
		alias := r.path == "/health" || r.path == "/ready" || strings.HasPrefix(r.path, "/debug/pprof/")
		if item, ok := paths[r.path].(map[string]any); !alias && (!ok || item[strings.ToLower(r.method)] == nil) {
			t.Errorf("%s %s is not told", r.method, r.path)
		}
	}
	for path := range paths {
		if !served[path] {
			t.Errorf("%s is told, not served", path)
		}
	}
}

func TestMetrics(t *testing.T) {
	h := newHouse(t, nil)
	h.login("ag1", "u1", "", nil)
	h.dial("/ws/acme/ag1", nil, nil)
	var status int
	var body string
	eventually(t, "the login is counted, after its ready was read", func() bool {
		status, _, body = h.do(call{path: "/metrics", internal: true})
		return strings.Contains(body, `dws_login_duration_seconds_count{result="ok"} 1`)
	})
	for _, line := range []string{
		"dws_active_connections 1", "dws_connections_total 1", "dws_auth_success_total 1", `dws_auth_failure_total{reason="api_key"} 1`,
		`dws_auth_failure_total{reason="token"} 0`, `dws_logins_total{result="ok"} 1`, `dws_logins_total{result="api_key"} 1`,
		`dws_login_duration_seconds_count{result="ok"} 1`, `dws_login_duration_seconds_count{result="refused"} 1`,
		"dws_session_conflicts_total 0", `dws_admission_refused_total{gate="sessions"} 0`, "process_max_fds ", "go_goroutines ",
	} {
		if !strings.Contains(body, "\n"+line) && !strings.HasPrefix(body, line) {
			t.Errorf("status %d: no line %q", status, line)
		}
	}
	if strings.Contains(body, "acme") || strings.Contains(body, "vmrange") {
		t.Error("an id, or a histogram that only one database reads, is in the metrics")
	}
}
