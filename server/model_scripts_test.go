//go:build !race

package server

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"pgregory.net/rapid"

	"github.com/daisi/daisi-ws/redisx"
	"github.com/daisi/daisi-ws/session"
)

// scriptPair is the scripts on a Redis, and modelRedis, asked the same.
type scriptPair struct {
	t      *rapid.T
	real   *miniredis.Miniredis
	pods   []*redisx.Client
	owners []session.Owner
	model  *modelRedis
	now    time.Time
	incs   [modelPartitions][2]string // as the scripts and the model call the present one
	conn   uint64
	held   []session.Held
	number uint32
}

// startScripts runs two pods' clients on one Redis for the whole test.
func startScripts(t *testing.T) *scriptPair {
	s := &scriptPair{real: miniredis.RunT(t)}
	for i := range 2 {
		o := session.Owner(fmt.Sprintf("%c@1", 'A'+i))
		c, err := redisx.New(redisx.Options{URL: "redis://" + s.real.Addr() + "/0", Owner: o, Addr: "127.0.0.1:1", Partitions: modelPartitions, Takeovers: 3})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		s.pods, s.owners = append(s.pods, c), append(s.owners, o)
	}
	return s
}

// begin empties both.
func (s *scriptPair) begin(t *rapid.T) {
	s.t, s.held, s.now = t, nil, time.Unix(1_700_000_000, 0)
	s.model = newModelRedis(modelPartitions, func() time.Time { return s.now })
	s.model.limit = 3
	s.flush()
}

func (s *scriptPair) flush() {
	s.real.FlushAll()
	s.real.SetTime(s.now)
	s.model.flush()
	for n := range modelPartitions {
		s.learn(n)
	}
}

// learn reads the incarnation, behind whatever was queued before.
func (s *scriptPair) learn(n int) {
	for _, p := range s.pods {
		inc, seen, err := p.Inc(context.Background(), n)
		s.must(err)
		s.incs[n] = [2]string{inc, s.model.incOf(n)}
		s.same("epoch issued", seen, s.model.parts[n].epoch)
	}
}

func (s *scriptPair) must(err error) {
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scriptPair) same(what string, got, want any) {
	s.t.Helper()
	if !reflect.DeepEqual(got, want) {
		s.t.Fatalf("%s: the scripts say %+v, the model %+v", what, got, want)
	}
}

// pass lets keys grow older.
func (s *scriptPair) pass(d time.Duration) {
	s.now = s.now.Add(d)
	s.real.FastForward(d)
	s.real.SetTime(s.now)
}

// incOf is the present incarnation, or one that is not.
func (s *scriptPair) incOf(n int) (scripts, model string) {
	if rapid.IntRange(0, 15).Draw(s.t, "stale") == 15 {
		return "other", "other"
	}
	return s.incs[n][0], s.incs[n][1]
}

func (s *scriptPair) who() (i int, key session.Key, n int) {
	key = rapid.SampledFrom(modelKeys()).Draw(s.t, "key")
	key.User = rapid.SampledFrom([]string{"u", "v"}).Draw(s.t, "user")
	return rapid.IntRange(0, 1).Draw(s.t, "pod"), key, key.Partition(modelPartitions)
}

// someHeld is a lock that was acquired once, perhaps by the other pod.
func (s *scriptPair) someHeld() (i int, h session.Held, n int) {
	i = rapid.IntRange(0, 1).Draw(s.t, "pod")
	if len(s.held) == 0 {
		return i, session.Held{Key: modelKeys()[0], Conn: 1, Epoch: 1}, 0
	}
	h = s.held[len(s.held)-1-rapid.IntRange(0, len(s.held)-1).Draw(s.t, "held")]
	h.Chat = rapid.SampledFrom([]string{"", "x", "y"}).Draw(s.t, "chat")
	h.Fresh = rapid.Bool().Draw(s.t, "fresh")
	return i, h, h.Key.Partition(modelPartitions)
}

func (s *scriptPair) edge() edgeCall {
	s.number++
	return edgeCall{number: s.number, lazy: true}
}

func (s *scriptPair) acquire(*rapid.T) {
	i, key, n := s.who()
	inc, modelInc := s.incOf(n)
	conn := s.conn
	if conn == 0 || rapid.IntRange(0, 3).Draw(s.t, "again") < 3 {
		s.conn++
		conn = s.conn
	}
	reject := rapid.IntRange(0, 3).Draw(s.t, "reject") == 3
	s.pass(time.Microsecond)
	got, err := s.pods[i].Acquire(context.Background(), n, inc, key, conn, reject, 0)
	s.must(err)
	got.RevVersion = 0
	want := s.model.acquire(n, modelInc, s.owners[i], key, conn, reject, 0)
	got.Again, want.Again = got.Again.Truncate(time.Millisecond), want.Again.Truncate(time.Millisecond)
	s.same("acquire", got, want)
	if want.Epoch > 0 {
		s.held = append(s.held, session.Held{Key: key, Conn: conn, Epoch: want.Epoch})
	}
}

