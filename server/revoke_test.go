package server

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/redisx"
	"github.com/daisi/daisi-ws/session"
)

// loginOf connects with a token of these claims and reads ready.
func (h *house) loginOf(c session.Claims, query string) *socket {
	h.t.Helper()
	c.ExpiresAt = time.Now().Add(time.Hour)
	s, answer := h.dial(loginPath(c, h.mintFor(c))+query, map[string]string{"X-API-Key": testAPIKey}, nil)
	if answer.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(answer.Body)
		h.t.Fatalf("login of %+v: %d %s", c, answer.StatusCode, body)
	}
	s.expect("ready", nil)
	return s
}

func loginPath(c session.Claims, token string) string {
	return "/ws/" + url.PathEscape(c.Company) + "/" + url.PathEscape(c.Agent) + "?token=" + url.QueryEscape(token)
}

func (h *house) post(path, body string, want int) map[string]any {
	h.t.Helper()
	status, _, answer := h.do(call{method: http.MethodPost, path: path, body: body, internal: true, header: adminHeader})
	var m map[string]any
	if status != want || json.Unmarshal([]byte(answer), &m) != nil {
		h.t.Fatalf("POST %s %s: %d %s, want %d", path, body, status, answer, want)
	}
	return m
}

// Every way to name a token, a user, a company, a kid: the open socket is
// closed, the door stays shut for that token, a lift opens it.
func TestRevoke(t *testing.T) {
	h := newHouse(t, nil)
	claims := session.Claims{Company: "acme", Agent: "ag1", User: "u1", JTI: "j1"}
	f := func(body func(token string) string, others bool) {
		t.Helper()
		c := claims
		c.ExpiresAt = time.Now().Add(time.Hour)
		token := h.mintFor(c)
		s, _ := h.dial(loginPath(c, token), map[string]string{"X-API-Key": testAPIKey}, nil)
		s.expect("ready", nil)
		bystander := h.loginOf(session.Claims{Company: "acme2", Agent: "ag1", User: "u1", JTI: "j2"}, "")
		answer := h.post("/admin/revoke", body(token), 200)
		if want := map[bool]float64{false: 1, true: 2}[others]; answer["closed_here"] != want {
			t.Errorf("%s: closed %v", body("TOKEN"), answer["closed_here"])
		}
		s.expect("error", map[string]any{"code": "InvalidToken"})
		s.expectClose(4403, "token-revoked")
		if !others {
			bystander.barrier()
		}
		before := h.redis.epoch.Load()
		s, refused := h.dial(loginPath(c, token), map[string]string{"X-API-Key": testAPIKey}, nil)
		text, _ := io.ReadAll(refused.Body)
		refusedAs(t, refused.StatusCode, s.h, string(text), 403, "InvalidToken", "")
		if !strings.Contains(string(text), "revoked") || h.redis.epoch.Load() != before {
			t.Errorf("%s: answered %s; a refused login took a lock: %v", body("TOKEN"), text, h.redis.epoch.Load() != before)
		}
		list := h.admin(http.MethodGet, "/admin/revocations", 200)["revocations"].([]any)
		if len(list) != 1 {
			t.Fatalf("list %v", list)
		}
		// What the list shows can be lifted.
		view := list[0].(map[string]any)
		if by := view["by"]; by != "key:"+fingerprint(testAdminKey) || view["at"] == "" {
			t.Errorf("entry %v", view)
		}
		for _, k := range []string{"at", "by", "until"} {
			delete(view, k)
		}
		text, _ = json.Marshal(view)
		h.post("/admin/lift", string(text), 200)
		h.post("/admin/lift", string(text), 404)
		s, again := h.dial(loginPath(c, token), map[string]string{"X-API-Key": testAPIKey}, nil)
		if again.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("%s: %d after the lift", body("TOKEN"), again.StatusCode)
		}
		s.expect("ready", nil)
	}
	is := func(body string) func(string) string { return func(string) string { return body } }
	f(func(token string) string { return `{"kind":"token","token":"` + token + `"}` }, false)
	f(is(`{"kind":"token","jti":"j1"}`), false)
	f(func(token string) string {
		hash := sha256.Sum256([]byte(token))
		return `{"kind":"token","hash":"` + hex.EncodeToString(hash[:]) + `"}`
	}, false)
	f(is(`{"kind":"user","company":"acme","agent":"ag1","user":"u1"}`), false)
	f(is(`{"kind":"user","company":"acme","user":"u1","until":"2099-01-01T00:00:00Z"}`), false)
	f(is(`{"kind":"company","company":"acme"}`), false)
	f(is(`{"kind":"kid","kid":"k1"}`), true)
	f(is(`{"kind":"kid","kid":"k1","purpose":"user"}`), true)
	audited(t, h, "POST /admin/revoke", 200, `"company":"acme"`, "key:"+fingerprint(testAdminKey))
	audited(t, h, "POST /admin/lift", 200, `"kid":"k1"`, "key:"+fingerprint(testAdminKey))
	audited(t, h, "POST /admin/lift", 404, `"kid":"k1"`, "key:"+fingerprint(testAdminKey))
}

