package main

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/lxzan/gws"
)

// gwsServer is lxzan/gws on net/http: a goroutine a socket.
type gwsServer struct {
	gws.BuiltinEventHandler
	groups groups[*gws.Conn]
}

// pathKey is where a socket's path is kept.
const pathKey = "path"

func (s *gwsServer) Run(_ context.Context, ln net.Listener) error {
	up := gws.NewUpgrader(s, &gws.ServerOption{})
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r)
		if err != nil {
			return
		}
		c.Session().Store(pathKey, r.URL.Path)
		// The request's goroutine holds net/http's buffers: its README starts a new one.
		go c.ReadLoop()
	})}
	return srv.Serve(ln)
}

func (s *gwsServer) OnOpen(c *gws.Conn) {
	s.groups.add(path(c), c)
	// A failed write ends the reading loop.
	_ = c.WriteMessage(gws.OpcodeText, []byte(greeting))
}

func (s *gwsServer) OnClose(c *gws.Conn, _ error) { s.groups.remove(path(c), c) }

func (s *gwsServer) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	// A failed write ends the reading loop.
	_ = c.WriteMessage(m.Opcode, m.Bytes())
}

func (s *gwsServer) Broadcast(path string, b []byte) int {
	m := gws.NewBroadcaster(gws.OpcodeText, b)
	defer m.Close()
	return s.groups.each(path, m.Broadcast)
}

func path(c *gws.Conn) string {
	v, _ := c.Session().Load(pathKey)
	s, _ := v.(string)
	return s
}
