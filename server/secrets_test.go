package server_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server/clustertest"
	"github.com/daisi/daisi-ws/session"
)

// forms are all the ways a secret could be written by somebody who did not know
// that it is one. Base64 also of it behind one and two other bytes, as it would
// be inside something longer.
func forms(secret string) map[string]string {
	inner := func(lead string) string {
		b := base64.StdEncoding.EncodeToString([]byte(lead + secret))
		return b[4 : len(b)-len(b)%4-4]
	}
	urlSafe := strings.NewReplacer("+", "-", "/", "_")
	m := map[string]string{
		"plain": secret, "query": url.QueryEscape(secret), "path": url.PathEscape(secret), "hex": hex.EncodeToString([]byte(secret)),
		"quoted":      strings.Trim(fmt.Sprintf("%q", secret), `"`),
		"base64":      strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(secret)), "=")[:len(secret)],
		"base64 of 1": inner("x"), "base64 of 2": inner("xy"),
	}
	for _, k := range []string{"base64", "base64 of 1", "base64 of 2"} {
		m["url "+k] = urlSafe.Replace(m[k])
	}
	return m
}

// search gives the hits of secrets in texts: "secret as form in text".
func search(secrets, texts map[string]string) (hits []string) {
	for what, secret := range secrets {
		for form, f := range forms(secret) {
			for where, text := range texts {
				if strings.Contains(text, f) || form == "hex" && strings.Contains(strings.ToLower(text), f) {
					hits = append(hits, fmt.Sprintf("%s as %s in %s", what, form, where))
				}
			}
		}
	}
	return hits
}

// Secrets of odd characters, so that each form of them is another string.
const (
	oddAPIKey, oddMintKey, oddAdminKey = "api/s3cret+key=8d2f&x", "mint/s3cret+key=41ac y", "admin/s3cret+key=77e0%z"
	oddAdminHex                        = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90"
)

// spill is a pod with such secrets, and all that it has written.
type spill struct {
	*testing.T
	c                 *clustertest.Cluster
	pod               *clustertest.Pod
	secrets, texts    map[string]string
	token, late, root string
}

