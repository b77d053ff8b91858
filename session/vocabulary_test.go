package session

import (
	"errors"
	"hash/fnv"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestParseRoute(t *testing.T) {
	f := func(s string, want Route, ok bool) {
		t.Helper()
		got, gotOK := ParseRoute(s)
		if got != want || gotOK != ok {
			t.Errorf("%q: %+v, %v", s, got, gotOK)
		}
	}
	f("c.a.chats", Route{"c", "a", "chats", ""}, true)
	f("c.a.chats.x.y", Route{}, false)
	f("c.a.chats.", Route{}, false)
	f("c.a.messages.628@s.whatsapp.net", Route{"c", "a", "messages", "628@s.whatsapp.net"}, true)
	f("c.a.messages", Route{}, false)
	f("c.a.messages.", Route{}, false)
	f("c.a", Route{}, false)
	f("c..chats", Route{}, false)
	f(".a.chats", Route{}, false)
	f("c.a.", Route{}, false)
	f("", Route{}, false)
	if w := (Route{"c", "a", "messages", "x"}).Want(); w != (Want{"c", "a", "x"}) {
		t.Errorf("%+v", w)
	}
}

func FuzzParseRoute(f *testing.F) {
	f.Add("c.a.messages.628@s.whatsapp.net")
	f.Add("c.a.chats")
	f.Add("..")
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := ParseRoute(s)
		if !ok {
			return
		}
		if r.Company == "" || r.Agent == "" || r.Kind == "" || (r.Kind == KindMessages) != (r.Chat != "") {
			t.Errorf("%q: %+v", s, r)
		}
		if strings.Contains(r.Company+r.Agent+r.Kind, ".") || !strings.HasPrefix(s, r.Company+"."+r.Agent+"."+r.Kind) {
			t.Errorf("%q: %+v", s, r)
		}
		if r.Chat != "" && s != r.Company+"."+r.Agent+"."+r.Kind+"."+r.Chat {
			t.Errorf("%q loses bytes: %+v", s, r)
		}
	})
}

func TestIDs(t *testing.T) {
	f := func(id string, user, tenant bool) {
		t.Helper()
		if got := CheckID("user_id", id) == nil; got != user {
			t.Errorf("user %q: %v", id, got)
		}
		if got := CheckTenantID("company_id", id) == nil; got != tenant {
			t.Errorf("company %q: %v", id, got)
		}
	}
	f("a", true, true)
	f("Ünïcødé:{}%/", true, true)
	f("a.b", true, false)
	f("a*", true, false)
	f(">", true, false)
	f("a b", true, false)
	f("", false, false)
	f("a\x00", false, false)
	f("a\n", false, false)
	f("a\u0085", false, false)
	f("\xff", false, false)
	f(strings.Repeat("x", 256), true, true)
	f(strings.Repeat("x", 257), false, false)
	if CheckChat(strings.Repeat("x", 512)) != nil || CheckChat(strings.Repeat("x", 513)) == nil || CheckChat("") == nil {
		t.Error("chat limits")
	}
}

func TestKeys(t *testing.T) {
	h := fnv.New32a()
	h.Write([]byte("acmeag1"))
	if got := alice.Partition(64); got != int(h.Sum32()%64) {
		t.Errorf("partition %d", got)
	}
	if !AdminKey("x").IsAdmin() || alice.IsAdmin() || CheckTenantID("company_id", AdminCompany) == nil {
		t.Error("an admin's key must not be a user's")
	}
	if o := Owner("gw@eu@17"); o.Pod() != "gw@eu" || Owner("gw").Pod() != "gw" {
		t.Errorf("pod %q", o.Pod())
	}
}

// One row for each reason, and nothing in it that a client can't understand.
func TestReasons(t *testing.T) {
	labels := map[string]bool{}
	for r := range reasons {
		label := r.Label()
		if label == "" || labels[label] || r.Message() == "" || r.Reconnect() == "" || r.CloseCode() < 1000 || r.String() != label {
			t.Errorf("reason %d: incomplete row %+v", r, reasonTable[r])
		}
		labels[label] = true
		if s := r.Status(); s != 0 && (http.StatusText(s) == "" || r.Code() == "") {
			t.Errorf("%v: status %d, code %q", r, s, r.Code())
		}
	}
	err := error(&Refusal{Reason: ReasonConflict, Details: "d", Err: ErrBusy})
	if !errors.Is(err, ErrBusy) || !strings.HasPrefix(err.Error(), ReasonConflict.Message()+": d: ") {
		t.Errorf("%v", err)
	}
}

func TestSessionFlagsAndExpiry(t *testing.T) {
	var s Session[*sock]
	if !s.Set(FlagWarned) || s.Set(FlagWarned) || !s.Has(FlagWarned) || s.Has(FlagNewFrames) {
		t.Error("flags")
	}
	s.SetExpires(time.Unix(1<<40, 0))
	if s.Expires() != 1<<32-1 {
		t.Errorf("expiry %d", s.Expires())
	}
	s.SetExpires(time.Unix(-5, 0))
	if s.Expires() != 1 {
		t.Error("an expiry long ago must not become never")
	}
	s.SetExpires(time.Time{})
	if s.Expires() != 0 {
		t.Error("never")
	}
}

func TestSessionAllow(t *testing.T) {
	var s Session[*sock]
	now := int64(time.Hour)
	f := func(at time.Duration, want bool) {
		t.Helper()
		if got := s.Allow(now+int64(at), 100*time.Millisecond, 300*time.Millisecond); got != want {
			t.Errorf("at %v: %v", at, got)
		}
	}
	f(0, true)
	f(0, true)
	f(0, true)
	f(0, false)
	f(99*time.Millisecond, false)
	f(100*time.Millisecond, true)
	f(100*time.Millisecond, false)
	f(time.Minute, true)
	f(time.Minute, true)
	f(time.Minute, true)
	f(time.Minute, false)
}

func TestOptions(t *testing.T) {
	w := newWorld()
	p := w.pod(t, "a@1")
	f := func(tune func(o *Options[*sock])) {
		t.Helper()
		o := p.m.o
		o.Metrics = nil
		tune(&o)
		if _, err := NewManager(o); err == nil {
			t.Error("accepted")
		}
	}
	f(func(o *Options[*sock]) { o.Owner = "" })
	f(func(o *Options[*sock]) { o.Locks = nil })
	f(func(o *Options[*sock]) { o.Partitions = 0 })
	f(func(o *Options[*sock]) { o.Partitions = 1 << 16 })
	f(func(o *Options[*sock]) { o.SweepEvery = freshFor })
	f(func(o *Options[*sock]) { o.LoginTimeout = -1 })
	m, err := NewManager(Options[*sock]{Owner: "a", Partitions: 1, Locks: p, Renewer: p, Routes: p, Killer: p, Parts: delivery{p}})
	if err != nil || m.o.Now() <= 0 {
		t.Errorf("%v", err)
	}
}
