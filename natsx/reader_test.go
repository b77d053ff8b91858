package natsx

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/daisi/daisi-ws/natsx/natstest"
	"github.com/daisi/daisi-ws/session"
)

// TestReaderOrder publishes 20,000 events over 64 partitions and reads each
// partition twice at the same time.
func TestReaderOrder(t *testing.T) {
	const total, agents = 20000, 300
	srv := natstest.StartProcess(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true})
	readers := startReaders(t, c, 2)

	pub := srv.Publisher(t)
	want := make(map[string]int) // by agent
	for range total {
		agent := fmt.Sprintf("agent%d", rand.IntN(agents))
		pub.Send("websocket.acme."+agent+".chats", []byte(body(want[agent])))
		want[agent]++
	}
	pub.Flush()

	for i, r := range readers {
		until(t, fmt.Sprintf("events of copy %d", i), func() bool { return r.len() >= total })
		got := map[string]int{}
		for n, evs := range r.all() {
			var last uint64
			for _, ev := range evs {
				if ev.Seq <= last {
					t.Fatalf("partition %d: seq %d after %d", n, ev.Seq, last)
				}
				last = ev.Seq
				if w := body(got[ev.Route.Agent]); string(ev.Body) != w {
					t.Fatalf("%s: got %s; want %s", ev.Route.Agent, ev.Body, w)
				}
				got[ev.Route.Agent]++
			}
		}
		if len(got) != len(want) || r.len() != total {
			t.Fatalf("got %d agents and %d events; want %d and %d", len(got), r.len(), len(want), total)
		}
	}
}

// copyOf collects what one set of readers, one a partition, reads.
type copyOf struct {
	mu  sync.Mutex
	evs map[int][]session.Event
	n   int
}

func (c *copyOf) add(n int, evs []session.Event) {
	c.mu.Lock()
	c.evs[n] = append(c.evs[n], evs...)
	c.n += len(evs)
	c.mu.Unlock()
}

func (c *copyOf) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (c *copyOf) all() map[int][]session.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.evs)
}

// startReaders reads all partitions copies times over, until the test ends.
func startReaders(t testing.TB, c *Client, copies int) []*copyOf {
	t.Helper()
	s := ready(t, c)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	var all []*copyOf
	for range copies {
		to := &copyOf{evs: map[int][]session.Event{}}
		all = append(all, to)
		for n := range s.Partitions {
			r := c.Reader(n, s.Last)
			wg.Go(func() {
				defer r.Close()
				for ctx.Err() == nil {
					evs, err := r.Next(ctx)
					if err != nil && !errors.Is(err, ErrIdle) && ctx.Err() == nil {
						t.Errorf("partition %d: %s", n, err)
						return
					}
					to.add(n, evs)
				}
			})
		}
	}
	return all
}

