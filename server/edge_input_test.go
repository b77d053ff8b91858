package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/loop"
	"github.com/daisi/daisi-ws/natsx"
	"github.com/daisi/daisi-ws/session"
)

func TestOldTLSIsRefused(t *testing.T) {
	h := newHouse(t, secure(t))
	for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		nc, err := tls.Dial("tcp", h.public.Addr().String(), &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
		if (err == nil) != want {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			_ = nc.Close()
		}
	}
}

// Headers, URIs and bodies end somewhere. A client that goes on writing may find
// its connection reset before it has read why: that is refused too.
func TestHeaderLimit(t *testing.T) {
	h := newHouse(t, nil)
	long := strings.Repeat("x", 32<<10)
	f := func(name string, want int, request string) {
		t.Helper()
		nc, err := h.tryDial()
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = nc.Write([]byte(request))
		answer, err := http.ReadResponse(bufio.NewReader(nc), nil)
		if err == nil {
			_ = answer.Body.Close()
		}
		if refused := want >= 400; err != nil && !refused || err == nil && answer.StatusCode != want {
			t.Errorf("%s: %v %v, want %d", name, answer, err, want)
		}
	}
	f("header", 431, "GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: "+long+"\r\n\r\n")
	f("URI", 431, "GET /livez?"+long+" HTTP/1.1\r\nHost: x\r\n\r\n")
	f("path", 431, "GET /ws/"+long+"/a HTTP/1.1\r\nHost: x\r\n\r\n")
	f("many headers", 431, "GET /livez HTTP/1.1\r\nHost: x\r\n"+strings.Repeat("X-A: b\r\n", 4000)+"\r\n")
	f("body", 413, "POST /generate-token HTTP/1.1\r\nHost: x\r\nX-API-Key: "+testMintKey+"\r\nContent-Length: 81920\r\n\r\n{\"a\":\""+strings.Repeat("x", 80<<10))
	f("as much as is allowed", 200, "GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: "+long[:8<<10]+"\r\n\r\n")
}

