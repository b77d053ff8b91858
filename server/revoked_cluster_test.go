package server_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server/clustertest"
	"github.com/daisi/daisi-ws/session"
)

const (
	hexA = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	hexB = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"
)

// ringOf reads a key ring of users.
func ringOf(t testing.TB, spec string) *session.KeyRing {
	t.Helper()
	r, err := session.ParseKeyRing(session.PurposeUser, spec, true)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// dialWith connects with a token and waits for ready.
func dialWith(c *clustertest.Cluster, p *clustertest.Pod, r *session.KeyRing, claims session.Claims, query string) (*clustertest.Client, error) {
	if claims.ExpiresAt.IsZero() {
		claims.ExpiresAt = time.Now().Add(time.Hour)
	}
	token, err := r.Mint(claims)
	if err != nil {
		return nil, err
	}
	k, err := c.DialURL(p.URL("ws")+"/ws/"+url.PathEscape(claims.Company)+"/"+url.PathEscape(claims.Agent)+
		"?x-api-key="+clustertest.APIKey+"&token="+url.QueryEscape(token)+query, nil)
	if err != nil {
		return nil, err
	}
	if _, ok := k.Await(20*time.Second, func(f clustertest.Frame) bool { return f.Type == "ready" }); !ok {
		return nil, fmt.Errorf("no ready: %v, %v", k.Frames(), k.Closed())
	}
	return k, nil
}

func mustAdmin(t testing.TB, c *clustertest.Cluster, p *clustertest.Pod, method, path, body string) clustertest.Answer {
	t.Helper()
	a, err := c.Do(method, p.InternalURL()+path, body, "X-API-Key: "+clustertest.AdminKey)
	if err != nil || a.Status != 200 {
		t.Fatalf("%s %s %s on %s: %d %s %v", method, path, body, p.ID, a.Status, a.Body, err)
	}
	return a
}

// A company with sessions on three pods is revoked on one of them: the last
// close of all comes within a second of the request, no other company's
// session ends, no token issued before gets in anywhere, one issued after does.
func TestProveRevocationOfACompany(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Pods: 3, Processes: true, Env: func(int) []string {
		return []string{"DWS_AUTH_TOKEN_KEYS=k1:" + hexA}
	}})
	ring := ringOf(t, "k1:"+hexA)
	dial := func(company string, n int) []*clustertest.Client {
		clients := make([]*clustertest.Client, n)
		slots := make(chan struct{}, 16)
		var wg sync.WaitGroup
		for i := range clients {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				k, err := dialWith(c, c.Pods[i%3], ring, session.Claims{Company: company, Agent: fmt.Sprint("ag", i%50), User: fmt.Sprint("u", i)}, "")
				if err != nil {
					t.Errorf("login %d: %v", i, err)
				}
				clients[i] = k
			})
		}
		wg.Wait()
		if t.Failed() {
			t.FailNow()
		}
		return clients
	}
	named, others := dial("acme", proofRevoked), dial("acme2", 30)
	claims := session.Claims{Company: "acme", Agent: "ag1", User: "late", IssuedAt: time.Now().Add(-time.Second)}

	began := time.Now()
	mustAdmin(t, c, c.Pods[0], "POST", "/admin/revoke", `{"kind":"company","company":"acme"}`)
	answered := time.Since(began)
	took, err := revokedInTime(named, began, revokedWithin)
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d sessions on 3 pods: answer after %v, closes p50 %v, p99 %v, last %v", len(took), answered.Round(time.Millisecond),
		took[len(took)/2].Round(time.Millisecond), took[len(took)*99/100].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	for i, p := range c.Pods {
		if _, err := dialWith(c, p, ring, claims, ""); err == nil || !strings.Contains(err.Error(), "403") || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("%s: a token issued before: %v", p.ID, err)
		}
		newer := claims
		newer.IssuedAt, newer.User = time.Now(), fmt.Sprint("new", i)
		if _, err := dialWith(c, p, ring, newer, ""); err != nil {
			t.Errorf("%s: a token issued after: %v", p.ID, err)
		}
		if a := mustAdmin(t, c, p, "GET", "/admin/revocations", ""); !strings.Contains(a.Body, `"company":"acme"`) {
			t.Errorf("%s lists %s", p.ID, a.Body)
		}
		p.Check()
	}
	for _, k := range others {
		if err := k.Barrier(); err != nil {
			t.Errorf("another company's session: %v, %+v", err, k.Closed())
		}
	}
	mustAdmin(t, c, c.Pods[1], "POST", "/admin/lift", `{"kind":"company","company":"acme"}`)
	c.Eventually(10*time.Second, "lifted everywhere", func() bool {
		_, err := dialWith(c, c.Pods[2], ring, claims, "")
		return err == nil
	})
}

// Redis comes back empty: what was revoked stays so, written again by the pods.
func TestRevocationsOutliveTheirKeys(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2})
	user := session.Key{Company: "acme", Agent: "ag1", User: "u1"}
	mustAdmin(t, c, c.Pods[0], "POST", "/admin/revoke", `{"kind":"user","company":"acme","agent":"ag1","user":"u1"}`)
	login := func(p *clustertest.Pod) (in, revoked bool) {
		k, err := c.TryDial(p, user)
		if err != nil {
			return false, strings.Contains(err.Error(), "revoked")
		}
		k.Close()
		return true, false
	}
	refused := func() bool { _, revoked := login(c.Pods[1]); return revoked }
	c.Eventually(10*time.Second, "refused on the other pod", refused)
	c.Redis.Flush()
	c.Eventually(20*time.Second, "the set is in Redis again", func() bool {
		n, _ := c.Redis.Do("HLEN", "rev:{dws}").(int64)
		return n == 2 // the entry and the mark
	})
	if !refused() {
		t.Error("let in after Redis lost its keys")
	}
	// Lifted in the very moment in which Redis is empty again: no pod writes it
	// again, whatever it has heard of.
	c.Redis.Flush()
	mustAdmin(t, c, c.Pods[0], "POST", "/admin/lift", `{"kind":"user","company":"acme","agent":"ag1","user":"u1"}`)
	for _, p := range c.Pods {
		c.Eventually(10*time.Second, p.ID+" lets it in", func() bool { in, _ := login(p); return in })
	}
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) { // six beats
		for _, p := range c.Pods {
			if _, revoked := login(p); revoked {
				t.Fatalf("%s refuses it again", p.ID)
			}
		}
	}
}

