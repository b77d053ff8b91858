package server_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server/clustertest"
	"github.com/daisi/daisi-ws/session"
)

const arrival = 15 * time.Second // -race on a busy machine

func user(company, agent, id string) session.Key {
	return session.Key{Company: company, Agent: agent, User: id}
}

// body is an event's body that a test recognises.
func body(id string) string {
	return fmt.Sprintf(`{"event_id":%q,"row_data":{"n":12345678901234567890}}`, id)
}

// wantEvents checks that a client got exactly these event ids, in order.
func wantEvents(t *testing.T, who string, k *clustertest.Client, ids ...string) {
	t.Helper()
	k.AwaitEvents(arrival, len(ids))
	if err := k.Barrier(); err != nil {
		t.Errorf("%s: %v, closed %v", who, err, k.Closed())
	}
	events := k.Events()
	got := make([]string, len(events))
	last := uint64(0)
	for i, e := range events {
		got[i] = e.Field("event_id")
		if e.Seq <= last {
			t.Errorf("%s: seq %d after %d", who, e.Seq, last)
		}
		last = e.Seq
	}
	for i := range min(len(got), len(ids)) {
		if got[i] != ids[i] {
			t.Errorf("%s: event %d of %d is %q, want %q of %d; about there: %s", who, i, len(got), got[i], ids[i], len(ids), around(events, i))
			return
		}
	}
	if len(got) != len(ids) {
		t.Errorf("%s got %d events, want %d; the last was %v", who, len(got), len(ids), got[max(0, len(got)-1):])
	}
}

// around names the events about the i-th, with their seqs.
func around(events []clustertest.Frame, i int) string {
	var b strings.Builder
	for _, e := range events[max(0, i-5):min(len(events), i+20)] {
		fmt.Fprintf(&b, " %s@%d", e.Field("event_id"), e.Seq)
	}
	return b.String()
}

func TestEveryEventReachesEverySessionThatWantsIt(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{clustertest.RedisSingle, clustertest.RedisCluster, clustertest.RedisSentinel} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c := clustertest.Start(t, clustertest.Options{Pods: 3, Redis: kind})
			const dotted, other = "628@s.whatsapp.net", "628@s.whatsapp"
			var all, dottedOnes []*clustertest.Client
			for i, p := range c.Pods {
				a := c.Dial(p, user("acme", "ag1", fmt.Sprintf("u%d", i)))
				b := c.Dial(p, user("acme", "ag1", fmt.Sprintf("v%d", i)), "chat="+other)
				a.Select(dotted)
				all, dottedOnes = append(all, a, b), append(dottedOnes, a)
			}
			stranger := c.Dial(c.Pods[1], user("evil", "ag1", "u0"))
			stranger.Select(dotted)
			neighbour := c.Dial(c.Pods[2], user("acme", "ag2", "u0"))

			c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body("one"))
			c.Publish(clustertest.Subject("acme", "ag1", "messages", dotted), body("two"))
			c.Publish(clustertest.Subject("acme", "ag1", "contacts", ""), body("three"))
			c.Publish(clustertest.Subject("evil", "ag1", "chats", ""), body("theirs"))
			c.Publish(clustertest.Subject("acme", "ag2", "agents", ""), body("neighbour"))
			c.Publish(clustertest.Subject("acme", "ag1", "agents", ""), body("four"))
			for i, k := range all {
				if i%2 == 0 {
					wantEvents(t, "session of the chat", k, "one", "two", "three", "four")
				} else {
					wantEvents(t, "session of another chat", k, "one", "three", "four")
				}
			}
			wantEvents(t, "other company", stranger, "theirs")
			wantEvents(t, "other agent", neighbour, "neighbour")
			raw, _ := json.Marshal(dottedOnes[0].Events()[1].Payload)
			if want := `{"event_id":"two","row_data":{"n":12345678901234567890},"event_type":"message"}`; string(raw) != want {
				t.Errorf("body %s, want %s", raw, want)
			}
			for _, p := range c.Pods {
				p.Check()
			}
		})
	}
}

func TestTheNewestSocketOfAUserIsTheOnlyOne(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2})
	key := user("acme", "ag1", "u1")
	sockets := []*clustertest.Client{c.Dial(c.Pods[0], key)}
	for i, p := range []int{0, 1, 1, 0, 1} {
		k := c.Dial(c.Pods[p], key)
		ready := k.Frames()[0]
		old := sockets[i]
		end, ok := old.AwaitClose(arrival)
		if !ok || end.Code != 4402 || end.Reason != "session-replaced" {
			t.Fatalf("takeover %d on pod %d: old socket ended %+v", i, p, end)
		}
		if end.At.After(ready.At) && end.At.Sub(ready.At) > 100*time.Millisecond {
			t.Errorf("takeover %d: the old socket ended %v after the newcomer's ready", i, end.At.Sub(ready.At))
		}
		told := old.Frames()[len(old.Frames())-1]
		if told.Type != "error" || told.Field("code") != "SessionConflict" {
			t.Errorf("takeover %d: last word %s %s", i, told.Type, told.Payload)
		}
		sockets = append(sockets, k)
	}
	c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body("one"))
	newest := sockets[len(sockets)-1]
	wantEvents(t, "newest", newest, "one")
	for i, k := range sockets[:len(sockets)-1] {
		if n := len(k.Events()); n != 0 {
			t.Errorf("socket %d got %d events", i, n)
		}
	}
}