func (s *scriptPair) open(*rapid.T) {
	i, h, n := s.someHeld()
	inc, modelInc := s.incOf(n)
	h.KeepChat = rapid.Bool().Draw(s.t, "keep")
	fence := rapid.Bool().Draw(s.t, "fence")
	got, err := s.pods[i].Open(context.Background(), n, inc, h, fence)
	s.must(err)
	s.same("open", got, s.model.open(n, modelInc, s.owners[i], h, fence, s.edge()))
}

func (s *scriptPair) release(*rapid.T) {
	i, h, n := s.someHeld()
	s.pods[i].Release(n, h.Key, h.Conn)
	s.model.release(n, s.owners[i], h.Key, h.Conn)
	s.learn(n)
}

func (s *scriptPair) reassert(*rapid.T) {
	i, h, n := s.someHeld()
	inc, modelInc := s.incOf(n)
	seen := rapid.SampledFrom([]uint64{0, h.Epoch, 1 << 62}).Draw(s.t, "seen")
	got, stale, err := s.pods[i].Reassert(context.Background(), n, inc, seen, []session.Held{h})
	s.must(err)
	want, wantStale := s.model.reassert(n, modelInc, s.owners[i], seen, []session.Held{h})
	s.same("reassert", fmt.Sprintf("%v %s", stale, answers(got)), fmt.Sprintf("%v %s", wantStale, answers(want)))
}

func answers(list []session.Reasserted) (text string) {
	for _, a := range list {
		text += fmt.Sprintf("%v %v", a.Verdict, a.Unconfirmed)
		if a.Prev != nil {
			text += fmt.Sprintf(" %+v", *a.Prev)
		}
	}
	return text
}

func (s *scriptPair) join(*rapid.T) {
	i, h, n := s.someHeld()
	inc, modelInc := s.incOf(n)
	var want *session.Want
	if h.Chat != "" {
		want = &session.Want{Company: h.Key.Company, Agent: h.Key.Agent, Chat: h.Chat}
	}
	done := make(chan session.Verdict, 1)
	s.must(s.pods[i].Join(n, inc, want, h, func(v session.Verdict, err error) {
		if err != nil {
			v = 255
		}
		done <- v
	}))
	s.same("join", <-done, s.model.join(n, modelInc, s.owners[i], want, h, s.edge()))
}

func (s *scriptPair) joinAll(*rapid.T) {
	i, _, n := s.who()
	inc, modelInc := s.incOf(n)
	wants := modelWants(n)[:rapid.IntRange(1, 3).Draw(s.t, "wants")]
	stale, err := s.pods[i].JoinAll(context.Background(), n, inc, wants)
	s.must(err)
	s.same("join all", stale, s.model.joinAll(n, modelInc, s.owners[i], wants, s.edge().number))
}

func (s *scriptPair) leave(*rapid.T) {
	i, _, n := s.who()
	w := rapid.SampledFrom(modelWants(n)).Draw(s.t, "want")
	s.pods[i].Leave(n, w)
	s.model.leave(n, s.owners[i], w, s.edge().number)
	s.learn(n)
}

// lookup compares routes and fences: all that a pod can see.
func (s *scriptPair) lookup(*rapid.T) {
	for n := range modelPartitions {
		got, err := s.pods[0].Lookup(context.Background(), n, modelWants(n), false)
		s.must(err)
		want := s.model.lookup(n, modelWants(n))
		s.same("incarnation", got.Inc, s.incs[n][0])
		s.same("owners", fmt.Sprint(sorted(got.Owners)), fmt.Sprint(want.Owners))
		s.same("fences", fencesOf(got.Fences), fencesOf(want.Fences))
	}
}

func sorted(owners [][]session.Owner) [][]session.Owner {
	for _, o := range owners {
		slices.Sort(o)
	}
	return owners
}

func fencesOf(list []session.Fence) map[session.Fence]bool {
	set := map[session.Fence]bool{}
	for _, f := range list {
		set[f] = true
	}
	return set
}

// TestModelRedisAgreesWithTheScripts has the scripts and their port answer the
// same random calls, while keys expire and are lost.
func TestModelRedisAgreesWithTheScripts(t *testing.T) {
	s, began := startScripts(t), time.Now()
	rapid.Check(t, func(rt *rapid.T) {
		if time.Since(began) > modelTime {
			return
		}
		s.begin(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"acquire": s.acquire, "acquire2": s.acquire, "open": s.open, "release": s.release, "reassert": s.reassert,
			"join": s.join, "joinAll": s.joinAll, "leave": s.leave,
			"flush": func(*rapid.T) { s.flush() },
			"pass": func(rt *rapid.T) {
				s.pass(time.Duration(rapid.SampledFrom([]int{1, 29, 61, 299, 301, 601}).Draw(rt, "seconds")) * time.Second)
			},
			"": s.lookup,
		})
	})
}
