package main

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// gorillaServer is gorilla/websocket on net/http: a goroutine a socket, one
// lock a socket since its writers must take turns.
type gorillaServer struct{ groups groups[*gorillaConn] }

type gorillaConn struct {
	*websocket.Conn
	mu sync.Mutex
}

func (c *gorillaConn) write(m *websocket.PreparedMessage) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.WritePreparedMessage(m)
}

func (s *gorillaServer) Run(_ context.Context, ln net.Listener) error {
	up := &websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return // Upgrade has answered
		}
		s.serve(&gorillaConn{Conn: ws}, r.URL.Path)
	})}
	return srv.Serve(ln)
}

func (s *gorillaServer) serve(c *gorillaConn, path string) {
	defer c.Close()
	s.groups.add(path, c)
	defer s.groups.remove(path, c)
	kind, b := websocket.TextMessage, []byte(greeting)
	for {
		c.mu.Lock()
		err := c.WriteMessage(kind, b)
		c.mu.Unlock()
		if err == nil {
			kind, b, err = c.ReadMessage()
		}
		if err != nil {
			return
		}
	}
}

func (s *gorillaServer) Broadcast(path string, b []byte) int {
	m, err := websocket.NewPreparedMessage(websocket.TextMessage, b)
	if err != nil {
		return 0
	}
	return s.groups.each(path, func(c *gorillaConn) error { return c.write(m) })
}
