package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// usual is what most schedules are made of.
func usual() modelConfig {
	return modelConfig{
		steps: 1200, tick: 40 * time.Millisecond, wait: time.Second, resume: true,
		weights: map[string]int{
			"finish": 420, "effect": 160, "arrive": 200, "tick": 60, "wait": 3,
			"store": 70, "login": 36, "select": 8, "logout": 4, "own": 3,
			"lose": 8, "fail": 3, "late": 4, "past": 4, "stop": 2, "learn": 4,
		},
	}
}

func (c modelConfig) with(more map[string]int) modelConfig {
	w := map[string]int{}
	for k, v := range c.weights {
		w[k] = v
	}
	for k, v := range more {
		w[k] = v
	}
	c.weights = w
	return c
}

// drawConfig mixes the faults of a schedule.
func drawConfig(rt *rapid.T) modelConfig {
	c := usual()
	more := map[string]int{}
	for _, fault := range []string{"kill", "cut", "flush", "failover", "redis", "reset"} {
		if rapid.Bool().Draw(rt, fault) {
			more[fault] = 2
		}
	}
	c.slow = rapid.SampledFrom([]int{0, 0, 0, 40}).Draw(rt, "slow")
	c.deaf = rapid.SampledFrom([]int{0, 0, 30, 90}).Draw(rt, "deaf")
	if rapid.IntRange(0, 31).Draw(rt, "long") == 31 {
		c.wait = 400 * time.Second
	}
	more["restart"], more["save"] = 6*more["kill"], 4*more["failover"]
	more["lose"] = 5 * rapid.IntRange(0, 6).Draw(rt, "lose")
	more["fail"] = 3 * rapid.IntRange(0, 4).Draw(rt, "fail")
	return c.with(more)
}

func explain(b *modelBreach, trace []string) string {
	return fmt.Sprintf("%s broken in step %d: %s\n%s", b.invariant, b.step, b.what, strings.Join(trace, "\n"))
}

// proveProtocol tries random schedules for a while: nothing breaks the protocol.
func proveProtocol(t *testing.T, limit time.Duration) {
	t.Helper()
	var stats modelStats
	schedules := 0
	began := time.Now()
	first := "" // in full, for goroutines may run otherwise when rapid makes it smaller
	t.Cleanup(func() {
		if first != "" {
			t.Log(first)
		}
	})
	check := func(rt *rapid.T) {
		if time.Since(began) > limit {
			return
		}
		schedules++
		b, trace := runModel(rt, "", drawConfig(rt), &stats)
		if b != nil {
			if first == "" {
				first = explain(b, trace)
			}
			rt.Fatalf("%s broken in step %d: %s", b.invariant, b.step, b.what)
		}
	}
	for time.Since(began) < limit && !t.Failed() {
		rapid.Check(t, check)
	}
	t.Logf("%d schedules in %v: %+v", schedules, time.Since(began).Round(time.Millisecond), stats)
}

// TestProtocolRaces runs the product's parts under random schedules where the
// race detector looks: the harness itself is free of races, so one that is found
// is the product's. TestProveProtocol does the same faster, without it.
func TestProtocolRaces(t *testing.T) { proveProtocol(t, 3*time.Second) }
