package main

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// coderServer is coder/websocket on net/http: a goroutine a socket. It has no
// way to encode a message once for many.
type coderServer struct{ groups groups[*websocket.Conn] }

func (s *coderServer) Run(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return // Accept has answered
		}
		s.serve(ctx, c, r.URL.Path)
	})}
	return srv.Serve(ln)
}

func (s *coderServer) serve(ctx context.Context, c *websocket.Conn, path string) {
	defer func() { _ = c.CloseNow() }()
	s.groups.add(path, c)
	defer s.groups.remove(path, c)
	kind, b := websocket.MessageText, []byte(greeting)
	for {
		err := c.Write(ctx, kind, b)
		if err == nil {
			kind, b, err = c.Read(ctx)
		}
		if err != nil {
			return
		}
	}
}

func (s *coderServer) Broadcast(path string, b []byte) int {
	ctx := context.Background()
	return s.groups.each(path, func(c *websocket.Conn) error { return c.Write(ctx, websocket.MessageText, b) })
}