// bare is an edge that serves nothing: requests are handed to it.
func bare(t testing.TB) (*edge, *session.Manager[*loop.Conn]) {
	t.Helper()
	o, err := testOptions().withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	engine, err := newEngine(o)
	if err != nil {
		t.Fatal(err)
	}
	redis := &fakeRedis{}
	manager, err := session.NewManager(session.Options[*loop.Conn]{
		Owner: "pod-1@boot", Partitions: 4, Locks: redis, Renewer: redis, Routes: redis, Killer: redis,
		Parts: asserted{}, Farewell: farewell, Metrics: o.Metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	users, admins, err := newVerifiers(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	core := &edgeCore{
		manager: manager, index: manager.Index(), partitions: 4, stream: func(int) string { return testStream },
		last: func(context.Context) (uint64, error) { return 1, nil }, late: func() string { return "" },
	}
	stored := &fakeStream{id: testStream, first: 1}
	core.replays = newReplays(o, replayEnv{
		index: core.index, manager: manager, stream: stored, id: stored.now, partitions: 4,
		shown: func(n int) string { return core.stream(n) },
	})
	e, err := newEdge(o, edgeEnv{
		owner: "pod-1@boot", engine: engine, users: users, admins: admins, core: func() *edgeCore { return core },
		status: func() Status { return Status{State: StateReady} }, publish: func(context.Context, string, []byte) error { return nil },
		drain: func() {}, check: func(context.Context) []string { return nil }, pods: func() []session.Pod { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return e, manager
}

// FuzzEdge hands requests as they come over the wire to the public routes: each
// is answered, without a panic, shortly, and no session is left of one that
// could not be handed over.
func FuzzEdge(f *testing.F) {
	e, manager := bare(f)
	token, err := e.env.users.Ring().Mint(session.Claims{Company: "acme", Agent: "ag1", User: "u1", ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		f.Fatal(err)
	}
	upgrade := ""
	for k, v := range upgradeHeader {
		upgrade += k + ": " + v + "\r\n"
	}
	get := func(path, header string) {
		f.Add([]byte("GET " + path + " HTTP/1.1\r\nHost: x\r\n" + header + "\r\n"))
	}
	get("/ws/acme/ag1?x-api-key="+testAPIKey+"&token="+url.QueryEscape(token), upgrade)
	get("/ws/acme/ag1?x-api-key="+testAPIKey+"&chat=a.b&resume="+testStream+":7&token="+url.QueryEscape(token), upgrade+"Origin: http://x\r\n")
	get("/ws/acme/ag1", upgrade+"X-API-Key: "+testAPIKey+"\r\nAuthorization: Bearer "+token+"\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n")
	get("/ws/acme/ag1", upgrade+"Sec-WebSocket-Protocol: json.v1, token."+token+"\r\nX-Forwarded-For: 1.2.3.4, ::1\r\n")
	get("/ws/%2e%2e/%00?resume=:&chat=%ff", "Origin: null\r\n")
	get("/ws/admin", upgrade+"X-API-Key: "+testAdminKey+"\r\n")
	get("/readyz", "X-Request-Id: a\r\n")
	f.Add([]byte("POST /generate-token HTTP/1.1\r\nHost: x\r\nX-API-Key: " + testMintKey + "\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("POST /admin/generate-token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
	handler := e.around(e.keyed(newMux(e.publicRoutes())))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		r.RemoteAddr = "192.0.2.1:1"
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code < 200 || w.Code > 599 || w.Body.Len() > 64<<10 {
			t.Fatalf("answer %d with %d bytes", w.Code, w.Body.Len())
		}
		if n := e.m.panics.Get(); n != 0 {
			t.Fatalf("%d panics", n)
		}
		if n := manager.Index().Len(); n != 0 {
			t.Fatalf("%d sessions left", n)
		}
	})
}

// FuzzAdmin hands requests to the internal routes, with the key of operators: each
// is answered, with what the document of the API allows, without a panic.
func FuzzAdmin(f *testing.F) {
	e, manager := bare(f)
	revoked := &fakeRevocations{apply: manager.SetRevocations}
	e.env.core().revoker = revoked
	e.env.poison = func() []natsx.Poison { return []natsx.Poison{{Seq: 1, Reason: natsx.PoisonSubject}} }
	seed := func(method, path, body string) {
		f.Add(fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body))
	}
	for _, r := range e.internalRoutes() {
		seed(r.method, r.path, "")
	}
	seed("GET", "/admin/sessions?limit=10&cursor=%7b%00&company=acme&agent=*", "")
	seed("GET", "/admin/sessions/acme/%2e%2e/u%2F1", "")
	seed("DELETE", "/admin/sessions/acme/ag1/u1", "")
	seed("GET", "/admin/poison?after=18446744073709551615&limit=-1", "")
	seed("GET", "/admin/revocations?kind=user", "")
	seed("POST", "/admin/revoke", `{"kind":"user","company":"acme","agent":"ag1","user":"u1","until":"2099-01-01T00:00:00Z"}`)
	seed("POST", "/admin/lift", `{"kind":"kid","kid":"k1","purpose":"admin"}`)
	seed("POST", "/admin/revoke", `{"kind":"token","hash":"00","hash":[[[[[[`)
	seed("POST", "/admin/drain", "{}")
	handler := e.around(e.keyed(newMux(e.internalRoutes())))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
		if err != nil || strings.HasPrefix(path.Clean("/"+r.URL.Path), "/debug/pprof") { // which take as long as they are asked to
			return
		}
		r.RemoteAddr = "192.0.2.1:1"
		r.Header.Set("X-Api-Key", testAdminKey)
		revoked.set()
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code < 200 || w.Code > 599 || w.Code == http.StatusInternalServerError {
			t.Fatalf("%s %s is answered %d %s", r.Method, r.URL, w.Code, w.Body)
		}
		if kind := w.Header().Get("Content-Type"); kind == "application/json" && !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%s %s is answered %d with no JSON: %q", r.Method, r.URL, w.Code, w.Body)
		}
		if n := e.m.panics.Get(); n != 0 {
			t.Fatalf("%d panics", n)
		}
	})
}

// A body that never comes holds a connection of the internal port no longer than
// one of the public port, though nobody would read it.
func TestBodyThatNeverComes(t *testing.T) {
	h := newHouse(t, nil)
	var open []net.Conn
	for _, addr := range []net.Addr{h.internal.Addr(), h.public.Addr()} {
		nc, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if _, err := io.WriteString(nc, "POST /admin/revoke HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		open = append(open, nc)
	}
	for _, nc := range open {
		_ = nc.SetReadDeadline(time.Now().Add(bodyTimeout + 15*time.Second))
		if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v is still open", nc.RemoteAddr())
		}
	}
}