func TestTheSelectedChatSurvivesTheMoveToAnotherPod(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2})
	key := user("acme", "ag1", "u1")
	first := c.Dial(c.Pods[0], key)
	first.Select("a.b@c")
	first.Close()
	second := c.Dial(c.Pods[1], key)
	c.Publish(clustertest.Subject("acme", "ag1", "messages", "a.b@c"), body("one"))
	wantEvents(t, "after the move", second, "one")
	second.Send(`{"type":"select_chat","payload":{"chat_id":null}}`)
	if err := second.Barrier(); err != nil {
		t.Fatal(err)
	}
	c.Publish(clustertest.Subject("acme", "ag1", "messages", "a.b@c"), body("two"))
	c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body("three"))
	wantEvents(t, "unselected", second, "one", "three")
	second.Close()
	third := c.Dial(c.Pods[0], key)
	c.Publish(clustertest.Subject("acme", "ag1", "messages", "a.b@c"), body("four"))
	c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body("five"))
	wantEvents(t, "unselected and back", third, "five")
}

func TestAdminsHearAgentsEventsOfTheirScope(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2})
	all := c.DialAdmin(c.Pods[0], c.AdminToken("root", "", ""))
	acme := c.DialAdmin(c.Pods[1], c.AdminToken("boss", "acme", "*"))
	one := c.DialAdmin(c.Pods[1], c.AdminToken("lead", "acme", "ag7"))
	for i := range 16 {
		c.Publish(clustertest.Subject("acme", fmt.Sprintf("ag%d", i), "agents", ""), body(fmt.Sprintf("acme-%d", i)))
		c.Publish(clustertest.Subject("evil", fmt.Sprintf("ag%d", i), "agents", ""), body(fmt.Sprintf("evil-%d", i)))
		c.Publish(clustertest.Subject("acme", fmt.Sprintf("ag%d", i), "chats", ""), body("not for admins"))
	}
	f := func(who string, k *clustertest.Client, want int, scope string) {
		t.Helper()
		if !k.AwaitEvents(arrival, want) {
			t.Errorf("%s: %d events, want %d", who, len(k.Events()), want)
		}
		if err := k.Barrier(); err != nil {
			t.Error(err)
		}
		seen := map[string]bool{}
		for _, e := range k.Events() {
			id := e.Field("event_id")
			if seen[id] || id == "not for admins" || scope != "" && len(id) < len(scope) || id[:len(scope)] != scope {
				t.Errorf("%s: got %q", who, id)
			}
			seen[id] = true
		}
		if len(seen) != want {
			t.Errorf("%s: %d events, want %d", who, len(seen), want)
		}
	}
	f("everything", all, 32, "")
	f("one company", acme, 16, "acme-")
	f("one agent", one, 1, "acme-7")

	again := c.DialAdmin(c.Pods[1], c.AdminToken("root", "", ""))
	if end, ok := all.AwaitClose(arrival); !ok || end.Code != 4402 {
		t.Errorf("former admin socket ended %+v", end)
	}
	c.Publish(clustertest.Subject("acme", "ag1", "agents", ""), body("acme-again"))
	wantEvents(t, "newest admin socket", again, "acme-again")
}

// An admin is logged in elsewhere, and the pod of the former socket has not heard
// of it: a fence is all that tells. It stands in the partition of the admins'
// locks, and events of no partition go to the former socket any more.
func TestOutrankedAdminsHearNothing(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2})
	old := c.DialAdmin(c.Pods[0], c.AdminToken("root", "", ""))
	other := c.DialAdmin(c.Pods[0], c.AdminToken("boss", "", ""))
	var ready struct{ Epoch uint64 }
	if err := json.Unmarshal(old.Frames()[0].Payload, &ready); err != nil || ready.Epoch == 0 {
		t.Fatalf("ready %s: %v", old.Frames()[0].Payload, err)
	}
	key := session.AdminKey("root")
	c.Redis.Do("HSET", fmt.Sprintf("f:{p%d}:%s:%s", key.Partition(64), key.Company, key.Agent), key.User, fmt.Sprintf("%d %d", ready.Epoch+1, time.Now().Unix()))
	for i := range 16 {
		c.Publish(clustertest.Subject("acme", fmt.Sprintf("ag%d", i), "agents", ""), body(fmt.Sprint(i)))
	}
	if end, ok := old.AwaitClose(arrival); !ok || end.Code != 4402 || len(old.Events()) > 0 {
		t.Errorf("the outranked socket ended %+v, and was given %d events", end, len(old.Events()))
	}
	if !other.AwaitEvents(arrival, 16) {
		t.Errorf("another admin of the pod got %d of 16 events", len(other.Events()))
	}
}

func TestOrderOverManyEvents(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 3})
	var clients []*clustertest.Client
	for i, p := range c.Pods {
		clients = append(clients, c.Dial(p, user("acme", "ag1", fmt.Sprintf("u%d", i))))
	}
	var want []string
	for i := range 500 {
		id := fmt.Sprintf("e%03d", i)
		c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body(id))
		want = append(want, id)
	}
	for i, k := range clients {
		wantEvents(t, fmt.Sprintf("pod %d", i), k, want...)
	}
}

func TestDrainTellsEverybodyAndFreesAllLocks(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2})
	var clients []*clustertest.Client
	for i := range 20 {
		clients = append(clients, c.Dial(c.Pods[0], user("acme", "ag1", fmt.Sprintf("u%d", i))))
	}
	c.Pods[0].Term()
	for _, k := range clients {
		end, ok := k.AwaitClose(arrival)
		if !ok || end.Code != 1001 {
			t.Fatalf("drained socket ended %+v", end)
		}
		told := k.Frames()[len(k.Frames())-1]
		if told.Type != "error" || told.Field("code") != "Draining" || told.Field("message") != "Service shutting down" {
			t.Errorf("last word %s %s", told.Type, told.Payload)
		}
	}
	if n := locksLeft(c); n != 0 {
		t.Errorf("%d locks left", n)
	}
}
