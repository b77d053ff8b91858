package server_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/daisi/daisi-ws/rpc/forwardpb"
	"github.com/daisi/daisi-ws/server"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// A failover by sentinel: sockets stay, what is published meanwhile comes, in
// order, and takeovers work again.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2, Redis: clustertest.RedisSentinel})
	// With gap frames, for they have logged in just before: see
	// TestFailoverTellsRoutesThatMayBeLost.
	a := c.Dial(c.Pods[0], user("acme", "ag1", "u1"), "chat=c1", "resume=")
	b := c.Dial(c.Pods[1], user("acme", "ag1", "u2"), "resume=")
	publish := func(id string) { c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body(id)) }
	publish("before")
	a.AwaitEvents(arrival, 1)
	c.Sentinel.Failover()
	publish("during")
	c.Publish(clustertest.Subject("acme", "ag1", "messages", "c1"), body("chat"))
	if !a.AwaitEvents(30*time.Second, 3) {
		t.Fatalf("%d events after the failover, closed %v", len(a.Events()), a.Closed())
	}
	t.Logf("told %d and %d gaps", a.Count("gap"), b.Count("gap"))
	again := c.Dial(c.Pods[1], user("acme", "ag1", "u1"))
	if end, ok := a.AwaitClose(arrival); !ok || end.Code != 4402 {
		t.Errorf("taken over after the failover: %+v", end)
	}
	publish("after")
	wantEvents(t, "stayed", b, "before", "during", "after")
	wantEvents(t, "newcomer", again, "after")
}

// Our stream deleted: made again, a new id, everybody told; later events come.
func TestOurStreamDeleted(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2})
	legacy := c.Dial(c.Pods[0], user("acme", "ag1", "u1"))
	modern := c.Dial(c.Pods[1], user("acme", "ag1", "u2"), "resume=")
	c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body("one"))
	modern.AwaitEvents(arrival, 1)
	legacy.AwaitEvents(arrival, 1)
	c.NATS.DeleteStream(t, "dws_events")
	if gap, ok := modern.Await(arrival, func(f clustertest.Frame) bool { return f.Type == "gap" }); !ok {
		t.Fatalf("no gap; got %v", modern.Frames())
	} else if got := string(gap.Payload); gap.Field("reason") != "stream_reset" {
		t.Errorf("gap %s", got)
	}
	if end, ok := legacy.AwaitClose(arrival); !ok || end.Code != 4408 {
		t.Errorf("client that knows no gaps: %+v", end)
	}
	legacy = c.Dial(c.Pods[0], user("acme", "ag1", "u1"))
	c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body("two"))
	wantEvents(t, "logged in again", legacy, "two")
	if !modern.AwaitEvents(arrival, 2) {
		t.Errorf("%d events", len(modern.Events()))
	}
}

// The publisher's stream deleted and made again: events since its return come.
func TestPublishersStreamDeleted(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 1})
	k := c.Dial(c.Pods[0], user("acme", "ag1", "u1"))
	c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body("one"))
	k.AwaitEvents(arrival, 1)
	c.NATS.DeleteStream(t, "wa_stream")
	c.Eventually(arrival, "an event of the new stream arrives", func() bool {
		c.TryPublish(clustertest.Subject("acme", "ag1", "chats", ""), body("again"), fmt.Sprint(time.Now().UnixNano()))
		return len(k.Events()) > 1
	})
}

// Consumers deleted under the readers: made again, nothing lost.
func TestConsumersDeleted(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2})
	k := c.Dial(c.Pods[0], user("acme", "ag1", "u1"))
	var want []string
	for i := range 30 {
		id := fmt.Sprintf("e%d", i)
		want = append(want, id)
		c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body(id))
		if i%10 == 5 {
			c.NATS.DeleteConsumers(t, "dws_events")
		}
	}
	wantEvents(t, "session", k, want...)
}

// A pod that ends in order: its sessions are told and freed, the pods that stay
// lose nothing, and it is off the live list at once.
func TestOrderlyStopUnderLoad(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Pods: 3})
	stays := c.Dial(c.Pods[0], user("acme", "ag1", "u0"))
	goes := c.Dial(c.Pods[2], user("acme", "ag1", "u2"))
	var want []string
	publish := func(n int) {
		for range n {
			id := fmt.Sprintf("e%d", len(want))
			want = append(want, id)
			c.Publish(clustertest.Subject("acme", fmt.Sprintf("ag%d", 1), "chats", ""), body(id))
		}
	}
	publish(50)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Pods[2].Term()
	}()
	publish(50)
	select {
	case <-done:
	case <-time.After(arrival):
		t.Fatal("the pod did not end")
	}
	publish(50)
	wantEvents(t, "client of a pod that stays", stays, want...)
	if end, ok := goes.AwaitClose(arrival); !ok || end.Code != 1001 {
		t.Errorf("client of the pod that went: %+v", end)
	}
	if m := c.Pods[0].Metrics(); m["dws_live_pods"] != 2 {
		c.Eventually(3*time.Second, "the pod is off the live list", func() bool { return c.Pods[0].Metrics()["dws_live_pods"] == 2 })
	}
}

// The legacy call of the old service delivers to the sessions of this pod.
func TestPushEvent(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Options: func(_ int, o *server.Options) { o.RPC.Legacy = true }})
	k := c.Dial(c.Pods[0], user("acme", "ag1", "u1"), "chat=c1")
	conn, err := grpc.NewClient(c.Pods[0].PeerAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := forwardpb.NewMessageForwardingServiceClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), arrival)
	defer cancel()
	row, _ := structpb.NewStruct(map[string]any{"text": "hello"})
	push := func(chat, id string) (*forwardpb.PushEventResponse, error) {
		return client.PushEvent(ctx, &forwardpb.PushEventRequest{
			Payload: &forwardpb.EnrichedEventPayloadMessage{
				EventId: id, CompanyId: "acme", AgentId: "ag1", ChatId: chat, EventType: "message", RowData: row,
			},
			TargetCompanyId: "acme", TargetAgentId: "ag1", TargetChatId: chat, SourcePodId: "old",
		})
	}
	if r, err := push("c1", "one"); err != nil || !r.Success {
		t.Errorf("to the chat: %v %v", r, err)
	}
	if r, err := push("c2", "two"); err != nil || r.Success || r.Message != "No active local connection for chat_id" {
		t.Errorf("to another chat: %v %v", r, err)
	}
	if r, err := push("", "three"); err != nil || !r.Success {
		t.Errorf("to all of the agent: %v %v", r, err)
	}
	if _, err := client.PushEvent(ctx, &forwardpb.PushEventRequest{TargetCompanyId: "acme"}); err == nil {
		t.Error("a missing payload is no error")
	}
	k.AwaitEvents(arrival, 2)
	got := k.Events()
	if len(got) != 2 || got[0].Field("event_id") != "one" || got[1].Field("event_id") != "three" {
		t.Errorf("got %v", got)
	}
}

// What is no event is skipped, listed, and harms nothing behind it.
func TestPoisonIsSkippedAndListed(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	k := c.Dial(c.Pods[0], user("acme", "ag1", "u1"))
	c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), `[1,2,3]`)
	c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), `{"event_id":"two"`)
	c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body("three"))
	wantEvents(t, "session", k, "three")
	a, err := c.Do("GET", c.Pods[0].InternalURL()+"/admin/poison", "", "X-API-Key: "+clustertest.AdminKey)
	list, _ := a.JSON()["poison"].([]any)
	if err != nil || len(list) != 2 {
		t.Errorf("listed %d: %s %v", len(list), a.Body, err)
	}
}