// A bare token is the same with and without its padding.
func TestRevokeBareToken(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Auth.TokenKeys = testRing[3:] })
	c := session.Claims{Company: "acme", Agent: "ag1", User: "u10", ExpiresAt: time.Now().Add(time.Hour)}
	token := h.mintFor(c)
	for !strings.HasSuffix(token, "=") {
		c.User += "0"
		token = h.mintFor(c)
	}
	hash := sha256.Sum256([]byte(token))
	h.post("/admin/revoke", `{"kind":"token","hash":"`+hex.EncodeToString(hash[:])+`"}`, 200)
	for _, form := range []string{token, strings.TrimRight(token, "=")} {
		if _, answer := h.dial(loginPath(c, form), map[string]string{"X-API-Key": testAPIKey}, nil); answer.StatusCode != 403 {
			t.Errorf("%d padding: %d", strings.Count(form, "="), answer.StatusCode)
		}
	}
}

// A key's revocation stops bare tokens, too: whoever has the key can leave its
// name out.
func TestRevokeKeyOfBareTokens(t *testing.T) {
	h := newHouse(t, nil)
	bare, err := session.ParseKeyRing(session.PurposeUser, testRing[3:], true)
	if err != nil {
		t.Fatal(err)
	}
	c := session.Claims{Company: "acme", Agent: "ag1", User: "u1", ExpiresAt: time.Now().Add(time.Hour)}
	token, err := bare.Mint(c)
	if err != nil {
		t.Fatal(err)
	}
	key := map[string]string{"X-API-Key": testAPIKey}
	s, _ := h.dial(loginPath(c, token), key, nil)
	s.expect("ready", nil)
	h.post("/admin/revoke", `{"kind":"kid","kid":"k1"}`, 200)
	s.expect("error", map[string]any{"code": "InvalidToken"})
	s.expectClose(4403, "token-revoked")
	if _, answer := h.dial(loginPath(c, token), key, nil); answer.StatusCode != 403 {
		t.Errorf("let in again: %d", answer.StatusCode)
	}
}

// A client that was told to come with a new token does so in-band or anew; with
// a revoked one it can do neither.
func TestRefreshRevoked(t *testing.T) {
	h := newHouse(t, nil)
	c := session.Claims{Company: "acme", Agent: "ag1", User: "u1", JTI: "j1"}
	s := h.loginOf(c, "")
	next := c
	next.JTI, next.ExpiresAt = "j2", time.Now().Add(2*time.Hour)
	bad := h.mintFor(next)
	h.post("/admin/revoke", `{"kind":"token","jti":"j2"}`, 200)
	s.send(`{"type":"refresh","payload":{"token":"` + bad + `"}}`)
	f := s.expect("error", map[string]any{"code": "InvalidToken"})
	if f.Payload["message"] != session.ReasonRevoked.Message() {
		t.Errorf("told %v", f.Payload)
	}
	next.JTI = "j3"
	s.send(`{"type":"refresh","payload":{"token":"` + h.mintFor(next) + `"}}`)
	s.barrier()
	h.post("/admin/revoke", `{"kind":"token","jti":"j1"}`, 200) // no longer its own
	s.barrier()
	h.post("/admin/revoke", `{"kind":"token","jti":"j3"}`, 200)
	s.expect("error", nil)
	s.expectClose(4403, "token-revoked")
}

