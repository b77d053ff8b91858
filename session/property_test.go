package session

import (
	"context"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// model drives two pods on one Redis by random steps.
type model struct {
	w    *world
	pods []*pod
	keys []Key
	open map[*Session[*sock]]*pod
	seq  uint64
	dead map[*sock]bool // sockets that must take nothing more
}

func newModel(t testing.TB) *model {
	m := &model{w: newWorld(), open: map[*Session[*sock]]*pod{}, dead: map[*sock]bool{}}
	for _, o := range []Owner{"a@1", "b@1"} {
		m.pods = append(m.pods, m.w.pod(t, o))
	}
	for i := range 3 {
		m.keys = append(m.keys, Key{"acme", fmt.Sprint("ag", i/2), fmt.Sprint("u", i)})
	}
	return m
}

// probe publishes one event of every agent and checks who takes it: nobody
// that a ready of a higher epoch has outranked (S1, by P4 and P5), and every
// newest session, exactly once (P3).
func (m *model) probe(t *rapid.T) {
	m.seq++
	fences := make([][]Fence, testPartitions)
	for k, e := range m.w.fences {
		n := k.Partition(testPartitions)
		fences[n] = append(fences[n], Fence{k.Company, k.Agent, k.User, e})
	}
	newest := map[Key]*Session[*sock]{}
	for s := range m.open {
		if o := newest[s.Key()]; o == nil || o.Epoch() < s.Epoch() {
			newest[s.Key()] = s
		}
	}
	got := map[*sock]int{}
	for _, p := range m.pods {
		for _, agent := range []string{"ag0", "ag1"} {
			n := Partition("acme", agent, testPartitions)
			var d Delivered[*sock]
			var e ear
			m.seq++ // agents may share a partition
			p.m.Index().Deliver(n, event(m.seq, "acme."+agent+".chats"), fences[n], e.put, &d)
			p.m.Finish(&d)
			for _, s := range e.got {
				got[s]++
			}
		}
	}
	for s := range m.open {
		want := 0
		if newest[s.Key()] == s {
			want = 1
		}
		if got[s.Sock()] != want {
			t.Fatalf("%v epoch %d took %d events; want %d", s.Key(), s.Epoch(), got[s.Sock()], want)
		}
	}
	for s, n := range got {
		if m.dead[s] {
			t.Fatalf("a closed session took %d events", n)
		}
	}
	for s, p := range m.open {
		if p.m.Index().State(s) == Closing {
			m.dead[s.Sock()] = true
			delete(m.open, s)
		}
	}
}

func (m *model) login(t *rapid.T) {
	p := rapid.SampledFrom(m.pods).Draw(t, "pod")
	key := rapid.SampledFrom(m.keys).Draw(t, "key")
	var opt Login
	if c := rapid.SampledFrom([]string{"restore", "", "c1", "c2"}).Draw(t, "chat"); c != "restore" {
		opt.Chat = &c
	}
	s, err := p.login(key, opt)
	if err != nil {
		t.Fatalf("login: %v", err)
	}
	m.open[s] = p
}

func (m *model) pick(t *rapid.T) (*Session[*sock], *pod) {
	for _, key := range rapid.Permutation(m.keys).Draw(t, "keys") {
		for s, p := range m.open {
			if s.Key() == key {
				return s, p
			}
		}
	}
	t.Skip("nobody is logged in")
	return nil, nil
}

// Under random logins, takeovers, selections, ends, missed kills and lost
// keys: routes in Redis are those wanted, the index is sound, S1 and P3 hold.
func TestSessionsProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(nopTB{})
		t.Repeat(map[string]func(*rapid.T){
			"login":  m.login,
			"login2": m.login,
			"close": func(t *rapid.T) {
				s, p := m.pick(t)
				p.m.Close(s, ReasonClient, "")
				delete(m.open, s)
				m.dead[s.Sock()] = true
			},
			"select": func(t *rapid.T) {
				s, p := m.pick(t)
				var chat *string
				if c := rapid.SampledFrom([]string{"", "c1", "c2", "c3"}).Draw(t, "chat"); c != "" {
					chat = &c
				}
				if err := p.choose(s, chat); err != nil && p.m.Index().State(s) != Closing {
					t.Fatalf("select: %v", err)
				}
			},
			"deafen": func(t *rapid.T) {
				p := rapid.SampledFrom(m.pods).Draw(t, "pod")
				p.silent = !p.silent
			},
			"sweep": func(t *rapid.T) {
				p := rapid.SampledFrom(m.pods).Draw(t, "pod")
				for n := range testPartitions {
					if err := p.Assert(context.Background(), n); err != nil {
						t.Fatal(err)
					}
				}
			},
			"flush": func(t *rapid.T) { // outranked ones may go on until the newer one's pod re-asserts
				m.w.flush()
				for _, p := range m.pods {
					for n := range testPartitions {
						if err := p.Assert(context.Background(), n); err != nil {
							t.Fatal(err)
						}
					}
				}
			},
			"": func(t *rapid.T) {
				m.probe(t)
				for _, p := range m.pods {
					p.whole(t)
				}
			},
		})
	})
}

// nopTB is for fixtures that can't fail.
type nopTB struct{ testing.TB }

func (nopTB) Helper() {}
