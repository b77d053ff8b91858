package local

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/bench"
)

func smallPeers(servers ...string) PeersOptions {
	return PeersOptions{
		Programs: programs, Servers: servers,
		PeerOptions: bench.PeerOptions{
			Options:  bench.Options{Settle: 10 * time.Millisecond, Quiet: 50 * time.Millisecond, Seed: 1},
			Sessions: 40, Receivers: 4, Rate: 100, BurstRate: 200, Duration: 300 * time.Millisecond,
		},
	}
}

// All servers get the same events and deliver every copy, in order.
func TestPeersSuccess(t *testing.T) {
	t.Parallel()
	// Warm-up, to nobody, one by one, in bursts.
	const published, expected = 30 + 30 + 30 + 60, 4 * (30 + 30 + 60)
	servers := []string{"gorilla", "gws", "coder", "nbio", gatewayName}
	all := make([]Measured, len(servers))
	t.Run("servers", func(t *testing.T) {
		for i, name := range servers {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				list, err := Peers(t.Context(), smallPeers(name))
				if err != nil || len(list) != 1 {
					t.Fatalf("error %v, %d measured", err, len(list))
				}
				all[i] = list[0]
				v := all[i].Oracle
				if v.Broken() || v.Published != published || v.Expected != expected || v.Met != expected || len(all[i].Errors) > 0 {
					t.Errorf("%+v, errors %v", v, all[i].Errors)
				}
				for _, c := range peerColumns {
					if _, ok := all[i].Figure(c.figure); !ok {
						t.Errorf("no figure %s", c.figure)
					}
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	var b bytes.Buffer
	if err := WritePeers(&b, smallPeers(), all); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| gorilla |", "| gws |", "| coder |", "| nbio |", "| daisi-ws |", "no login", "Redis and NATS beside"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}

func TestPeersFailure(t *testing.T) {
	f := func(want string, o PeersOptions) {
		t.Helper()
		if _, err := Peers(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	f("unknown server", smallPeers("nonsense"))
	o := smallPeers("gws")
	o.Programs.Peers = "/nonexistent/peers"
	f("/nonexistent/peers", o)
	o = smallPeers("daisi-ws")
	o.Programs.Redis = "/nonexistent/redis"
	f("start redis", o)
	if err := WritePeers(&bytes.Buffer{}, o, nil); err == nil {
		t.Error("a table of nothing")
	}
}
