// Package embedded runs a nats-server with JetStream inside the process, for
// development and tests: one node, its store a directory that is lost at exit
// unless one is named.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	readyTimeout  = 10 * time.Second
	defaultStore  = 4 << 30
	defaultMemory = 256 << 20
)

// Options say how the server runs; the zero value is usable.
type Options struct {
	// Addr to listen on; default 127.0.0.1:4222, or a free port of that host
	// when it is taken. Port 0 is a free port.
	Addr string
	// Dir keeps streams; default: a temporary directory, removed at the end.
	Dir string
	// MaxPayload in bytes of one message, 1 KiB..64 MiB; default 8 MiB.
	MaxPayload int
	// MaxStore in bytes of all streams; default 4 GiB.
	MaxStore int64
}

func (o Options) withDefaults() (Options, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:4222"
	}
	if o.MaxPayload == 0 {
		o.MaxPayload = 8 << 20
	}
	if o.MaxPayload < 1<<10 || o.MaxPayload > 64<<20 {
		return o, fmt.Errorf("max payload %d must be 1 KiB to 64 MiB", o.MaxPayload)
	}
	if o.MaxStore == 0 {
		o.MaxStore = defaultStore
	}
	if o.MaxStore < 0 {
		return o, fmt.Errorf("max store %d must not be negative", o.MaxStore)
	}
	return o, nil
}

// Server is one nats-server in this process. Run it once.
type Server struct {
	// Static after New.
	o    Options
	url  string
	srv  *server.Server
	temp bool
}

// New picks the port and the directory; it starts nothing.
func New(o Options) (*Server, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	host, port, err := freeAddr(o.Addr)
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, url: "nats://" + net.JoinHostPort(host, strconv.Itoa(port))}
	if o.Dir == "" {
		if s.o.Dir, err = os.MkdirTemp("", "daisi-ws-nats-"); err != nil {
			return nil, fmt.Errorf("make store directory: %w", err)
		}
		s.temp = true
	}
	s.srv, err = server.NewServer(&server.Options{
		ServerName: "embedded",
		Host:       host, Port: port,
		JetStream: true, StoreDir: s.o.Dir,
		JetStreamMaxMemory: defaultMemory, JetStreamMaxStore: o.MaxStore,
		MaxPayload: int32(o.MaxPayload),
		NoSigs:     true, NoLog: true,
	})
	if err != nil {
		s.removeTemp()
		return nil, fmt.Errorf("configure nats-server: %w", err)
	}
	return s, nil
}

// Run serves until ctx ends, and returns when the server has ended.
func (s *Server) Run(ctx context.Context) error {
	defer s.removeTemp()
	s.srv.Start()
	defer func() {
		s.srv.Shutdown()
		s.srv.WaitForShutdown()
	}()
	if err := s.Ready(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// Ready waits until clients can connect; at most 10 s.
func (s *Server) Ready(ctx context.Context) error {
	for until := time.Now().Add(readyTimeout); ctx.Err() == nil; {
		if s.srv.ReadyForConnections(20 * time.Millisecond) {
			return nil
		}
		if time.Now().After(until) {
			return errors.New("nats-server did not become ready for connections in 10 s")
		}
	}
	return ctx.Err()
}

// URL is where clients of other processes connect; known from New on.
func (s *Server) URL() string { return s.url }

// InProcessConn makes Server a nats.InProcessConnProvider.
func (s *Server) InProcessConn() (net.Conn, error) { return s.srv.InProcessConn() }

func (s *Server) removeTemp() {
	if s.temp {
		_ = os.RemoveAll(s.o.Dir) // a temporary directory; nobody to tell
	}
}

// freeAddr returns addr, or a free port of the same host when addr is taken.
func freeAddr(addr string) (host string, port int, err error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		if host, _, err = net.SplitHostPort(addr); err != nil {
			return "", 0, fmt.Errorf("parse address %q: %w", addr, err)
		}
		if l, err = net.Listen("tcp", net.JoinHostPort(host, "0")); err != nil {
			return "", 0, fmt.Errorf("find a free port on %s: %w", host, err)
		}
	}
	defer l.Close()
	a := l.Addr().(*net.TCPAddr)
	return a.IP.String(), a.Port, nil
}
