package embedded

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServer(t *testing.T) {
	f := func(o Options, connect func(s *Server) (*nats.Conn, error)) {
		t.Helper()
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		// Long, for what is waited for includes a disk; jetstream's own is 5 s.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		if err := s.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		nc, err := connect(s)
		if err != nil {
			t.Fatal(err)
		}
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "s", Subjects: []string{"s"}, MaxBytes: 1 << 30}); err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(ctx, "s", make([]byte, 4<<20)); err != nil {
			t.Fatal(err)
		}
		nc.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(s.o.Dir); (err == nil) != (o.Dir != "") {
			t.Fatalf("store %q afterwards: %v", s.o.Dir, err)
		}
	}
	tcp := func(s *Server) (*nats.Conn, error) { return nats.Connect(s.URL()) }
	inProcess := func(s *Server) (*nats.Conn, error) { return nats.Connect("", nats.InProcessServer(s)) }
	f(Options{Addr: "127.0.0.1:0"}, tcp)
	f(Options{Addr: "127.0.0.1:0", Dir: t.TempDir()}, inProcess)

	// The port is taken.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f(Options{Addr: l.Addr().String()}, func(s *Server) (*nats.Conn, error) {
		if strings.HasSuffix(s.URL(), l.Addr().String()) {
			t.Fatalf("got %s, which is taken", s.URL())
		}
		return tcp(s)
	})
}

func TestOptionsFailure(t *testing.T) {
	f := func(o Options) {
		t.Helper()
		if s, err := New(o); err == nil {
			t.Errorf("%+v: got %s; want an error", o, s.URL())
		}
	}
	f(Options{Addr: "nonsense"})
	f(Options{Addr: "127.0.0.1:0", MaxPayload: 1})
	f(Options{Addr: "127.0.0.1:0", MaxPayload: 1 << 30})
	f(Options{Addr: "127.0.0.1:0", MaxStore: -1})
}

func TestReadyFailure(t *testing.T) {
	s, err := New(Options{Addr: "127.0.0.1:0", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Ready(ctx); err == nil {
		t.Fatal("ready without Run")
	}
}
