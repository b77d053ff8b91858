//go:build faults

package server_test

import (
	"context"
	"testing"

	"github.com/daisi/daisi-ws/bench"
	"github.com/daisi/daisi-ws/server"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// One delivery of thousands that the server drops, doubles or swaps: the oracle
// of the harness says which, and the run is a broken promise. Without a fault
// the same run passes.
func TestProveServerFaultsAreSeen(t *testing.T) {
	f := func(kind, breach string) {
		t.Run(kind, func(t *testing.T) {
			c := clustertest.Start(t, clustertest.Options{Pods: 2})
			if kind != "none" {
				server.PlantFault(&server.Fault{Kind: kind, After: 3000})
				defer server.PlantFault(nil)
			}
			o := fanoutOptions(c)
			o.Sessions, o.Agents, o.Rate = 300, 20, 200
			r, err := bench.Fanout(context.Background(), o)
			show(t, r, err)
			if kind == "none" {
				if r.Exit != bench.ExitPass {
					t.Errorf("exit %v", r.Exit)
				}
				return
			}
			n, _ := r.Figure(breach)
			if r.Exit != bench.ExitBroken || n != 1 {
				t.Errorf("exit %v, %s %v, want a broken promise and 1", r.Exit, breach, n)
			}
		})
	}
	f("none", "")
	f("drop", "lost")
	f("double", "repeated")
	f("swap", "out_of_order")
}
