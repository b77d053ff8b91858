// Command peers is a bare WebSocket server over one of four other libraries, to
// stand beside the gateway in one table: it accepts sockets on any path, greets
// each with `ready`, echoes what they say, and a control door sends the body of
// POST /broadcast?path=… to all sockets of that path. No login, no Redis, no
// NATS, no order between pods, no resume: less work than a gateway has.
//
// Each library is used as its own README shows, with compression off and, where
// it has one, its way of encoding a broadcast once.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"
)

// server accepts sockets from ln until ctx ends.
type server interface {
	Run(ctx context.Context, ln net.Listener) error
	// Broadcast writes one text message to all sockets of a path and says to how
	// many. One goroutine calls it.
	Broadcast(path string, message []byte) int
}

// greeting is the first frame of every socket, so that a client knows that it
// is up without a message of its own.
const greeting = `{"type":"ready"}`

func servers() map[string]func() server {
	return map[string]func() server{
		"gorilla": func() server { return new(gorillaServer) },
		"gws":     func() server { return new(gwsServer) },
		"coder":   func() server { return new(coderServer) },
		"nbio":    func() server { return new(nbioServer) },
	}
}

func main() {
	name := flag.String("server", "", "gorilla, gws, coder or nbio")
	addr := flag.String("addr", "127.0.0.1:9001", "where sockets come")
	control := flag.String("control", "127.0.0.1:9002", "where POST /broadcast and POST /gc come")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *name, *addr, *control); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name, addr, control string) error {
	make, ok := servers()[name]
	if !ok {
		return fmt.Errorf("unknown server %q: want gorilla, gws, coder or nbio", name)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for sockets: %w", err)
	}
	doorLn, err := net.Listen("tcp", control)
	if err != nil {
		return errors.Join(fmt.Errorf("listen for control: %w", err), ln.Close())
	}
	srv := make()
	ctx, stop := context.WithCancelCause(ctx)
	go func() { stop(srv.Run(ctx, ln)) }()
	door := &http.Server{Handler: newDoor(srv), ReadHeaderTimeout: 10 * time.Second}
	go func() { stop(door.Serve(doorLn)) }()
	<-ctx.Done()
	err = errors.Join(door.Close(), ln.Close())
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// newDoor answers the load generator.
func newDoor(srv server) http.Handler {
	mux := http.NewServeMux()
	// The body holds one message a line, as a batch from a broker would.
	mux.HandleFunc("POST /broadcast", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 16<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		path, sent := r.URL.Query().Get("path"), 0
		for message := range bytes.Lines(body) {
			sent += srv.Broadcast(path, bytes.TrimSuffix(message, []byte("\n")))
		}
		fmt.Fprintln(w, sent)
	})
	// What the clients' ramp left behind is no part of an idle socket.
	mux.HandleFunc("POST /gc", func(http.ResponseWriter, *http.Request) { debug.FreeOSMemory() })
	return mux
}