func TestRevokeRefused(t *testing.T) {
	h := newHouse(t, nil)
	f := func(body string, details string) {
		t.Helper()
		for _, path := range []string{"/admin/revoke", "/admin/lift"} {
			if got := h.post(path, body, 400); !strings.Contains(got["details"].(string), details) {
				t.Errorf("%s %s: %v", path, body, got)
			}
		}
	}
	f(``, "JSON object")
	f(`[]`, "JSON object")
	f(`{"kind":"user"} {}`, "JSON object")
	f(`{}`, "kind must be")
	f(`{"kind":"planet"}`, "kind must be")
	f(`{"kind":"user","company":"acme","agnet":"ag1","user":"u1"}`, `no field "agnet"`)
	f(`{"kind":"user","company":"acme"}`, "user")
	f(`{"kind":"user","company":"a.b","user":"u"}`, "company")
	f(`{"kind":"company","company":"*"}`, "company")
	f(`{"kind":"company","company":"acme","user":"u1"}`, "other fields")
	f(`{"kind":"admin","user":"root"}`, "admin names")
	f(`{"kind":"user","company":"acme","admin":"root"}`, "admin names")
	f(`{"kind":"kid","kid":"k.1"}`, "kid must")
	f(`{"kind":"kid","kid":"k1","purpose":"robots"}`, "purpose")
	f(`{"kind":"kid","kid":"k1","jti":"j"}`, "names no token")
	f(`{"kind":"token"}`, "by one of")
	f(`{"kind":"token","jti":"j","hash":"h"}`, "by one of")
	f(`{"kind":"token","hash":"abc"}`, "sha256")
	f(`{"kind":"token","fingerprint":"abc"}`, "16 hex")
	f(`{"kind":"token","token":"AAAA"}`, "no token of a key")
	f(`{"kind":"company","company":"acme","until":"soon"}`, "JSON object")
	f(`{"kind":"company","company":"acme"}{}`, "JSON object")
	f(`{"kind":"company","company":"acme"}}`, "JSON object")
	f(`{"kind":"company","company":"acme"}],"company":"rival"}`, "JSON object")
	h.post("/admin/revoke", `{"kind":"company","company":"acme","until":"2001-01-01T00:00:00Z"}`, 400)
	h.post("/admin/revoke", `{"kind":"company","company":"`+strings.Repeat("a", 70<<10)+`"}`, 413)
	h.revoked.err = redisx.ErrFull
	h.post("/admin/revoke", `{"kind":"company","company":"acme"}`, 507)
	h.revoked.err = io.ErrUnexpectedEOF
	h.post("/admin/revoke", `{"kind":"company","company":"acme"}`, 503)
	h.starts.Store(true)
	h.post("/admin/revoke", `{"kind":"company","company":"acme"}`, 503)
}

func TestListRevocations(t *testing.T) {
	h := newHouse(t, nil)
	for _, c := range []string{"a", "b", "c"} {
		h.post("/admin/revoke", `{"kind":"company","company":"`+c+`"}`, 200)
		h.post("/admin/revoke", `{"kind":"user","company":"`+c+`","user":"u"}`, 200)
	}
	f := func(query string, want int, more bool) {
		t.Helper()
		a := h.admin(http.MethodGet, "/admin/revocations?"+query, 200)
		if got := a["revocations"].([]any); len(got) != want || a["more"] != more {
			t.Errorf("%s: %v", query, a)
		}
	}
	f("", 6, false)
	f("kind=user", 3, false)
	f("company=b", 2, false)
	f("limit=4", 4, true)
	f("limit=4&skip=4", 2, false)
	f("skip=9", 0, false)
	h.admin(http.MethodGet, "/admin/revocations?skip=x", 400)
	h.admin(http.MethodGet, "/admin/revocations?limit=0", 400)
}

// FuzzRevocationBody: whatever an operator sends is answered, and what is taken
// names exactly one thing.
func FuzzRevocationBody(f *testing.F) {
	for _, s := range []string{
		`{"kind":"user","company":"acme","agent":"ag1","user":"u1"}`, `{"kind":"token","jti":"j1","until":"2099-01-01T00:00:00Z"}`,
		`{"kind":"kid","kid":"k1","purpose":"admin"}`, `{"kind":"token","hash":"00"}`, `{"kind":"token","token":"k1.AAAA"}`, `{}`, `[`, `null`,
	} {
		f.Add(s)
	}
	o := testOptions()
	users, admins, err := newVerifiers(o, nil)
	if err != nil {
		f.Fatal(err)
	}
	e := &edge{env: edgeEnv{users: users, admins: admins}}
	e.opts.HTTP.MaxBody = 4096
	f.Fuzz(func(t *testing.T, body string) {
		w := httptest.NewRecorder()
		rev, ok := e.readRevocation(w, httptest.NewRequest(http.MethodPost, "/admin/revoke", strings.NewReader(body)))
		if !ok {
			if w.Code < 400 || w.Code >= 500 || !json.Valid(w.Body.Bytes()) {
				t.Fatalf("%q is answered %d %q", body, w.Code, w.Body)
			}
			return
		}
		if err := rev.Check(); err != nil || rev.At.IsZero() {
			t.Fatalf("%q is taken as %+v: %v", body, rev, err)
		}
		// What the list would show is the same thing again.
		view := viewOf(rev)
		view.At, view.By = "", ""
		text, _ := json.Marshal(map[string]any{
			"kind": view.Kind, "fingerprint": view.Fingerprint, "company": view.Company, "agent": view.Agent, "user": view.User,
			"admin": view.Admin, "kid": view.KID, "purpose": view.Purpose,
		})
		again, ok := e.readRevocation(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/admin/lift", strings.NewReader(string(text))))
		if !ok || again.Revoked != rev.Revoked {
			t.Fatalf("%q is taken as %+v, and shown as %s, which is %+v", body, rev.Revoked, text, again.Revoked)
		}
	})
}
