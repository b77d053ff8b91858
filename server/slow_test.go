package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/daisi/daisi-ws/server"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// gapOf reads a gap frame.
func gapOf(t *testing.T, f clustertest.Frame) (g struct {
	From, To   uint64
	Reason     string
	Replayable bool
},
) {
	t.Helper()
	if err := json.Unmarshal(f.Payload, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// A client that does not read for a while misses events where that is the
// policy: it stays, is told exactly which, and can have them again. One that
// knows no gaps is closed.
func TestSlowIsToldOfGaps(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Options: func(_ int, o *server.Options) {
		o.Limits.SendBudget, o.Limits.Slow, o.Resume.MaxBytes = 64<<10, server.SlowGap, 16<<20
	}})
	pod := c.Pods[0]
	fast := c.Dial(pod, user("acme", "ag1", "fast"), "resume=")
	slow := c.Dial(pod, user("acme", "ag1", "slow"), "resume=")
	legacy := c.Dial(pod, user("acme", "ag1", "legacy"))
	read, readToo := slow.Pause(), legacy.Pause()
	pad := strings.Repeat("x", 12<<10)
	var want []string
	publish := func(n int) {
		for range n {
			id := fmt.Sprintf("e%03d", len(want))
			want = append(want, id)
			c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), fmt.Sprintf(`{"event_id":%q,"pad":%q}`, id, pad))
			fast.AwaitEvents(arrival, len(want)) // never over its own budget
		}
	}
	publish(200) // 2.4 MB: more than the budget and what the kernels of both ends keep
	wantEvents(t, "who reads", fast, want...)
	readToo()
	if _, ok := legacy.AwaitClose(arrival); !ok || pod.Metrics()[`dws_session_ends_total{reason="slow"}`] != 1 {
		t.Errorf("one that knows no gaps ended: %v", ok)
	}
	read()
	c.Eventually(arrival, "the slow one is told, and goes on", func() bool {
		publish(1)
		got := slow.Events()
		return slow.Count("gap") > 0 && len(got) > 0 && got[len(got)-1].Field("event_id") > "e200"
	})
	if !fast.AwaitEvents(arrival, len(want)) || slow.Closed() != nil {
		t.Fatalf("%d of %d events, closed %v", fast.Count("event"), len(want), slow.Closed())
	}
	ids, seqs := map[uint64]string{}, []uint64{}
	for _, f := range fast.Events() {
		ids[f.Seq] = f.Field("event_id")
		seqs = append(seqs, f.Seq)
	}
	slow.Await(arrival, func(f clustertest.Frame) bool { return f.Seq == seqs[len(seqs)-1] })
	var first uint64
	missed := 0
	for _, f := range slow.Frames() {
		switch f.Type {
		case "event":
			if len(seqs) == 0 || f.Seq != seqs[0] {
				t.Fatalf("event %d, untold: %d are missing before it", f.Seq, len(seqs))
			}
			if f.Field("event_id") != ids[f.Seq] {
				t.Errorf("%s at %d", f.Field("event_id"), f.Seq)
			}
			seqs = seqs[1:]
		case "gap":
			g := gapOf(t, f)
			if g.Reason != "slow" || !g.Replayable || seqs[0] != g.From && seqs[0] != g.From+1 {
				t.Errorf("%s, while %d is due", f.Payload, seqs[0])
			}
			if first == 0 {
				first = g.From
			}
			for len(seqs) > 0 && seqs[0] <= g.To {
				seqs, missed = seqs[1:], missed+1
			}
		}
	}
	if missed == 0 || len(seqs) > 0 {
		t.Errorf("%d missed, %d neither given nor told", missed, len(seqs))
	}
	t.Logf("%d of %d missed, in %d gaps", missed, len(want), slow.Count("gap"))

	again(t, c, slow, first, missed, ids)
}

// again has a client ask for what it missed from first on: it comes, in order.
func again(t *testing.T, c *clustertest.Cluster, slow *clustertest.Client, first uint64, missed int, ids map[uint64]string) {
	t.Helper()
	last := slices.Max(slices.Collect(maps.Keys(ids)))
	stream, _ := place(slow)
	had := slow.Count("event")
	slow.Send(fmt.Sprintf(`{"type":"resume","payload":{"stream":%q,"seq":%d}}`, stream, first-1))
	c.Eventually(arrival, "all of it comes again", func() bool {
		list := slow.Events()
		return len(list) > had && list[len(list)-1].Seq == last
	})
	for i, f := range slow.Events()[had:] {
		if f.Seq < first || f.Field("event_id") != ids[f.Seq] {
			t.Errorf("replayed %d: %s at %d", i, f.Field("event_id"), f.Seq)
		}
	}
	if got := len(slow.Events()) - had; got < missed {
		t.Errorf("%d replayed, %d were missed", got, missed)
	}
}
