package server_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// place is where a client stands, for ?resume=: the stream of its ready, and
// the last seq it was given or told.
func place(k *clustertest.Client) (stream string, seq uint64) {
	for _, f := range k.Frames() {
		var p struct {
			Stream string
			Seq    uint64
			To     uint64
		}
		_ = json.Unmarshal(f.Payload, &p)
		switch f.Type {
		case "ready":
			if p.Stream != "" {
				stream, seq = p.Stream, p.Seq
			}
		case "event":
			seq = f.Seq
		case "cursor":
			seq = p.Seq
		case "gap":
			seq = p.To
		}
	}
	return stream, seq
}

func resuming(k *clustertest.Client) string {
	stream, seq := place(k)
	return fmt.Sprintf("resume=%s:%d", stream, seq)
}

// feed publishes events of ag1 in turn for everybody, for chat c1, for another
// chat and for another agent, and remembers those that a session of c1 wants.
type feed struct {
	c    *clustertest.Cluster
	n    int
	want []string
}

func (f *feed) publish(n int) {
	for range n {
		f.n++
		id := fmt.Sprintf("e%04d", f.n)
		switch f.n % 5 {
		case 0:
			f.c.Publish(clustertest.Subject("acme", "ag1", "messages", "c2"), body(id))
		case 1:
			f.c.Publish(clustertest.Subject("acme", "ag2", "chats", ""), body(id))
		case 2:
			f.c.Publish(clustertest.Subject("acme", "ag1", "messages", "c1"), body(id))
			f.want = append(f.want, id)
		default:
			f.c.Publish(clustertest.Subject("acme", "ag1", []string{"chats", "agents"}[f.n%2], ""), body(id))
			f.want = append(f.want, id)
		}
	}
}

// A client that was away while 300 events came gets those it wants on another
// pod, once and in order, then the live ones; without resume it misses all of
// them. The chat that it selected moves along.
func TestResumeOnAnotherPod(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Pods: 2, Processes: true})
	alice, bob, carol := user("acme", "ag1", "alice"), user("acme", "ag1", "bob"), user("acme", "ag1", "carol")
	a, b := c.Dial(c.Pods[0], alice, "resume="), c.Dial(c.Pods[0], bob, "resume=")
	quiet := c.Dial(c.Pods[0], carol, "resume=", "chat=c1") // goes before any event came
	a.Select("c1")
	b.Select("c1")
	quiet.Close()
	f := &feed{c: c}
	f.publish(20)
	wantEvents(t, "before", a, f.want...)
	b.AwaitEvents(arrival, len(f.want))
	a.Close()
	b.Close()
	before := len(f.want)
	f.publish(300)
	missed := f.want[before:]
	again := c.Dial(c.Pods[1], alice, resuming(a))
	deaf := c.Dial(c.Pods[1], bob) // the control
	if !again.AwaitEvents(arrival, len(missed)) {
		t.Errorf("%d of %d missed events", len(again.Events()), len(missed))
	}
	f.publish(10)
	wantEvents(t, "resumed", again, f.want[before:]...)
	wantEvents(t, "not resumed", deaf, f.want[before+len(missed):]...)
	if n := len(missed); n != 180 {
		t.Fatalf("%d events were there to be missed", n)
	}
	wantEvents(t, "resumed from its ready", c.Dial(c.Pods[1], carol, resuming(quiet)), f.want...)

	// In-band, on the same socket: everything again.
	stream, _ := place(a)
	deaf.Send(fmt.Sprintf(`{"type":"resume","payload":{"stream":%q,"seq":%d}}`, stream, deaf.Events()[3].Seq))
	live := f.want[before+len(missed):]
	rewound := slices.Concat(live, live[4:])
	if !deaf.AwaitEvents(arrival, len(rewound)) {
		t.Fatalf("%d events after a rewind, want %d", len(deaf.Events()), len(rewound))
	}
	f.publish(5)
	rewound = append(rewound, f.want[before+len(missed)+len(live):]...)
	deaf.AwaitEvents(arrival, len(rewound))
	var got []string
	for _, e := range deaf.Events() {
		got = append(got, e.Field("event_id"))
	}
	if !slices.Equal(got, rewound) {
		t.Errorf("after a rewind got %v; want %v", got, rewound)
	}
	for _, p := range c.Pods {
		p.Check()
	}
}

