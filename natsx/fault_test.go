package natsx

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/daisi/daisi-ws/natsx/natstest"
	"github.com/daisi/daisi-ws/session"
)

// checkNumbers fails unless evs are the events body(from), body(from+1), …
func checkNumbers(t testing.TB, evs []session.Event, from int) {
	t.Helper()
	for i, ev := range evs {
		if string(ev.Body) != body(from+i) {
			t.Fatalf("event %d: got %s; want %s", i, ev.Body, body(from+i))
		}
	}
}

func TestReaderConsumerDeleted(t *testing.T) {
	srv := natstest.Start(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
	r := c.Reader(0, 0)
	defer r.Close()
	pub := srv.Publisher(t)
	for i := range 5 {
		pub.Publish("websocket.c.a.chats", body(2*i))
		checkNumbers(t, readUntil(t, r, 1), 2*i)
		if n := srv.DeleteConsumers(t, "dws_events"); n != 1 {
			t.Fatalf("deleted %d consumers; want 1", n)
		}
		began := time.Now()
		pub.Publish("websocket.c.a.chats", body(2*i+1))
		checkNumbers(t, readUntil(t, r, 1), 2*i+1)
		if d := time.Since(began); d > slack*time.Second {
			t.Errorf("whole again after %s; want at most 1 s", d)
		}
	}
	if n := c.m.restarts[restartStatus].Get(); n != 5 {
		t.Fatalf("%d restarts after a status; want 5", n)
	}
}

// TestReaderLostMessage takes messages away on their way to the reader: in the
// middle, and the last of all, which only a heartbeat can tell.
func TestReaderLostMessage(t *testing.T) {
	f := func(t *testing.T, after int) {
		t.Helper()
		srv := natstest.Start(t)
		c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
		r := c.Reader(0, 0)
		defer r.Close()
		pub := srv.Publisher(t)
		pub.Publish("websocket.c.a.chats", body(0))
		checkNumbers(t, readUntil(t, r, 1), 0)
		pub.Publish("websocket.c.a.chats", body(1))
		for m := range r.cons.ch {
			if m.Reply != "" {
				break // the lost one
			}
		}
		for i := range after {
			pub.Publish("websocket.c.a.chats", body(2+i))
		}
		checkNumbers(t, readUntil(t, r, 1+after), 1)
		if c.m.restarts[restartGap].Get()+c.m.restarts[restartStatus].Get() == 0 {
			t.Fatal("no restart although a message was lost")
		}
	}
	t.Run("middle", func(t *testing.T) { f(t, 3) })
	t.Run("last", func(t *testing.T) { f(t, 0) })
}

// TestReaderDeaf takes the subscription away behind the reader's back: no word
// comes, and none is missed, until it is told what the leader holds.
func TestReaderDeaf(t *testing.T) {
	srv := natstest.Start(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
	r := c.Reader(0, 0)
	defer r.Close()
	pub := srv.Publisher(t)
	first := pub.Publish("websocket.c.a.chats", body(0))
	checkNumbers(t, readUntil(t, r, 1), 0)
	r.Owes(first)
	checkNoRestarts(t, c)
	if err := r.cons.sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	last := pub.Publish("websocket.c.a.chats", body(1))
	until(t, "the end of the stream seen", func() bool { return c.Stream().Last == last })
	if _, err := r.Next(t.Context()); !errors.Is(err, ErrIdle) || !r.Current() {
		t.Fatalf("got %v, current %v; want a deaf reader that does not know it", err, r.Current())
	}
	r.Owes(last)
	r.Owes(last) // the first may have come just after the look
	if r.Current() || c.m.restarts[restartSilent].Get() != 1 {
		t.Fatalf("current %v, %d restarts; want another consumer", r.Current(), c.m.restarts[restartSilent].Get())
	}
	checkNumbers(t, readUntil(t, r, 1), 1)
}

// TestReaderServerKilled kills the server, store kept, under load; the
// publisher repeats what was not acknowledged, with an id.
func TestReaderServerKilled(t *testing.T) {
	srv := natstest.StartProcess(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 4})
	copies := startReaders(t, c, 1)
	js := srv.JetStream(t)
	stop := make(chan struct{})
	sent := make(chan int)
	go func() {
		for i := 0; ; i++ {
			for publishOnce(js, i) != nil {
				time.Sleep(20 * time.Millisecond) // the server is away
			}
			select {
			case <-stop:
				sent <- i + 1
				return
			default:
			}
		}
	}()
	for i := range 3 {
		have := copies[0].len()
		until(t, "events before the kill", func() bool { return copies[0].len() > have+200 })
		srv.Restart(true)
		began := time.Now()
		have = copies[0].len()
		until(t, "events after the restart", func() bool { return copies[0].len() > have })
		t.Logf("restart %d: events again after %s", i, time.Since(began).Round(time.Millisecond))
	}
	close(stop)
	total := <-sent
	until(t, "all events", func() bool { return copies[0].len() >= total })
	for n, evs := range copies[0].all() {
		for i := 1; i < len(evs); i++ {
			if evs[i].Seq <= evs[i-1].Seq {
				t.Fatalf("partition %d: seq %d after %d", n, evs[i].Seq, evs[i-1].Seq)
			}
		}
		checkNumbers(t, evs, 0) // one agent: all in one partition
	}
	if copies[0].len() != total {
		t.Fatalf("got %d events; want %d", copies[0].len(), total)
	}
	if s := c.Stream(); c.m.changed.Get() != 0 || s.Last != uint64(total) {
		t.Logf("stream %+v, changes %d", s, c.m.changed.Get())
	}
}

func publishOnce(js jetstream.JetStream, i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := js.Publish(ctx, "websocket.c.a.chats", []byte(body(i)), jetstream.WithMsgID(fmt.Sprint("m", i)))
	return err
}

// TestReaderServerStopped freezes the server.
func TestReaderServerStopped(t *testing.T) {
	srv := natstest.StartProcess(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
	r := c.Reader(0, 0)
	defer r.Close()
	pub := srv.Publisher(t)
	pub.Publish("websocket.c.a.chats", body(0))
	checkNumbers(t, readUntil(t, r, 1), 0)
	srv.Stop()
	for c.m.restarts[restartSilent].Get() == 0 {
		if _, err := r.Next(t.Context()); !errors.Is(err, ErrIdle) {
			t.Fatalf("got %v; want ErrIdle", err)
		}
	}
	until(t, "sickness told", func() bool { return c.Connected() != nil })
	srv.Cont()
	pub.Publish("websocket.c.a.chats", body(1))
	checkNumbers(t, readUntil(t, r, 1), 1)
	until(t, "health told", func() bool { return c.Connected() == nil })
}

// TestClientLateServer starts the client first.
func TestClientLateServer(t *testing.T) {
	srv := natstest.StartProcess(t)
	srv.Kill()
	c := run(t, Options{URL: srv.URL, CreateStream: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrNotConnected) {
		t.Fatalf("got %v; want deadline exceeded and not connected", err)
	}
	if _, _, err := c.LastSeq(t.Context()); !errors.Is(err, ErrNotConnected) {
		t.Fatalf("LastSeq: got %v", err)
	}
	srv.Restart(true)
	ready(t, c)
}

// TestEventsStreamDeleted: ours is made again, sourcing from now, under a new
// id; readers of the old one end.
func TestEventsStreamDeleted(t *testing.T) {
	srv := natstest.Start(t)
	var mu sync.Mutex
	var told []Stream
	c := run(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1}, func(c *Client) {
		c.OnStream(func(s Stream) { mu.Lock(); told = append(told, s); mu.Unlock() })
	})
	old := ready(t, c)
	other := start(t, Options{URL: srv.URL, Partitions: 8}) // a pod that is told another count
	if s := ready(t, other); s.ID != old.ID || s.Partitions != 1 {
		t.Fatalf("pods disagree: %+v and %+v", s, old)
	}
	r := c.Reader(0, 0)
	defer r.Close()
	pub := srv.Publisher(t)
	pub.Publish("websocket.c.a.chats", body(0))
	checkNumbers(t, readUntil(t, r, 1), 0)

	srv.DeleteStream(t, "dws_events")
	began := time.Now()
	for err := error(nil); !errors.Is(err, ErrStream); {
		if _, err = r.Next(t.Context()); err != nil && !errors.Is(err, ErrIdle) && !errors.Is(err, ErrStream) {
			t.Fatalf("got %v; want ErrStream", err)
		}
		if time.Since(began) > patience {
			t.Fatal("the reader never ended")
		}
	}
	t.Logf("new stream after %s", time.Since(began).Round(time.Millisecond))
	until(t, "both pods on the new stream", func() bool {
		return c.Stream().ID != old.ID && other.Stream().ID == c.Stream().ID
	})
	mu.Lock()
	if len(told) != 1 || told[0].ID != c.Stream().ID || told[0].Last != 0 {
		t.Errorf("told %+v; want the new stream once, empty", told)
	}
	mu.Unlock()
	again := c.Reader(0, c.Stream().Last)
	defer again.Close()
	pub.Publish("websocket.c.a.chats", body(1))
	evs := readUntil(t, again, 1)
	checkNumbers(t, evs, 1)
	if evs[0].Seq != 1 {
		t.Fatalf("got seq %d; want 1: the old events must not come again", evs[0].Seq)
	}
}

// TestPublisherStreamDeleted: events that come after its return are read, each
// once, by several pods that all repair the sources.
func TestPublisherStreamDeleted(t *testing.T) {
	srv := natstest.StartProcess(t)
	srv.MakeStream(t, "wa_stream", "websocket.>")
	c := start(t, Options{URL: srv.URL, Partitions: 1})
	pods := []*Client{start(t, Options{URL: srv.URL}), start(t, Options{URL: srv.URL})}
	r := c.Reader(0, 0)
	defer r.Close()
	pub := srv.Publisher(t)
	next := 0
	publish := func(n int) {
		t.Helper()
		from := next
		for range n {
			pub.Publish("websocket.c.a.chats", body(next))
			next++
		}
		began := time.Now()
		checkNumbers(t, readUntil(t, r, n), from)
		t.Logf("%d events after %s", n, time.Since(began).Round(time.Millisecond))
	}
	publish(50)
	for range 3 {
		srv.DeleteStream(t, "wa_stream")
		until(t, "absence told", func() bool { return c.Connected() != nil })
		srv.MakeStream(t, "wa_stream", "websocket.>")
		began := time.Now()
		publish(20)
		if d := time.Since(began); d > slack*5*time.Second {
			t.Errorf("whole again after %s; want at most 5 s", d)
		}
		publish(20)
	}
	// At once, so that nobody saw it missing.
	srv.DeleteStream(t, "wa_stream")
	srv.MakeStream(t, "wa_stream", "websocket.>")
	publish(20)
	until(t, "health told", func() bool { return c.Connected() == nil })
	for _, p := range append(pods, c) {
		until(t, "settled", func() bool { return p.Stream().Last == uint64(next) })
		if p.m.changed.Get() != 0 {
			t.Error("our stream changed, too")
		}
	}
	for range 10 { // nothing twice, even late
		if evs, err := r.Next(t.Context()); !errors.Is(err, ErrIdle) {
			t.Fatalf("got %v, %v; want ErrIdle", evs, err)
		}
	}
}

// TestPublisherStreamLate: ours is made first.
func TestPublisherStreamLate(t *testing.T) {
	srv := natstest.Start(t)
	c := start(t, Options{URL: srv.URL, Partitions: 1})
	if err := c.Connected(); err == nil {
		t.Fatal("Connected: got nil although the publisher's stream is missing")
	}
	r := c.Reader(0, 0)
	defer r.Close()
	srv.MakeStream(t, "wa_stream", "websocket.>")
	pub := srv.Publisher(t)
	for i := range 10 {
		pub.Publish("websocket.c.a.chats", body(i))
	}
	checkNumbers(t, readUntil(t, r, 10), 0)
	until(t, "health told", func() bool { return c.Connected() == nil })
	if _, last, err := c.LastSeq(t.Context()); err != nil || last != 10 {
		t.Fatalf("got last %d, %v; want 10", last, err)
	}
}

// TestEventsStreamRewound puts an older store under the server.
func TestEventsStreamRewound(t *testing.T) {
	srv := natstest.StartProcess(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
	old := c.Stream()
	r := c.Reader(0, 0)
	defer r.Close()
	pub := srv.Publisher(t)
	publish := func() {
		t.Helper()
		for i := range 10 {
			pub.Publish("websocket.c.a.chats", body(i))
		}
		checkNumbers(t, readUntil(t, r, 10), 0)
	}
	publish()
	srv.Save()
	publish()
	srv.Rewind()
	until(t, "a new id", func() bool { return c.Stream().ID != old.ID })
	if _, err := r.Next(t.Context()); !errors.Is(err, ErrStream) {
		t.Fatalf("got %v; want ErrStream", err)
	}
	if _, _, err := c.LastSeq(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := c.Stream(); s.Last != 10 {
		t.Fatalf("got %+v; want last 10", s)
	}
	if err := c.Read(t.Context(), 0, 0, 10, func([]session.Event) error { return nil }); err != nil {
		t.Fatal(err)
	}
}

// TestForeignStream refuses a stream that somebody else made.
func TestForeignStream(t *testing.T) {
	srv := natstest.Start(t)
	srv.MakeStream(t, "dws_events", "other.>")
	c := run(t, Options{URL: srv.URL, CreateStream: true})
	until(t, "refusal", func() bool {
		err := c.Connected()
		return err != nil && err.Error() == "stream dws_events was not made by daisi-ws: its metadata lacks dws_stream_id or dws_partitions; delete it or choose another name"
	})
}
