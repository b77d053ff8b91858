package redisx

import (
	"slices"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/session"
)

func testBeat(t *testing.T, e *env) {
	e.do(t, "SET", revVersionKey, "41")
	a := e.pod(t, "a@1")
	gone := start(t, Options{URL: e.url, Owner: "gone|@1", Addr: "[::1]:5", LeaseTTL: time.Second})
	lives := func(o session.Owner) func() bool {
		return func() bool {
			return slices.ContainsFunc(a.Live(), func(p session.Pod) bool { return p.Owner == o })
		}
	}
	eventually(t, "a on the list", lives("a@1"))
	eventually(t, "the other on the list", lives("gone|@1"))
	for _, p := range a.Live() {
		if p.Owner == "gone|@1" && p.Addr != "[::1]:5" || p.Owner == "a@1" && p.Addr != "127.0.0.1:50051" {
			t.Errorf("live list: %+v", a.Live())
		}
	}
	if err := a.Healthy(); err != nil || a.BeatAge() > 5*time.Second {
		t.Errorf("healthy: %v, beat age %v", err, a.BeatAge())
	}
	if v := a.RevVersion(); v != 41 {
		t.Errorf("version of the revocations %d, want 41", v)
	}
	e.do(t, "SET", revVersionKey, "42")
	eventually(t, "the new version", func() bool { return a.RevVersion() == 42 })

	if err := gone.LeaveLive(within(t, 5*time.Second)); err != nil {
		t.Fatalf("LeaveLive: %v", err)
	}
	leaving := func() bool {
		for _, p := range a.Live() {
			if p.Owner == "gone|@1" {
				return p.Leaving && p.Addr == "[::1]:5"
			}
		}
		return false
	}
	eventually(t, "the other leaving", leaving)
	before := gone.counts.beats.Get()
	eventually(t, "beats after it left", func() bool { return gone.counts.beats.Get() > before+1 })
	if !leaving() {
		t.Error("a later beat undid it")
	}

	if _, lapses := a.Beat(); lapses != 0 {
		t.Errorf("%d lapses of a pod that beats", lapses)
	}
	a.beating <- struct{}{}
	a.beatAt.Store(int64(sinceBoot() - a.opt.LeaseTTL))
	if age, lapses := a.Beat(); age < a.opt.LeaseTTL || lapses != 0 {
		t.Errorf("after a pause: beat %v old, %d lapses", age, lapses)
	}
	<-a.beating
	eventually(t, "a beat after the pause", func() bool { return a.BeatAge() < time.Second })
	if _, lapses := a.Beat(); lapses != 1 {
		t.Errorf("after a pause that ended: %d lapses, want 1", lapses)
	}

	now := time.Now().UnixMilli()
	e.do(t, "ZADD", podsKey, now+1500, "crashed@1|x:1", now+100000, "other@1|x:2")
	eventually(t, "a pod that crashed on the list", lives("crashed@1"))
	eventually(t, "it off the list", func() bool { return !lives("crashed@1")() })
	if !lives("other@1")() {
		t.Error("a pod with a lease is off the list")
	}
	eventually(t, "the list pruned", func() bool { return e.do(t, "ZSCORE", podsKey, "crashed@1|x:1") == nil })
}

func testTokens(t *testing.T, e *env) {
	a := e.pod(t, "a@1")
	ctx := within(t, 5*time.Second)
	if _, ok, err := a.TokenGet(ctx, "ab12"); ok || err != nil {
		t.Errorf("nothing cached: %v, %v", ok, err)
	}
	if err := a.TokenSet(ctx, "ab12", []byte(`{"user_id":"u"}`), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if v, ok, err := a.TokenGet(ctx, "ab12"); string(v) != `{"user_id":"u"}` || !ok || err != nil {
		t.Errorf("got %q, %v, %v", v, ok, err)
	}
	e.wantTTL(t, "token_cache:ab12", 30)
	if err := a.TokenSet(ctx, "cd", nil, 0); err != nil {
		t.Errorf("no life left: %v", err)
	}
	if v := e.do(t, "EXISTS", "token_cache:cd"); v != int64(0) {
		t.Error("a token without life was cached for ever")
	}
}
