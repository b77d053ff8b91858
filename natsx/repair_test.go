package natsx

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/daisi/daisi-ws/natsx/natstest"
	"github.com/daisi/daisi-ws/session"
)

// collect reads partition 0.
func collect(t testing.TB, c *Client, after, upto uint64) ([]session.Event, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var all []session.Event
	err := c.Read(ctx, 0, after, upto, func(evs []session.Event) error {
		if len(evs) == 0 || len(evs) > readBatch {
			t.Errorf("chunk of %d events", len(evs))
		}
		all = append(all, evs...)
		return nil
	})
	return all, err
}

// TestReadWhilePublishing asks for all up to the last sequence, again and
// again, while more comes.
func TestReadWhilePublishing(t *testing.T) {
	srv := natstest.StartProcess(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
	pub := srv.Publisher(t)
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; !stop.Load(); i++ {
			pub.Send("websocket.c.a.chats", []byte(body(i)))
			if i%100 == 99 {
				pub.Flush()
			}
		}
		pub.Flush()
	}()
	var pos uint64
	for began := time.Now(); pos < 5000 && time.Since(began) < patience; {
		_, last, err := c.LastSeq(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		evs, err := collect(t, c, pos, last)
		if err != nil {
			t.Fatal(err)
		}
		if uint64(len(evs)) != last-pos {
			t.Fatalf("got %d events of (%d, %d]", len(evs), pos, last)
		}
		checkNumbers(t, evs, int(pos))
		pos = last
	}
	stop.Store(true)
	<-done
	if pos < 5000 {
		t.Fatalf("only %d events were published meanwhile", pos)
	}
}

func TestReadBounds(t *testing.T) {
	srv := natstest.Start(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
	pub := srv.Publisher(t)
	const total = 600
	for i := range total {
		pub.Send("websocket.c.a.chats", []byte(body(i)))
	}
	pub.Flush()
	until(t, "sourced", func() bool { _, last, err := c.LastSeq(t.Context()); return err == nil && last == total })
	f := func(after, upto uint64, want int) {
		t.Helper()
		evs, err := collect(t, c, after, upto)
		if err != nil {
			t.Fatal(err)
		}
		if len(evs) != want {
			t.Fatalf("(%d, %d]: got %d events; want %d", after, upto, len(evs), want)
		}
		checkNumbers(t, evs, int(after))
	}
	f(0, total, total)
	f(0, 1, 1)
	f(100, 356, 256)
	f(100, 357, 257)
	f(total-1, total, 1)
	f(total, total, 0)
	f(total, total+50, 0)
	f(7, 5, 0)

	// An empty partition, an error of f, an ended context.
	if err := c.Read(t.Context(), 5, 0, total, nil); err != nil {
		t.Fatalf("empty partition: %s", err)
	}
	stop := errors.New("stop")
	if err := c.Read(t.Context(), 0, 0, total, func([]session.Event) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("got %v; want the callback's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Read(ctx, 0, 0, total, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v; want canceled", err)
	}
}

// TestReadSpoofedHeaders: a publisher's headers look like the server's.
func TestReadSpoofedHeaders(t *testing.T) {
	srv := natstest.Start(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
	nc := srv.Conn(t)
	for i := range 3 {
		m := nats.NewMsg("websocket.c.a.chats")
		m.Data = []byte(body(i))
		m.Header = nats.Header{
			"Nats-Sequence": {"77"}, "Nats-Subject": {"dws.0.evil.a.chats"}, "Nats-Last-Sequence": {"5"},
			"Nats-Time-Stamp": {"x"}, "Status": {"204"},
		}
		if _, err := nc.RequestMsg(m, 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	r := c.Reader(0, 0)
	defer r.Close()
	live := readUntil(t, r, 3)
	again, err := collect(t, c, 0, 3)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if got, want := fmt.Sprint(again[i]), fmt.Sprint(live[i]); got != want || live[i].Route.Company != "c" {
			t.Fatalf("got %s; want %s", got, want)
		}
	}
}

// TestReadLaggingReplica has half of the requests answered by one that holds
// nothing: what it says must not count.
func TestReadLaggingReplica(t *testing.T) {
	const direct = "$JS.API.DIRECT.GET.dws_events"
	srv := natstest.StartProcess(t, fmt.Sprintf(`mappings { %q: [
		{ destination: %q, weight: 50%% }, { destination: "lagging", weight: 50%% }
	] }`, direct, direct))
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
	var answered atomic.Int64
	nc := srv.Conn(t)
	_, err := nc.Subscribe("lagging", func(m *nats.Msg) {
		end := nats.NewMsg(m.Reply)
		end.Header.Set("Status", "404")
		if answered.Add(1)%2 == 0 {
			end.Header.Set("Status", "204")
			end.Header.Set("Nats-Num-Pending", "0")
			end.Header.Set("Nats-Last-Sequence", "0")
		}
		if err := m.RespondMsg(end); err != nil {
			t.Error(err)
		}
	})
	if err = errors.Join(err, nc.Flush()); err != nil {
		t.Fatal(err)
	}
	pub := srv.Publisher(t)
	for i := range 20 {
		pub.Publish("websocket.c.a.chats", body(i))
	}
	until(t, "sourced", func() bool { _, last, err := c.LastSeq(t.Context()); return err == nil && last == 20 })
	for n := 0; n < 10 || answered.Load() < 3; n++ {
		evs, err := collect(t, c, 0, 20)
		if err != nil || len(evs) != 20 {
			t.Fatalf("got %d events, %v; want 20", len(evs), err)
		}
	}
}

// TestReadLostMessage has a chunk come with a hole, in the middle or at its end.
func TestReadLostMessage(t *testing.T) {
	srv := natstest.StartProcess(t, `mappings { "$JS.API.DIRECT.GET.dws_events": "lossy" }`)
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
	pub := srv.Publisher(t)
	for i := range 3 {
		pub.Publish("websocket.c.a.chats", body(i))
	}
	until(t, "sourced", func() bool { _, last, err := c.LastSeq(t.Context()); return err == nil && last == 3 })
	var lost atomic.Int64
	nc := srv.Conn(t)
	_, err := nc.Subscribe("lossy", func(m *nats.Msg) {
		for seq := int64(1); seq <= 3; seq++ {
			one := nats.NewMsg(m.Reply)
			one.Data = []byte(body(int(seq) - 1))
			one.Header = nats.Header{
				"Nats-Subject": {"dws.0.c.a.chats"}, "Nats-Sequence": {fmt.Sprint(seq)},
				"Nats-Last-Sequence": {fmt.Sprint(seq - 1)}, "Nats-Time-Stamp": {time.Now().Format(time.RFC3339Nano)},
			}
			if seq != lost.Load() {
				_ = m.RespondMsg(one) // Read finds out
			}
		}
		end := nats.NewMsg(m.Reply)
		end.Header = nats.Header{"Status": {"204"}, "Nats-Last-Sequence": {"3"}}
		_ = m.RespondMsg(end) // as well
	})
	if err = errors.Join(err, nc.Flush()); err != nil { // the server knows of it before it is asked for
		t.Fatal(err)
	}
	for n := range int64(4) {
		lost.Store(n)
		evs, err := collect(t, c, 0, 3)
		if n == 0 && (err != nil || len(evs) != 3) {
			t.Fatalf("nothing lost: got %d events, %v", len(evs), err)
		}
		if n > 0 && (!errors.Is(err, errChunk) || len(evs) > 0) {
			t.Fatalf("seq %d lost: got %d events, %v; want none, and %v", n, len(evs), err, errChunk)
		}
	}
}

// TestTrimmed: the stream dropped its oldest events before they were read.
func TestTrimmed(t *testing.T) {
	srv := natstest.Start(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
	pub := srv.Publisher(t)
	for i := range 100 {
		pub.Publish("websocket.c.a.chats", body(i))
	}
	r := c.Reader(0, 0)
	defer r.Close()
	checkNumbers(t, readUntil(t, r, 100), 0)
	purge(t, srv, 41)

	_, err := collect(t, c, 20, 100)
	var trimmed *TrimmedError
	if !errors.As(err, &trimmed) || trimmed.Pos != 20 || trimmed.First != 41 {
		t.Fatalf("Read: got %v; want events before 41 told as gone", err)
	}
	evs, err := collect(t, c, trimmed.First-1, 100)
	if err != nil || len(evs) != 60 {
		t.Fatalf("Read after the gap: got %d events, %v", len(evs), err)
	}
	checkNumbers(t, evs, 40)
	if _, err := collect(t, c, 40, 100); err != nil {
		t.Fatalf("Read from the first on: %s", err)
	}

	late := c.Reader(0, 20)
	defer late.Close()
	for errors.Is(err, ErrIdle) || err == nil {
		_, err = late.Next(t.Context())
	}
	if !errors.As(err, &trimmed) || trimmed.Pos != 20 || trimmed.First != 41 || late.Pos() != 40 {
		t.Fatalf("Next: got %v, at %d; want events before 41 told as gone", err, late.Pos())
	}
	checkNumbers(t, readUntil(t, late, 60), 40)

	// A partition without events is told, too: nobody knows what was there.
	purge(t, srv, 101)
	if _, err := collect(t, c, 50, 100); !errors.As(err, &trimmed) || trimmed.First != 101 {
		t.Fatalf("Read of what is gone: got %v", err)
	}
	if _, err := collect(t, c, 100, 100); err != nil {
		t.Fatalf("Read of nothing: %s", err)
	}
	pub.Publish("websocket.c.a.chats", body(100))
	checkNumbers(t, readUntil(t, r, 1), 100)
}

// TestTrimmedUnderTheReader: the consumer steps over what is dropped while it
// waits; the batch that did so must not be taken for complete.
func TestTrimmedUnderTheReader(t *testing.T) {
	srv := natstest.Start(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
	pub := srv.Publisher(t)
	for i := range 100 {
		pub.Publish("websocket.c.a.chats", body(i))
	}
	r := c.Reader(0, 10)
	defer r.Close()
	until(t, "looked at", func() bool { return c.Stream().Last == 100 })
	// The consumer checks the stream, then finds 11..40 gone.
	for r.cons == nil || r.cons.phase != checking {
		_, ch := r.prepare(time.Now())
		if _, _, err := r.take(t.Context(), <-ch); err != nil {
			t.Fatal(err)
		}
	}
	m := <-r.cons.ch
	purge(t, srv, 41)
	_, _, err := r.take(t.Context(), m)
	for err == nil || errors.Is(err, ErrIdle) {
		_, err = r.Next(t.Context())
	}
	var trimmed *TrimmedError
	if !errors.As(err, &trimmed) || trimmed.Pos != 10 || trimmed.First != 41 {
		t.Fatalf("got %v; want events before 41 told as gone", err)
	}
	checkNumbers(t, readUntil(t, r, 60), 40)
}

func purge(t testing.TB, srv *natstest.Server, first uint64) {
	t.Helper()
	s, err := srv.JetStream(t).Stream(t.Context(), "dws_events")
	if err == nil {
		err = s.Purge(t.Context(), jetstream.WithPurgeSequence(first))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestLastOf(t *testing.T) {
	srv := natstest.Start(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true})
	if first, last, err := c.LastSeq(t.Context()); first != 1 || last != 0 || err != nil {
		t.Fatalf("empty: got %d, %d, %v; want 1, 0", first, last, err)
	}
	pub := srv.Publisher(t)
	chat := session.Route{Company: "c", Agent: "a", Kind: "messages", Chat: "x.y"}
	pub.Publish(Subject(chat), `{"seq":5,"a":"\"seq\":6"}`)
	pub.Publish("websocket.c.a.chats", `{"big":"`+strings.Repeat("x", 1<<20-20)+`"}`)
	pub.Publish("websocket.c.b.chats", `{}`)
	until(t, "sourced", func() bool { _, last, err := c.LastSeq(t.Context()); return err == nil && last == 3 })
	f := func(want uint64, subjects ...string) {
		t.Helper()
		got, err := c.LastOf(t.Context(), subjects...)
		if err != nil || got != want {
			t.Fatalf("%v: got %d, %v; want %d", subjects, got, err, want)
		}
	}
	n := session.Partition("c", "a", 64)
	f(1, EventsSubject(-1, 64, chat))
	f(2, EventsSubject(n, 64, session.Route{Company: "c", Agent: "a", Kind: "*"}))
	f(2, EventsSubject(-1, 64, chat), PartitionSubject(n))
	f(0, EventsSubject(-1, 64, session.Route{Company: "c", Agent: "nobody", Kind: "*"}))
	f(0)
	var got []session.Event
	err := c.ReadSubject(t.Context(), EventsSubject(-1, 64, chat), 0, 3, func(evs []session.Event) error {
		got = append(got, evs...)
		return nil
	})
	if err != nil || len(got) != 1 || got[0].Route != chat {
		t.Fatalf("got %v, %v; want the one message of the chat", got, err)
	}
}