// Outside its bounds a resume is answered by one gap over all of it, and
// nothing else; the session is live then.
func TestResumeOutsideItsBounds(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 1, Options: func(_ int, o *server.Options) {
		o.Resume = server.ResumeOptions{Window: 3 * time.Second, MaxEvents: 20, MaxBytes: 4 << 10}
	}})
	alice := user("acme", "ag1", "alice")
	publish := func(n, size int) {
		for i := range n {
			c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), fmt.Sprintf(`{"event_id":"m%d","text":"%*d"}`, i, size, i))
		}
	}
	k := c.Dial(c.Pods[0], alice, "resume=")
	live := 0
	f := func(name, query string, from, to uint64, why string) {
		t.Helper()
		k.Close()
		k = c.Dial(c.Pods[0], alice, query)
		if _, ok := k.Await(arrival, func(f clustertest.Frame) bool { return f.Type == "gap" }); !ok {
			t.Fatalf("%s: no gap; got %v", name, k.Frames())
		}
		live++
		id := fmt.Sprintf("live%d", live)
		c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body(id))
		wantEvents(t, name, k, id)
		var gap struct {
			From, To   uint64
			Reason     string
			Replayable bool
		}
		for _, f := range k.Frames() {
			if f.Type == "gap" {
				_ = json.Unmarshal(f.Payload, &gap)
			}
		}
		if k.Count("gap") != 1 || gap.From != from || gap.To != to || gap.Reason != why || gap.Replayable {
			t.Errorf("%s: %d gaps, the last %+v; want [%d, %d] %s", name, k.Count("gap"), gap, from, to, why)
		}
	}
	stream, seq := place(k)
	at := func(seq uint64) string { return fmt.Sprintf("resume=%s:%d", stream, seq) }
	publish(5, 1)
	f("another stream", "resume=x:2", 1, seq+5, "stream_reset")
	_, seq = place(k)
	f("a seq that is not there yet", at(seq+1000), seq, seq, "beyond_last")
	_, seq = place(k)
	publish(21, 1)
	f("too many", at(seq), seq+1, seq+21, "too_many_events")
	_, seq = place(k)
	publish(5, 1000)
	f("too large", at(seq), seq+1, seq+5, "too_many_bytes")
	_, seq = place(k)
	publish(1, 1)
	time.Sleep(3500 * time.Millisecond) // the window passes
	f("too old", at(seq), seq+1, seq+1, "window")
	k.Close()
	_, seq = place(k)
	publish(3, 1)
	wantEvents(t, "within the bounds", c.Dial(c.Pods[0], alice, at(seq)), "m0", "m1", "m2")
}

// The pod that a client was on, and that read for it, is killed: on another pod
// it gets the rest at once from the stream, then live.
func TestResumeAfterAKill(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2, Processes: true})
	const agents = 16 // about half of them were read by the pod that dies
	key := func(i int) string { return fmt.Sprintf("ag%d", i) }
	var clients []*clustertest.Client
	var want []string
	publish := func(n int) {
		for range n {
			id := fmt.Sprintf("e%d", len(want))
			want = append(want, id)
			for i := range agents {
				c.Publish(clustertest.Subject("acme", key(i), "chats", ""), body(id))
			}
		}
	}
	for i := range agents {
		clients = append(clients, c.Dial(c.Pods[0], user("acme", key(i), "u"), "resume="))
	}
	publish(3)
	for _, k := range clients {
		k.AwaitEvents(arrival, 1) // some have more when the pod goes, some less
	}
	publish(3)
	c.Pods[0].Kill()
	publish(3)
	owed := make([]int, agents) // where in want each client's new socket begins
	for i, k := range clients {
		if _, ok := k.AwaitClose(arrival); !ok {
			t.Fatal("a socket of the killed pod is open")
		}
		owed[i] = len(k.Events())
		clients[i] = c.Dial(c.Pods[1], user("acme", key(i), "u"), resuming(k))
	}
	publish(2)
	for i, k := range clients {
		wantEvents(t, "resumed "+key(i), k, want[owed[i]:]...)
	}
	publish(2)
	for i, k := range clients {
		wantEvents(t, "live again "+key(i), k, want[owed[i]:]...)
	}
}

// A client that comes back while NATS stands still is let in, and gets what it
// missed, and what came meanwhile, when NATS goes on.
func TestResumeWhileNATSStandsStill(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2})
	alice := user("acme", "ag1", "alice")
	k := c.Dial(c.Pods[0], alice, "resume=")
	k.Select("c1")
	f := &feed{c: c}
	f.publish(5)
	wantEvents(t, "before", k, f.want...)
	k.Close()
	before := len(f.want)
	f.publish(50)
	c.NATS.Stop()
	again := c.Dial(c.Pods[1], alice, resuming(k))
	time.Sleep(6 * time.Second) // longer than a call to NATS waits
	c.NATS.Cont()
	f.publish(10)
	wantEvents(t, "resumed", again, f.want[before:]...)
}