// Keys turn without a restart: the file changes and is found, or SIGHUP says
// so; the former key's tokens go on while it is in the ring, sockets stay
// open; a file that can't be read changes nothing.
func TestTokenKeysTurnWithoutARestart(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys")
	write := func(spec string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(spec+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write("a:" + hexA)
	c := clustertest.Start(t, clustertest.Options{Processes: true, Env: func(int) []string {
		return []string{"DWS_AUTH_TOKEN_KEYS=", "DWS_AUTH_TOKEN_KEYS_FILE=" + file, "DWS_AUTH_FAILURES=100000"}
	}})
	pod := c.Pods[0]
	claims := session.Claims{Company: "acme", Agent: "ag1", User: "u1"}
	old, fresh := ringOf(t, "a:"+hexA), ringOf(t, "b:"+hexB)
	works := func(r *session.KeyRing, user string) bool {
		claims := claims
		claims.User = user
		k, err := dialWith(c, pod, r, claims, "")
		if err == nil {
			k.Close()
		}
		return err == nil
	}
	open, err := dialWith(c, pod, old, claims, "&resume")
	if err != nil || works(fresh, "x") {
		t.Fatalf("before the rotation: %v", err)
	}
	write("b:" + hexB + ",a:" + hexA)
	c.Eventually(20*time.Second, "the new key works, found by itself", func() bool { return works(fresh, "x") })
	minted, err := c.Do("POST", pod.URL("http")+"/generate-token", `{"company_id":"acme","agent_id":"ag1","user_id":"m","expires_in_seconds":60}`, "X-API-Key: "+clustertest.MintKey)
	if err != nil || !strings.HasPrefix(fmt.Sprint(minted.JSON()["token"]), "b.") || !works(old, "y") {
		t.Fatalf("in the overlap: minted %v, %v", minted, err)
	}
	write("b:" + hexB[2:]) // half a file
	c.Eventually(20*time.Second, "it is said, and nothing changed", func() bool {
		return pod.Metrics()[`dws_token_key_loads_total{result="error"}`] > 0 && works(fresh, "x") && works(old, "y")
	})
	write("b:" + hexB)
	pod.Hup()
	c.Eventually(20*time.Second, "the old key is out", func() bool { return !works(old, "y") && works(fresh, "x") })
	if err := open.Barrier(); err != nil {
		t.Errorf("the open socket: %v, %+v", err, open.Closed())
	}
	// And it can stay: with a token of the new key.
	claims.ExpiresAt = time.Now().Add(3 * time.Hour)
	token, err := fresh.Mint(claims)
	if err != nil {
		t.Fatal(err)
	}
	open.Send(`{"type":"refresh","payload":{"token":"` + token + `"}}`)
	if err := open.Barrier(); err != nil || open.Count("error") != 0 {
		t.Errorf("refresh with the new key: %v, %v", err, open.Frames())
	}
	mustAdmin(t, c, pod, "POST", "/admin/revoke", `{"kind":"kid","kid":"b"}`)
	if end, ok := open.AwaitClose(10 * time.Second); !ok || end.Code != 4403 {
		t.Errorf("its new key revoked: %v %+v", ok, end)
	}
}

// The expiry of a token on an open socket, on the product as it is run.
func TestTokensExpireOnOpenSockets(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	ring := ringOf(t, clustertest.TokenKeys)
	life := func(user, query string) *clustertest.Client {
		k, err := dialWith(c, c.Pods[0], ring, session.Claims{Company: "acme", Agent: "ag1", User: user, ExpiresAt: time.Now().Add(4 * time.Second)}, query)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	legacy, modern, saved, foreign := life("u1", ""), life("u2", "&resume"), life("u3", "&resume"), life("u4", "&resume")
	warned := func(f clustertest.Frame) bool { return f.Type == "token_expiring" && f.Field("expires_at") != "" }
	for _, k := range []*clustertest.Client{modern, saved, foreign} {
		if _, ok := k.Await(10*time.Second, warned); !ok {
			t.Fatalf("not warned: %v", k.Frames())
		}
	}
	refresh := func(k *clustertest.Client, user string) {
		token, err := ring.Mint(session.Claims{Company: "acme", Agent: "ag1", User: user, ExpiresAt: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		k.Send(`{"type":"refresh","payload":{"token":"` + token + `"}}`)
		if err := k.Barrier(); err != nil {
			t.Fatal(err)
		}
	}
	refresh(saved, "u3")
	refresh(foreign, "u3") // another's
	for _, k := range []*clustertest.Client{legacy, modern, foreign} {
		if end, ok := k.AwaitClose(20 * time.Second); !ok || end.Code != 4403 || end.Reason != "token-expired" {
			t.Errorf("closed %v, %+v", ok, end)
		}
	}
	if legacy.Count("token_expiring") != 0 {
		t.Error("a client that never asked for new frames got one")
	}
	c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), `{}`)
	if !saved.AwaitEvents(10*time.Second, 1) {
		t.Errorf("the refreshed one: %v, %+v", saved.Frames(), saved.Closed())
	}
}