// TestPartition compares session.Partition with what the server computes.
func TestPartition(t *testing.T) {
	f := func(t *testing.T, partitions int) {
		t.Helper()
		srv := natstest.Start(t)
		c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: partitions})
		const total = 2000
		pub := srv.Publisher(t)
		for range total {
			pub.Send("websocket."+randomID()+"."+randomID()+".chats", []byte(`{}`))
		}
		pub.Flush()
		got := 0
		until(t, "events sourced", func() bool {
			_, last, err := c.LastSeq(t.Context())
			return err == nil && last == total
		})
		for n := range partitions {
			err := c.Read(t.Context(), n, 0, total, func(evs []session.Event) error {
				for _, ev := range evs {
					if p := session.Partition(ev.Route.Company, ev.Route.Agent, partitions); p != n {
						t.Errorf("%q %q: server says %d, session.Partition %d", ev.Route.Company, ev.Route.Agent, n, p)
					}
					got++
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if got != total {
			t.Fatalf("got %d events; want %d; poison %v", got, total, c.Poison())
		}
	}
	t.Run("64", func(t *testing.T) { f(t, 64) })
	t.Run("1", func(t *testing.T) { f(t, 1) })
	t.Run("37", func(t *testing.T) { f(t, 37) })
}

// randomID is any id that CheckTenantID accepts and a client may publish to.
func randomID() string {
	const ascii = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_:@/%{}$#\"'\\|~+=?!&"
	runes := []rune(ascii + "äßπЖ中🙂é")
	var b strings.Builder
	for range 1 + rand.IntN(24) {
		b.WriteRune(runes[rand.IntN(len(runes))])
	}
	return b.String()
}

func TestReaderRoutes(t *testing.T) {
	srv := natstest.Start(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
	r := c.Reader(0, 0)
	defer r.Close()
	pub := srv.Publisher(t)
	f := func(subject string, want session.Route) {
		t.Helper()
		pub.Publish(subject, `{}`)
		if got := readUntil(t, r, 1)[0].Route; got != want {
			t.Fatalf("%s: got %+v; want %+v", subject, got, want)
		}
		if got := Subject(want); got != subject {
			t.Fatalf("Subject: got %s; want %s", got, subject)
		}
	}
	f("websocket.c.a.messages.628@s.whatsapp.net", session.Route{Company: "c", Agent: "a", Kind: "messages", Chat: "628@s.whatsapp.net"})
	f("websocket.c.a.messages.a.b.c.d.e", session.Route{Company: "c", Agent: "a", Kind: "messages", Chat: "a.b.c.d.e"})
	f("websocket.c.a.agents", session.Route{Company: "c", Agent: "a", Kind: "agents"})
	f("websocket.c.a.other", session.Route{Company: "c", Agent: "a", Kind: "other"})
	f("websocket.dws.{{wildcard(1)}}.$1", session.Route{Company: "dws", Agent: "{{wildcard(1)}}", Kind: "$1"})
	f("websocket.中.ag-1_%.chats", session.Route{Company: "中", Agent: "ag-1_%", Kind: "chats"})

	// A reader may be asked for what begins anywhere.
	second := c.Reader(0, 2)
	defer second.Close()
	if got := readUntil(t, second, 4)[0].Route.Kind; got != "agents" {
		t.Fatalf("got kind %s; want agents", got)
	}
}

// TestReaderBodies sends bodies of 10 B to 1 MiB, more than one pull may bring.
func TestReaderBodies(t *testing.T) {
	srv := natstest.Start(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true})
	r := c.Reader(session.Partition("c", "a", 64), 0)
	defer r.Close()
	pub := srv.Publisher(t)
	var want []string
	for i := range 60 {
		size := []int{10, 300, 70_000, 1 << 20}[i%4]
		s := fmt.Sprintf(`{"n":%d,"v":"`, i%10)
		want = append(want, s+strings.Repeat("x", max(0, size-len(s)-2))+`"}`)
		pub.Send("websocket.c.a.chats", []byte(want[i]))
	}
	pub.Flush()
	for i, ev := range readUntil(t, r, len(want)) {
		if string(ev.Body) != want[i] {
			t.Fatalf("body %d of %d bytes differs", i, len(want[i]))
		}
	}
	checkNoRestarts(t, c, restartSilent)
}

// TestReaderBacklog reads what piled up, many pulls' worth, with one consumer.
func TestReaderBacklog(t *testing.T) {
	const total = 6000
	srv := natstest.Start(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
	pub := srv.Publisher(t)
	for i := range total {
		pub.Send("websocket.c.a.chats", []byte(body(i)))
	}
	pub.Flush()
	r := c.Reader(0, 0)
	defer r.Close()
	checkNumbers(t, readUntil(t, r, total), 0)
	checkNoRestarts(t, c, restartSilent)
	if lag := c.lag(); lag != 0 {
		t.Fatalf("lag %v at the end", lag)
	}
}

// checkNoRestarts fails when a reader took another consumer, for another reason
// than those excused. Megabytes on a machine that stands still now and then
// excuse silence: nothing is lost by it.
func checkNoRestarts(t testing.TB, c *Client, excused ...restartReason) {
	t.Helper()
	for why, n := range c.m.restarts {
		if n.Get() != 0 && !slices.Contains(excused, restartReason(why)) {
			t.Fatalf("%d restarts: %s", n.Get(), restartReason(why))
		}
	}
}

func TestReaderPoison(t *testing.T) {
	srv := natstest.Start(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
	r := c.Reader(0, 0)
	defer r.Close()
	pub := srv.Publisher(t)
	f := func(why PoisonReason, subject, body string) {
		t.Helper()
		pub.Publish(subject, body)
		good := pub.Publish("websocket.c.a.chats", `{"good":1}`)
		evs := readUntil(t, r, 1)
		if len(evs) != 1 || evs[0].Seq != good || r.Pos() != good {
			t.Fatalf("got %+v; want only seq %d", evs, good)
		}
		list := c.Poison()
		if p := list[len(list)-1]; p.Seq != good-1 || p.Reason != why || p.Stream != c.Stream().ID {
			t.Fatalf("listed %+v; want seq %d, %s", p, good-1, why)
		}
	}
	f(PoisonBody, "websocket.c.a.chats", ``)
	f(PoisonBody, "websocket.c.a.chats", `[1]`)
	f(PoisonBody, "websocket.c.a.chats", `{"a":1}{"b":2}`)
	f(PoisonBody, "websocket.c.a.chats", "{\"a\":\"\xff\"}")
	f(PoisonSize, "websocket.c.a.chats", `{"a":"`+strings.Repeat("x", 1<<20)+`"}`)
	f(PoisonSize, "websocket.c.a.chats", `{"a":"`+strings.Repeat("x", 3<<20)+`"}`) // more than a pull brings
	f(PoisonSubject, "websocket.c.a.messages", `{}`)
	f(PoisonSubject, "websocket.c.a\x01.chats", `{}`)
	f(PoisonSubject, "websocket.*admin.a.chats", `{}`)
	f(PoisonSubject, "websocket.c\xff.a.chats", `{}`)
	f(PoisonSubject, "websocket."+strings.Repeat("c", 257)+".a.chats", `{}`)

	// Met again by a repair it is not counted again, nor handed over.
	before := len(c.Poison())
	n := 0
	if err := c.Read(t.Context(), 0, 0, r.Pos(), func(evs []session.Event) error { n += len(evs); return nil }); err != nil {
		t.Fatal(err)
	}
	if n != before || len(c.Poison()) != before {
		t.Fatalf("got %d events, %d poison; want %d and %d", n, len(c.Poison()), before, before)
	}

	// Poison alone moves the position.
	bad := pub.Publish("websocket.c.a.chats", `x`)
	until(t, "position past poison", func() bool {
		if evs, err := r.Next(t.Context()); !errors.Is(err, ErrIdle) {
			t.Fatalf("got %v, %v; want ErrIdle", evs, err)
		}
		return r.Pos() == bad
	})
}

func TestReaderIdle(t *testing.T) {
	srv := natstest.Start(t)
	c := start(t, Options{URL: srv.URL, CreateStream: true})
	r := c.Reader(0, 0)
	for range 8 { // longer than a silence
		if evs, err := r.Next(t.Context()); !errors.Is(err, ErrIdle) {
			t.Fatalf("got %v, %v; want ErrIdle", evs, err)
		}
	}
	checkNoRestarts(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v; want canceled", err)
	}
	r.Close()
	until(t, "consumer given back", func() bool { return srv.DeleteConsumers(t, "dws_events") == 0 })

	unready, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	early := unready.Reader(0, 0)
	defer early.Close()
	if _, err := early.Next(t.Context()); !errors.Is(err, ErrNotConnected) {
		t.Fatalf("got %v; want %v", err, ErrNotConnected)
	}
}