func newSpill(t *testing.T) *spill {
	file := filepath.Join(t.TempDir(), "admin-key")
	if err := os.WriteFile(file, []byte(oddAdminKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := clustertest.Start(t, clustertest.Options{Pods: 1, Processes: true, Env: func(int) []string {
		return []string{
			"DWS_LOG_LEVEL=trace", "DWS_AUTH_FAILURES=100000", "DWS_AUTH_API_KEY=" + oddAPIKey, "DWS_AUTH_MINT_KEY=" + oddMintKey,
			"DWS_AUTH_ADMIN_KEY=", "DWS_AUTH_ADMIN_KEY_FILE=" + file,
			"DWS_AUTH_TOKEN_KEYS=k1:" + hexA + "," + hexB, "DWS_AUTH_ADMIN_TOKEN_KEYS=k1:" + oddAdminHex,
		}
	}})
	s := &spill{T: t, c: c, pod: c.Pods[0], texts: map[string]string{}, secrets: map[string]string{
		"API key": oddAPIKey, "minting key": oddMintKey, "admin key": oddAdminKey, "token key": hexA, "second token key": hexB, "admin token key": oddAdminHex,
	}}
	admins, err := session.ParseKeyRing(session.PurposeAdmin, "k1:"+oddAdminHex, true)
	if err != nil {
		t.Fatal(err)
	}
	users, hour := ringOf(t, "k1:"+hexA), time.Now().Add(time.Hour)
	s.token = s.mint("token", users, session.Claims{Company: "acme", Agent: "ag1", User: "u1", ExpiresAt: hour})
	s.late = s.mint("expired token", users, session.Claims{Company: "acme", Agent: "ag1", User: "u1", ExpiresAt: time.Now().Add(-time.Hour)})
	s.root = s.mint("admin token", admins, session.Claims{Admin: true, AdminID: "root", Role: session.RoleViewer, ExpiresAt: hour})
	return s
}

func (s *spill) mint(name string, r *session.KeyRing, claims session.Claims) string {
	s.Helper()
	token, err := r.Mint(claims)
	if err != nil {
		s.Fatal(err)
	}
	s.secrets[name] = token
	return token
}

// do keeps what a request was answered.
func (s *spill) do(method, u, body string, header ...string) {
	s.Helper()
	a, err := s.c.Do(method, u, body, header...)
	if err != nil {
		s.Logf("%s %s: %v", method, u, err)
	}
	if !strings.Contains(a.Body, `"token":"`) { // the answer to whoever mints is one
		s.texts[fmt.Sprint("answer ", len(s.texts), " to ", method)] = fmt.Sprint(a.Status, a.Header, a.Body)
	}
}

// sockets log in and say everything, right and wrong.
func (s *spill) sockets() {
	ws := s.pod.URL("ws") + "/ws/acme/ag1?x-api-key=" + url.QueryEscape(oddAPIKey) + "&token="
	for i, u := range []string{ws + url.QueryEscape(s.token), ws + s.token + "&resume", s.pod.URL("ws") + "/ws/admin?x-api-key=" + url.QueryEscape(oddAdminKey) + "&token=" + s.root} {
		k, err := s.c.DialURL(u, nil)
		if err != nil {
			s.Fatalf("login %d: %v", i, err)
		}
		for _, m := range []string{
			`{"type":"refresh","payload":{"token":"` + s.token + `"}}`, `{"type":"refresh","payload":{"token":"` + s.late + `"}}`, `{"type":"refresh","payload":{"token":"` + s.root + `x"}}`,
			`{"type":"` + s.token + `"}`, `{"type":"select_chat","payload":{"chat_id":7,"token":"` + s.token + `"}}`, s.token, `{"type":"select_chat","payload":{"chat_id":"c","ack":true}}`,
		} {
			k.Send(m)
		}
		if err := k.Barrier(); err != nil {
			s.Errorf("socket %d: %v", i, err)
		}
		for _, f := range k.Frames() {
			if !strings.Contains(string(f.Payload), `unknown type`) { // quotes the sender's own words back, to it alone
				s.texts["frames"] += f.Type + string(f.Payload) + "\n"
			}
		}
	}
}

// requests come with every secret in every place for another.
func (s *spill) requests() {
	for _, key := range []string{oddAPIKey, oddMintKey, oddAdminKey, oddAPIKey + "x", ""} {
		for _, tok := range []string{s.token, s.late, s.root, s.token[1:], s.token + "=", ""} {
			q := "?x-api-key=" + url.QueryEscape(key) + "&token=" + url.QueryEscape(tok)
			for _, path := range []string{"/ws/acme/ag1", "/ws/acme/ag2", "/ws/admin"} {
				s.do("GET", s.pod.URL("http")+path+q, "")
				s.do("GET", s.pod.URL("http")+path, "", "X-API-Key: "+key, "Authorization: Bearer "+tok)
			}
			s.do("GET", s.pod.InternalURL()+"/admin/sessions?x-api-key="+url.QueryEscape(key), "", "Authorization: Bearer "+tok)
		}
		s.do("POST", s.pod.URL("http")+"/generate-token", `{"company_id":"acme","agent_id":"ag1","user_id":"u1","expires_in_seconds":60}`, "X-API-Key: "+key)
		s.do("POST", s.pod.URL("http")+"/generate-token", `{"company_id":"`+key, "X-API-Key: "+key)
		s.do("POST", s.pod.URL("http")+"/admin/generate-token", `{"admin_id":"root","expires_in_seconds":60}`, "X-API-Key: "+key)
	}
	for _, body := range []string{`{"kind":"token","token":"` + s.token + `"}`, `{"kind":"token","token":"` + s.token + `x"}`, `{"kind":"` + s.token + `"}`} {
		s.do("POST", s.pod.InternalURL()+"/admin/revoke", body, "X-API-Key: "+oddAdminKey)
	}
	for _, path := range []string{
		"/admin/config", "/admin/sessions", "/admin/revocations", "/admin/pods", "/admin/routes", "/admin/poison", "/metrics", "/readyz", "/livez", "/debug/check",
		"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/debug/pprof/allocs?debug=1",
	} {
		s.do("GET", s.pod.InternalURL()+path, "", "X-API-Key: "+oddAdminKey)
	}
}

// commands are the binary's other verbs.
func (s *spill) commands() {
	for _, args := range [][]string{{"config"}, {"token", "revocations"}, {"token", "revoke", "company", "nobody"}, {"token", "inspect", "x" + s.token}, {"version"}, {"flight"}} {
		out, _ := s.pod.Command(args...)
		s.texts["daisi-ws "+args[0]] += out
	}
}

// Everything that can be done wrong and right, at trace level: no secret, in any
// form, in anything the product writes.
func TestSecretsAreNowhere(t *testing.T) {
	s := newSpill(t)
	s.sockets()
	s.requests()
	s.commands()
	s.pod.Hup()
	s.c.Eventually(10*time.Second, "the keys are read again", func() bool { return strings.Contains(s.pod.Log(), "token keys read again") })
	s.texts["log"] = s.pod.Log()
	for _, want := range []string{"logged in", "login refused", `"message":"audit"`, "revocations in force"} {
		if !strings.Contains(s.texts["log"], want) {
			t.Errorf("the log is not what was to be searched: no %q", want)
		}
	}
	if !strings.Contains(s.texts["daisi-ws config"], "DWS_AUTH_API_KEY=***") || len(s.texts) < 150 {
		t.Errorf("only %d texts, config %.200q", len(s.texts), s.texts["daisi-ws config"])
	}
	size := 0
	for _, text := range s.texts {
		size += len(text)
	}
	hits := search(s.secrets, s.texts)
	for _, hit := range hits {
		t.Error(hit)
	}
	t.Logf("%d secrets in %d forms each, searched in %d texts of %d bytes: %d hits", len(s.secrets), len(forms("x-long-enough")), len(s.texts), size, len(hits))

	// What is written for all to see is found by the same search, in each kind
	// of text: they are what the pod wrote.
	seen := strings.Join(search(map[string]string{"pod's name": s.pod.ID}, s.texts), "\n")
	for _, where := range []string{"log", "daisi-ws config", "answer", "frames"} {
		if !strings.Contains(seen, "pod's name as plain in "+where) {
			t.Errorf("the pod's name was not found in %s", where)
		}
	}
	// The search finds every secret in every form, wherever it is put.
	for what, secret := range s.secrets {
		for form, f := range forms(secret) {
			for _, where := range []string{"log", "daisi-ws config"} {
				text := s.texts[where]
				planted := text[:len(text)/2] + f + text[len(text)/2:]
				if len(search(map[string]string{what: secret}, map[string]string{where: planted})) == 0 {
					t.Errorf("planted %s as %s in %s: not found", what, form, where)
				}
			}
		}
	}
}
