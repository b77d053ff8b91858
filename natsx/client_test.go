package natsx

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/daisi/daisi-ws/natsx/natstest"
	"github.com/daisi/daisi-ws/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 60 * time.Second

// start runs a client until the test ends, and waits until it is ready.
func start(t testing.TB, o Options) *Client {
	t.Helper()
	c := run(t, o)
	ready(t, c)
	return c
}

func run(t testing.TB, o Options, prepare ...func(*Client)) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range prepare {
		f(c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run ended: %s", err)
		}
	})
	return c
}

func ready(t testing.TB, c *Client) Stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := c.Ready(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// until polls ok.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// readUntil collects from r until n events came.
func readUntil(t testing.TB, r *Reader, n int) []session.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var got []session.Event
	for len(got) < n {
		evs, err := r.Next(ctx)
		if err != nil && !errors.Is(err, ErrIdle) {
			t.Fatalf("after %d of %d events: %s", len(got), n, err)
		}
		got = append(got, evs...)
	}
	return got
}

func body(i int) string { return fmt.Sprintf(`{"n":%d}`, i) }

func TestClientReadsWhatIsPublished(t *testing.T) {
	srv := natstest.Start(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true})
	s := ready(t, c)
	if s.Partitions != 64 || s.ID == "" || s.Last != 0 {
		t.Fatalf("unexpected stream %+v", s)
	}
	n := session.Partition("acme", "ag1", 64)
	r := c.Reader(n, s.Last)
	defer r.Close()
	pub := srv.Publisher(t)
	pub.Publish("websocket.acme.ag1.messages.628@s.whatsapp.net", ` {"a":1} `)
	pub.Publish("websocket.acme.ag1.chats", `{"a":2}`)
	got := readUntil(t, r, 2)
	want := session.Route{Company: "acme", Agent: "ag1", Kind: "messages", Chat: "628@s.whatsapp.net"}
	if got[0].Route != want || string(got[0].Body) != `{"a":1}` || got[0].Seq != 1 {
		t.Fatalf("unexpected event %+v", got[0])
	}
	if age := time.Since(time.Unix(0, got[0].Stamp)); age < 0 || age > patience {
		t.Fatalf("stamp is %s old", age)
	}
	if got[1].Route.Kind != "chats" || got[1].Route.Chat != "" || got[1].Seq != 2 || r.Pos() != 2 {
		t.Fatalf("unexpected event %+v", got[1])
	}
	if err := c.Connected(); err != nil {
		t.Fatalf("Connected: %s", err)
	}
}
