package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// Each server greets, echoes, and broadcasts to the sockets of a path alone.
func TestServers(t *testing.T) {
	for name, make := range servers() {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv := make()
			go func() { _ = srv.Run(ctx, ln) }()
			t.Cleanup(func() { _ = ln.Close() })
			door := httptest.NewServer(newDoor(srv))
			t.Cleanup(door.Close)

			a1, a2, b := dial(ctx, t, ln, "/ws/c/a"), dial(ctx, t, ln, "/ws/c/a"), dial(ctx, t, ln, "/ws/c/b")
			want(ctx, t, greeting, a1, a2, b)
			if err := b.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			want(ctx, t, "hello", b)
			if got := post(t, door.URL+"/broadcast?path=/ws/c/a", "one\ntwo\n"); got != "4" {
				t.Errorf("sent to %q sockets, want 2 messages to 2", got)
			}
			want(ctx, t, "one", a1, a2)
			want(ctx, t, "two", a1, a2)
			post(t, door.URL+"/broadcast?path=/ws/c/b", "three")
			want(ctx, t, "three", b)

			if err := a1.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Error(err)
			}
			for got := ""; got != "1"; got = post(t, door.URL+"/broadcast?path=/ws/c/a", "gone?") {
				if ctx.Err() != nil {
					t.Fatal("a closed socket is still counted")
				}
			}
		})
	}
}

func TestRunFailure(t *testing.T) {
	if err := run(t.Context(), "nonsense", "127.0.0.1:0", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("error %v", err)
	}
}

func dial(ctx context.Context, t *testing.T, ln net.Listener, path string) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(ctx, fmt.Sprintf("ws://%s%s?token=x", ln.Addr(), path), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func want(ctx context.Context, t *testing.T, text string, conns ...*websocket.Conn) {
	t.Helper()
	for _, c := range conns {
		if _, b, err := c.Read(ctx); err != nil || string(b) != text {
			t.Fatalf("%q, %v; want %q", b, err, text)
		}
	}
}

func post(t *testing.T, url, body string) string {
	t.Helper()
	resp, err := http.Post(url, "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %q %v", url, resp.Status, b, err)
	}
	return strings.TrimSpace(string(b))
}
