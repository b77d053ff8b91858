package loop

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const testKey = "dGhlIHNhbXBsZSBub25jZQ=="

func upgradeRequest() *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = http.Header{
		"Connection":            {"keep-alive, Upgrade"},
		"Upgrade":               {"WebSocket"},
		"Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key":     {testKey},
	}
	return r
}

func TestCheckUpgrade(t *testing.T) {
	if key, err := CheckUpgrade(upgradeRequest()); err != nil || key != testKey {
		t.Errorf("good request: %q, %v", key, err)
	}
	f := func(says string, change func(r *http.Request)) {
		t.Helper()
		r := upgradeRequest()
		change(r)
		if _, err := CheckUpgrade(r); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", says, err)
		}
	}
	f("method POST", func(r *http.Request) { r.Method = http.MethodPost })
	f("HTTP/1.0", func(r *http.Request) { r.Proto, r.ProtoMinor = "HTTP/1.0", 0 })
	f("HTTP/2.0", func(r *http.Request) { r.Proto, r.ProtoMajor = "HTTP/2.0", 2 })
	f("Connection", func(r *http.Request) { r.Header.Set("Connection", "close") })
	f("Connection", func(r *http.Request) { r.Header.Del("Connection") })
	f("Upgrade", func(r *http.Request) { r.Header.Set("Upgrade", "h2c") })
	f("Version", func(r *http.Request) { r.Header.Set("Sec-WebSocket-Version", "8") })
	f("0 Sec", func(r *http.Request) { r.Header.Del("Sec-WebSocket-Key") })
	f("2 Sec", func(r *http.Request) { r.Header.Add("Sec-WebSocket-Key", testKey) })
	f("16 bytes", func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "c2hvcnQ=") })
	f("16 bytes", func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "!") })
	f("body", func(r *http.Request) { r.ContentLength = 3 })
	f("body", func(r *http.Request) { r.TransferEncoding = []string{"chunked"} })
}

func TestUpgradeResponse(t *testing.T) {
	b := UpgradeResponse(testKey, "json.v1", http.Header{"X-Request-Id": {"a\r\nEvil: yes"}})
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" ||
		resp.Header.Get("Sec-WebSocket-Protocol") != "json.v1" || resp.Header.Get("Evil") != "" ||
		resp.Header.Get("Upgrade") != "websocket" || resp.Header.Get("Connection") != "Upgrade" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}

func TestDialFailure(t *testing.T) {
	e := startEngine(t, Options{Client: true})
	// server answers each connection with what it is told.
	answer := func(text string) (url string) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer func() { _ = c.Close() }()
			if text == "" {
				_, _ = io.Copy(io.Discard, c)
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, text)
		}()
		return "ws://" + ln.Addr().String() + "/path?q=1"
	}
	_, err := e.Dial(t.Context(), DialOptions{URL: answer("HTTP/1.1 403 Forbidden\r\nX-A: b\r\nContent-Length: 4\r\n\r\nnope")}, newEcho())
	if refused := (*DialError)(nil); !errors.As(err, &refused) || refused.Status != 403 || string(refused.Body) != "nope" || refused.Header.Get("X-A") != "b" {
		t.Errorf("refusal: %v", err)
	}
	f := func(name string, o DialOptions) {
		t.Helper()
		if _, err := e.Dial(t.Context(), o, newEcho()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	f("wrong accept key", DialOptions{URL: answer("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n")})
	f("no HTTP", DialOptions{URL: answer("hello\r\n\r\n")})
	f("scheme", DialOptions{URL: "http://127.0.0.1/"})
	f("bad URL", DialOptions{URL: "ws://%zz"})
	f("nobody there", DialOptions{URL: "ws://127.0.0.1:1/"})
	f("timeout", DialOptions{URL: answer(""), Timeout: 50 * time.Millisecond})
	f("no TLS there", DialOptions{URL: strings.Replace(answer("hello"), "ws:", "wss:", 1)})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := e.Dial(ctx, DialOptions{URL: answer("")}, newEcho()); err == nil {
		t.Error("cancelled: no error")
	}
	server := startEngine(t, Options{})
	if _, err := server.Dial(t.Context(), DialOptions{URL: "ws://127.0.0.1:1/"}, newEcho()); err == nil {
		t.Error("a server's engine dialled")
	}
	if e.Len() != 0 {
		t.Errorf("%d sockets left", e.Len())
	}
}

// TestDialLocalAddr wants the source address used.
func TestDialLocalAddr(t *testing.T) {
	h := startHouse(t, houseOptions{})
	e := startEngine(t, Options{Client: true})
	local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 7)}
	if _, err := e.Dial(t.Context(), DialOptions{URL: h.url, LocalAddr: local}, newEcho()); err != nil {
		t.Fatal(err)
	}
	if addr := h.next(t).RemoteAddr(); !strings.HasPrefix(addr, "127.0.0.7:") {
		t.Errorf("remote address %s", addr)
	}
}
