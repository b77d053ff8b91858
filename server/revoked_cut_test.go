package server_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server"
	"github.com/daisi/daisi-ws/server/clustertest"
	"github.com/daisi/daisi-ws/session"
)

// revokedInTime gives how long after began sessions were closed, in order, and
// says whether one was not, or for another reason, or the last after limit.
func revokedInTime(clients []*clustertest.Client, began time.Time, limit time.Duration) ([]time.Duration, error) {
	took := make([]time.Duration, 0, len(clients))
	var err error
	for i, k := range clients {
		end, ok := k.AwaitClose(30 * time.Second)
		if !ok || end.Code != 4403 || end.Reason != "token-revoked" {
			err = fmt.Errorf("session %d: closed %v, %+v", i, ok, end)
			continue
		}
		took = append(took, end.At.Sub(began))
	}
	slices.Sort(took)
	if err == nil && took[len(took)-1] > limit {
		err = fmt.Errorf("the last close came after %v", took[len(took)-1])
	}
	return took, err
}

// onlyOne says whether a session was given more than the one event before its
// revocation.
func onlyOne(k *clustertest.Client) error {
	if n := k.Count("event"); n != 1 {
		return fmt.Errorf("was given %d events, 1 of them before the revocation", n)
	}
	return nil
}

// keptApart wants the revoked one to have nothing more, and the other one all;
// by it onlyOne is shown to see what is given.
func keptApart(t *testing.T, revoked, kept *clustertest.Client) {
	t.Helper()
	if err := onlyOne(revoked); err != nil {
		t.Error("the revoked one", err)
	}
	if !kept.AwaitEvents(20*time.Second, 21) {
		t.Errorf("the other one has %d events of 21", kept.Count("event"))
	}
	if err := onlyOne(kept); err == nil {
		t.Error("the judge does not see what the other one was given")
	}
}

// What the measure is worth: one of three pods is cut off from Redis, so it
// hears of the revocation when that is over. Its sessions are late, and seen to
// be; those of the others are not.
func TestRevocationSeesFaults(t *testing.T) {
	t.Parallel()
	const away = 3 * time.Second
	c := clustertest.Start(t, clustertest.Options{Pods: 3, Links: true})
	var reached, cut []*clustertest.Client
	for i := range 12 {
		k := c.Dial(c.Pods[i%3], user("acme", fmt.Sprint("ag", i), "u"))
		if i%3 == 2 {
			cut = append(cut, k)
		} else {
			reached = append(reached, k)
		}
	}
	c.Pods[2].Redis.Cut()
	began := time.Now()
	mustAdmin(t, c, c.Pods[0], "POST", "/admin/revoke", `{"kind":"company","company":"acme"}`)
	if took, err := revokedInTime(reached, began, revokedWithin); err != nil {
		t.Errorf("pods that Redis reaches: %v, %v", took, err)
	}
	time.Sleep(time.Until(began.Add(away))) // that long it can't hear of it
	c.Pods[2].Redis.Mend()
	took, err := revokedInTime(append(reached, cut...), began, time.Second)
	if err == nil || len(took) != 12 || took[11] < away || took[8] < away {
		t.Errorf("a pod that was cut off for %v: closed after %v, the measure says %v", away, took, err)
	}
	t.Logf("a pod cut off for %v: %v", away, err)
}

// A pod that Redis can't reach any more delivers nothing to a session that was
// revoked meanwhile, though its gates are open for a lease after its last beat:
// batches of pods that Redis reaches say which revocations they have heard of,
// and what it reads itself waits until it has asked for them.
func TestRevokedBeforeTheGatesShut(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2, Links: true, Options: func(_ int, o *server.Options) {
		o.Session.LeaseTTL = time.Minute
	}})
	away := c.Pods[1]
	agents := [2]string{agentReadBy(t, c, 0, "ag"), agentReadBy(t, c, 1, "ag")}
	var revoked, kept [2]*clustertest.Client
	publish := func(n int) {
		for _, agent := range agents {
			c.Publish(clustertest.Subject("acme", agent, "chats", ""), fmt.Sprintf(`{"n":%d}`, n))
		}
	}
	for i, agent := range agents {
		revoked[i], kept[i] = c.Dial(away, user("acme", agent, "u1")), c.Dial(away, user("acme", agent, "u2"))
	}
	publish(1)
	for _, k := range slices.Concat(revoked[:], kept[:]) {
		if !k.AwaitEvents(20*time.Second, 1) {
			t.Fatal("no event before the cut")
		}
	}
	before := away.Metrics()[`dws_batches_dropped_total{reason="gate"}`]
	away.Redis.Cut()
	mustAdmin(t, c, c.Pods[0], "POST", "/admin/revoke", `{"kind":"user","company":"acme","user":"u1"}`)
	time.Sleep(2 * revokedOld) // so long it has heard nothing
	for n := range 20 {
		publish(n + 2)
	}
	c.Eventually(20*time.Second, "what the other one forwards is kept back, or given", func() bool {
		return away.Metrics()[`dws_batches_dropped_total{reason="gate"}`] > before || revoked[0].Count("event") > 1
	})
	if m := away.Metrics(); m["dws_partitions_closed"] != 0 {
		t.Errorf("%v gates are shut already: this shows nothing", m["dws_partitions_closed"])
	}
	away.Redis.Mend()
	for i := range agents {
		if _, err := revokedInTime(revoked[i:i+1], time.Now(), 20*time.Second); err != nil {
			t.Error(err)
		}
		keptApart(t, revoked[i], kept[i])
	}
}

// revokedOld is when a pod asks again what is revoked before it delivers.
const revokedOld = time.Second

// A pod that Redis can't reach hears of no revocation, and delivers nothing once
// its beat is too old; when it is back, whoever was revoked is closed before
// anything is delivered, and the others get all they missed.
func TestRevokedWhileAPodIsCutOff(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Pods: 2, Links: true, Options: func(_ int, o *server.Options) {
		o.Session.LeaseTTL = 2 * time.Second
	}})
	away := c.Pods[1]
	revoked := c.Dial(away, session.Key{Company: "acme", Agent: "ag1", User: "u1"})
	kept := c.Dial(away, session.Key{Company: "acme", Agent: "ag1", User: "u2"})
	subject := clustertest.Subject("acme", "ag1", "chats", "")
	c.Publish(subject, `{"n":1}`)
	for _, k := range []*clustertest.Client{revoked, kept} {
		if !k.AwaitEvents(20*time.Second, 1) {
			t.Fatal("no event before the cut")
		}
	}
	away.Redis.Cut()
	c.Eventually(20*time.Second, "its gates are closed", func() bool { return away.Metrics()["dws_partitions_closed"] == 64 })
	mustAdmin(t, c, c.Pods[0], "POST", "/admin/revoke", `{"kind":"user","company":"acme","agent":"ag1","user":"u1"}`)
	for n := range 20 {
		c.Publish(subject, fmt.Sprintf(`{"n":%d}`, n+2))
	}
	if revoked.Closed() != nil || revoked.Count("event") != 1 {
		t.Fatalf("cut off, it knew: closed %v, %d events", revoked.Closed(), revoked.Count("event"))
	}
	back := time.Now()
	away.Redis.Mend()
	end, ok := revoked.AwaitClose(20 * time.Second)
	if !ok || end.Code != 4403 {
		t.Fatalf("closed %v, %+v", ok, end)
	}
	t.Logf("closed %v after the cut was mended", end.At.Sub(back).Round(time.Millisecond))
	keptApart(t, revoked, kept)
}
