package main

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/lesismal/nbio/nbhttp"
	"github.com/lesismal/nbio/nbhttp/websocket"
)

// nbioServer is nbio's own HTTP server and websocket: epoll, no goroutine a
// socket.
type nbioServer struct{ groups groups[*websocket.Conn] }

func (s *nbioServer) Run(ctx context.Context, ln net.Listener) error {
	up := websocket.NewUpgrader()
	up.CheckOrigin = func(*http.Request) bool { return true }
	up.OnMessage(func(c *websocket.Conn, kind websocket.MessageType, b []byte) {
		// A failed write closes the socket.
		_ = c.WriteMessage(kind, b)
	})
	up.OnClose(func(c *websocket.Conn, _ error) {
		if path, ok := c.SessionWithLock().(string); ok {
			s.groups.remove(path, c)
		}
	})
	engine := nbhttp.NewEngine(nbhttp.Config{
		Network: "tcp", Addrs: []string{ln.Addr().String()}, IOMod: nbhttp.IOModNonBlocking, ReleaseWebsocketPayload: true,
		Listen: func(string, string) (net.Listener, error) { return ln, nil },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := up.Upgrade(w, r, nil)
			if err != nil {
				return // Upgrade has answered
			}
			c.SetSession(r.URL.Path)
			s.groups.add(r.URL.Path, c)
			// A failed write closes the socket.
			_ = c.WriteMessage(websocket.TextMessage, []byte(greeting))
		}),
	})
	if err := engine.Start(); err != nil {
		return fmt.Errorf("start nbio: %w", err)
	}
	<-ctx.Done()
	engine.Stop()
	return nil
}

func (s *nbioServer) Broadcast(path string, b []byte) int {
	return s.groups.each(path, func(c *websocket.Conn) error { return c.WriteMessage(websocket.TextMessage, b) })
}
