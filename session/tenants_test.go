package session

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// confusable are ids that a key, subject or pattern could take for each other.
var confusable = []string{
	"a", "b", "ab", "A", "á", "a\u0301", "a:b", "a%3Ab", "a%", "{a}", "a/b", "a|b", "a@1", "admin", "chats", "messages", "\u202ea", "用户", "p1", "-",
	"a'b", `a"b`, `a\b`, "a;b", "a,b", "a=b", "a&b", "a?b", "a#b", "$a", "~", "a\u00a0", strings.Repeat("x", MaxID),
}

// Sessions of tenants whose ids are as alike as can be: each event reaches
// exactly those of its own company and agent, and of its chat.
func TestTenantsNeverMeet(t *testing.T) {
	for _, id := range confusable {
		if err := CheckTenantID("id", id); err != nil {
			t.Fatalf("%q is no id, so it shows nothing: %v", id, err)
		}
	}
	id := rapid.SampledFrom(confusable)
	chat := rapid.SampledFrom([]string{"", "c", "c.d", "c.d.e", "*", ">", "chats", "a", "C"})
	kind := rapid.SampledFrom([]string{KindChats, KindMessages, KindMessages, KindAgents, KindContacts, "labels", "Messages"})
	rapid.Check(t, func(rt *rapid.T) {
		a := newWorld().pod(t, "a@1")
		type member struct {
			key  Key
			chat string
			s    *Session[*sock]
		}
		members := map[Key]member{}
		for range rapid.IntRange(1, 25).Draw(rt, "sessions") {
			m := member{key: Key{id.Draw(rt, "company"), id.Draw(rt, "agent"), id.Draw(rt, "user")}, chat: chat.Draw(rt, "chat")}
			m.s = a.mustLogin(t, m.key, Login{Chat: &m.chat})
			members[m.key] = m
		}
		var d Delivered[*sock]
		for seq := range uint64(40) {
			ev := Event{Seq: seq + 1, Route: Route{Company: id.Draw(rt, "to company"), Agent: id.Draw(rt, "to agent"), Kind: kind.Draw(rt, "kind")}}
			if ev.Route.Kind == KindMessages {
				if ev.Route.Chat = chat.Draw(rt, "to chat"); ev.Route.Chat == "" {
					continue
				}
			}
			n := Partition(ev.Route.Company, ev.Route.Agent, testPartitions)
			var got []Key
			a.m.Index().Deliver(n, &ev, nil, func(c *sock) Put {
				for k, m := range members {
					if m.s.Sock() == c {
						got = append(got, k)
					}
				}
				return Queued
			}, &d)
			a.m.Finish(&d)
			for k, m := range members {
				want := k.Company == ev.Route.Company && k.Agent == ev.Route.Agent && (ev.Route.Kind != KindMessages || m.chat == ev.Route.Chat)
				if slices.Contains(got, k) != want {
					rt.Fatalf("event of %+v: session %+v with chat %q: got it %v", ev.Route, k, m.chat, !want)
				}
			}
		}
	})
}
