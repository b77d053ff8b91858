package server_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server/clustertest"
)

// Redis fails over: who logged in or selected a chat just before may have been
// unknown to the new master for a moment, and is told so, with a place to
// resume from; the one that knows no gaps is closed 4408.
func TestFailoverTellsRoutesThatMayBeLost(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2, Redis: clustertest.RedisSentinel})
	publish := func(id string) { c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body(id)) }
	modern, legacy := c.Dial(c.Pods[0], user("acme", "ag1", "u1"), "resume="), c.Dial(c.Pods[1], user("acme", "ag1", "u2"))
	publish("one")
	wantEvents(t, "before", modern, "one")
	wantEvents(t, "before", legacy, "one")
	c.Sentinel.KillMaster()
	told, ok := modern.Await(arrival, func(f clustertest.Frame) bool { return f.Type == "gap" })
	if !ok {
		t.Fatalf("no gap; got %v, closed %v", modern.Frames(), modern.Closed())
	}
	var gap struct {
		From, To   uint64
		Reason     string
		Replayable bool
	}
	_ = json.Unmarshal(told.Payload, &gap)
	if gap.Reason != "routes_lost" || !gap.Replayable || gap.From > 1 || gap.To < 1 {
		t.Errorf("gap %+v", gap)
	}
	if end, ok := legacy.AwaitClose(arrival); !ok || end.Code != 4408 {
		t.Errorf("client that knows no gaps: %+v", end)
	}
	publish("two")
	if !modern.AwaitEvents(arrival, 2) {
		t.Fatalf("%d events, closed %v", len(modern.Events()), modern.Closed())
	}
	// What it was told is there.
	stream, _ := place(modern)
	modern.Send(`{"type":"resume","payload":{"stream":"` + stream + `","seq":0}}`)
	if !modern.AwaitEvents(arrival, 4) {
		t.Errorf("%d events after a resume from before the gap", len(modern.Events()))
	}
}

// A master that has nothing at all, not even incarnations, is another matter:
// no lookup there can be taken for a whole one before all is written again, so
// nobody is told of anything, and nothing is lost.
func TestFailoverToAMasterThatHasNothing(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2, Redis: clustertest.RedisSentinel})
	publish := func(id string) { c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body(id)) }
	modern, legacy := c.Dial(c.Pods[0], user("acme", "ag1", "u1"), "resume="), c.Dial(c.Pods[1], user("acme", "ag1", "u2"))
	publish("one")
	wantEvents(t, "before", modern, "one")
	wantEvents(t, "before", legacy, "one")
	replica := c.Sentinel.Servers[1]
	replica.Do("CONFIG", "SET", "replica-read-only", "no")
	replica.Do("FLUSHALL")
	c.Sentinel.KillMaster()
	want := []string{"one"}
	for i := range 20 { // some while the pods come to the new master
		want = append(want, fmt.Sprintf("after-%02d", i))
		publish(want[len(want)-1])
		time.Sleep(50 * time.Millisecond)
	}
	for _, client := range []*clustertest.Client{modern, legacy} {
		wantEvents(t, "after", client, want...)
		if client.Count("gap") > 0 || client.Closed() != nil {
			t.Errorf("%d gaps, closed %v", client.Count("gap"), client.Closed())
		}
	}
	if old := replica.Do("GET", "inc:{p0}"); old == nil {
		t.Error("no incarnation on the new master")
	}
}
