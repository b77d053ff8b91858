package natsx

import (
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/daisi/daisi-ws/session"
)

func TestParseSubject(t *testing.T) {
	good := func(subject string, want session.Route) {
		t.Helper()
		if got, ok := parseSubject(subject); !ok || got != want {
			t.Errorf("%q: got %+v, %v; want %+v", subject, got, ok, want)
		}
	}
	good("dws.0.c.a.chats", session.Route{Company: "c", Agent: "a", Kind: "chats"})
	good("dws.63.c.a.messages.x.y.z", session.Route{Company: "c", Agent: "a", Kind: "messages", Chat: "x.y.z"})
	good("dws.63.c.a.new", session.Route{Company: "c", Agent: "a", Kind: "new"})
	bad := func(subject string) {
		t.Helper()
		if got, ok := parseSubject(subject); ok {
			t.Errorf("%q: got %+v; want a refusal", subject, got)
		}
	}
	bad("")
	bad("dws.0")
	bad("dws.0.")
	bad("dws.0.c")
	bad("dws.0.c.a")
	bad("dws.0.c.a.")
	bad("dws.0..a.chats")
	bad("dws.0.c..chats")
	bad("dws.0.c.a.messages")
	bad("dws.0.c.a.messages.")
	bad("dws.63.c.a.new.x.y.z") // no replay could ask for it
	bad("dws.63.c.a.chats.x")
	bad("websocket.c.a.chats")
	bad("dws.0.c*.a.chats")
	bad("dws.0.c.>.chats")
	bad("dws.0.c.a b.chats")
	bad("dws.0.c\n.a.chats")
	bad("dws.0.c.a\xff.chats")
	bad("dws.0.c.a.ch\xffats")
	bad("dws.0.c.a.messages.\x00")
	bad("dws.0." + strings.Repeat("c", 257) + ".a.chats")
	bad("dws.0.c.a." + strings.Repeat("k", 257))
	bad("dws.0.c.a.messages." + strings.Repeat("m", 513))
}

func FuzzParseSubject(f *testing.F) {
	f.Add("dws.63.c.a.messages.628@s.whatsapp.net")
	f.Add("dws.0.c.a.chats")
	f.Add("dws.0.*admin.a.agents")
	f.Add("dws...")
	f.Fuzz(func(t *testing.T, subject string) {
		r, ok := parseSubject(subject)
		if !ok {
			return
		}
		n, _, _ := strings.Cut(strings.TrimPrefix(subject, "dws."), ".")
		if "dws."+n+"."+tail(r) != subject {
			t.Fatalf("%q: got %+v: something got lost", subject, r)
		}
		for _, s := range []string{r.Company, r.Agent, r.Kind, r.Chat} {
			if !utf8.ValidString(s) {
				t.Fatalf("%q: invalid UTF-8 in %+v", subject, r)
			}
		}
		if session.CheckTenantID("", r.Company) != nil || session.CheckTenantID("", r.Agent) != nil {
			t.Fatalf("%q: no session can have the ids of %+v", subject, r)
		}
	})
}

func TestParseReply(t *testing.T) {
	want := delivered{stream: 12, consumer: 3, stamp: 1795411297285854001, pending: 7}
	f := func(reply string) {
		t.Helper()
		if got, ok := parseReply(reply); !ok || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", reply, got, ok, want)
		}
	}
	f("$JS.ACK.dws_events.dws_0a.1.12.3.1795411297285854001.7")
	f("$JS.ACK._.hash.dws_events.dws_0a.1.12.3.1795411297285854001.7")
	f("$JS.ACK.domain.hash.dws_events.dws_0a.1.12.3.1795411297285854001.7.token")
	for _, s := range []string{
		"", "$JS.ACK.", "$JS.ACK.s.c.1.12.3.17", "$JS.ACK.s.c.1.x.3.17.7", "$JS.ACK.s.c.1.12.3.17.", "_INBOX.x",
		"$JS.ACK.s.c.1.99999999999999999999.3.17.7",
	} {
		if got, ok := parseReply(s); ok {
			t.Errorf("%q: got %+v; want a refusal", s, got)
		}
	}
}

func FuzzParseReply(f *testing.F) {
	f.Add("$JS.ACK.dws_events.dws_0a.1.12.3.1795411297285854001.7")
	f.Add("$JS.ACK._.hash.dws_events.dws_0a.1.12.3.1795411297285854001.7.x")
	f.Fuzz(func(_ *testing.T, s string) { parseReply(s) })
}

func FuzzStoredSeq(f *testing.F) {
	f.Add([]byte(`{"type":"x","message":{"subject":"a","seq":5,"data":"eA==","time":"x"}}`))
	f.Add([]byte(`{"type":"x","error":{"code":404,"err_code":10037,"description":"no message found"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if seq, err := storedSeq(b); err == nil && !strings.Contains(string(b), strconv.FormatUint(seq, 10)) && seq != 0 {
			t.Fatalf("%q: got %d", b, seq)
		}
	})
}

func TestPoisonRing(t *testing.T) {
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(300) {
		c.skip("id", i+1, PoisonBody)
		c.skip("id", i+1, PoisonBody)
	}
	list := c.Poison()
	if len(list) != poisonKept || list[0].Seq != 300-poisonKept+1 || list[poisonKept-1].Seq != 300 {
		t.Fatalf("got %d, %+v … %+v", len(list), list[0], list[len(list)-1])
	}
	if n := c.m.poison[PoisonBody].Get(); n != 300 {
		t.Fatalf("counted %d; want 300", n)
	}
}
