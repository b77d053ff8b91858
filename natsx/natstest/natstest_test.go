package natstest

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func last(t *testing.T, js jetstream.JetStream) uint64 {
	t.Helper()
	s, err := js.Stream(t.Context(), "s")
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

func TestServer(t *testing.T) {
	srv := Start(t)
	srv.MakeStream(t, "s", "s.>")
	pub := srv.Publisher(t)
	if seq := pub.Publish("s.1", "a"); seq != 1 {
		t.Fatalf("got seq %d", seq)
	}
	pub.Send("s.2", []byte("b"))
	pub.Flush()
	js := srv.JetStream(t)
	if n := last(t, js); n != 2 {
		t.Fatalf("got last %d; want 2", n)
	}
	if _, err := js.CreateConsumer(t.Context(), "s", jetstream.ConsumerConfig{}); err != nil {
		t.Fatal(err)
	}
	if n := srv.DeleteConsumers(t, "s"); n != 1 {
		t.Fatalf("deleted %d consumers; want 1", n)
	}
	srv.DeleteStream(t, "s")
	srv.DeleteStream(t, "s")
	if n := last(t, js); n != 0 {
		t.Fatalf("got last %d; want no stream", n)
	}
}

func TestProcess(t *testing.T) {
	p := StartProcess(t)
	p.MakeStream(t, "s", "s.>")
	p.Publisher(t).Publish("s.1", "a")

	p.Restart(true)
	if n := last(t, p.JetStream(t)); n != 1 {
		t.Fatalf("store kept: got last %d; want 1", n)
	}
	p.Save()
	p.Publisher(t).Publish("s.1", "b")
	p.Rewind()
	if n := last(t, p.JetStream(t)); n != 1 {
		t.Fatalf("rewound: got last %d; want 1", n)
	}
	p.Restart(false)
	if n := last(t, p.JetStream(t)); n != 0 {
		t.Fatalf("store lost: got last %d; want no stream", n)
	}

	nc := p.Conn(t)
	p.Stop()
	if err := nc.FlushTimeout(100 * time.Millisecond); !errors.Is(err, nats.ErrTimeout) {
		t.Fatalf("stopped: got %v; want a timeout", err)
	}
	p.Cont()
	if err := nc.FlushTimeout(10 * time.Second); err != nil {
		t.Fatalf("goes on: %s", err)
	}

	pid := p.Pid()
	p.Kill()
	if p.Pid() != 0 || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		t.Fatalf("process %d lives", pid)
	}
	p.Kill()
}
