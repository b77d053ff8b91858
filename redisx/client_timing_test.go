package redisx

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/daisi/daisi-ws/redisx/redistest"
	"github.com/daisi/daisi-ws/session"
)

// bench is a server without persistence, and a client of it.
func bench(b *testing.B) (*redistest.Server, *Client) {
	b.Helper()
	s := redistest.Start(b, "--appendonly", "no")
	return s, start(b, Options{URL: s.URL, Owner: "dws-0@1a2b3c4d"})
}

// redisCPU reports what Redis itself spent, a unit: it is the part of the
// house that can't be doubled by another pod.
func redisCPU(b *testing.B, s *redistest.Server, units int) (report func()) {
	b.Helper()
	used := func() float64 {
		var sum float64
		for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
			v, err := strconv.ParseFloat(s.Info(name), 64)
			if err != nil {
				b.Fatal(err)
			}
			sum += v
		}
		return sum
	}
	before := used()
	return func() {
		b.StopTimer()
		b.ReportMetric((used()-before)*1e6/float64(b.N*units), "redis-us/unit")
		b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N*units), "us/unit")
	}
}

// One reader after the other: a unit is an event. Every route has two owners.
func BenchmarkLookup(b *testing.B) {
	for _, events := range []int{1, 10, 100} {
		b.Run("events="+strconv.Itoa(events), func(b *testing.B) {
			s, c := bench(b)
			wants := benchRoutes(b, c, s.URL, events)
			b.ReportAllocs()
			report := redisCPU(b, s, events)
			b.ResetTimer()
			for b.Loop() {
				if _, err := c.Lookup(context.Background(), part, wants, false); err != nil {
					b.Fatal(err)
				}
			}
			report()
		})
	}
}

// Readers of 16 partitions at once, as a pod has them.
func BenchmarkLookupParallel(b *testing.B) {
	for _, events := range []int{1, 10, 100} {
		b.Run("events="+strconv.Itoa(events), func(b *testing.B) {
			s, c := bench(b)
			wants := benchRoutes(b, c, s.URL, events)
			b.ReportAllocs()
			report := redisCPU(b, s, events)
			b.ResetTimer()
			atOnce(b, 16, func(int) error {
				_, err := c.Lookup(context.Background(), part, wants, false)
				return err
			})
			report()
		})
	}
}

func benchRoutes(b *testing.B, c *Client, url string, events int) []session.Want {
	b.Helper()
	other := start(b, Options{URL: url, Owner: "dws-1@5e6f7a8b"})
	var wants []session.Want
	for i := range events {
		w := session.Want{Company: "acme", Agent: fmt.Sprint("agent-", i%20)}
		if i%2 == 0 {
			w.Chat = fmt.Sprint(62800000+i, "@s.whatsapp.net")
		}
		wants = append(wants, w)
	}
	inc := incOf(b, c, part)
	for _, pod := range []*Client{c, other} {
		if stale, err := pod.JoinAll(context.Background(), part, inc, wants); stale || err != nil {
			b.Fatal(stale, err)
		}
	}
	return wants
}

// A unit is a login: acquire and open, with a restored chat.
func BenchmarkLogin(b *testing.B) {
	for _, at := range []int{1, 64} {
		b.Run("logins="+strconv.Itoa(at), func(b *testing.B) {
			s, c := bench(b)
			incs := make([]string, c.opt.Partitions)
			for n := range incs {
				incs[n] = incOf(b, c, n)
			}
			b.ReportAllocs()
			report := redisCPU(b, s, 1)
			b.ResetTimer()
			atOnce(b, at, func(i int) error {
				key := session.Key{Company: "acme", Agent: fmt.Sprint("agent-", i/10), User: fmt.Sprint("user-", i)}
				n := session.Partition(key.Company, key.Agent, c.opt.Partitions)
				a, err := c.Acquire(context.Background(), n, incs[n], key, uint64(i), false, 0)
				if err != nil {
					return err
				}
				_, err = c.Open(context.Background(), n, incs[n], session.Held{Key: key, Conn: uint64(i), Epoch: a.Epoch, Chat: "628@s.whatsapp.net"}, false)
				return err
			})
			report()
		})
	}
}

// A unit is an edge: joined and left again, from one goroutine that never
// waits; what piles up while a pipeline is out goes into the next.
func BenchmarkEdges(b *testing.B) {
	s, c := bench(b)
	incs := make([]string, c.opt.Partitions)
	for n := range incs {
		incs[n] = incOf(b, c, n)
	}
	b.ReportAllocs()
	report := redisCPU(b, s, 2)
	var open sync.WaitGroup
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		n := i % len(incs)
		w := session.Want{Company: "acme", Agent: "agent", Chat: strconv.Itoa(i % 1000)}
		open.Add(1)
		if err := c.Join(n, incs[n], &w, session.Held{}, func(session.Verdict, error) { open.Done() }); err != nil {
			open.Done()
			open.Wait() // a full queue
		}
		c.Leave(n, w)
	}
	open.Wait()
	report()
}

// A unit is a session of a sweep.
func BenchmarkReassert(b *testing.B) {
	s, c := bench(b)
	inc := incOf(b, c, part)
	const sessions = 1000
	var held []session.Held
	for i := range sessions {
		held = append(held, session.Held{
			Key:  session.Key{Company: "acme", Agent: fmt.Sprint("agent-", i/10), User: fmt.Sprint("user-", i)},
			Conn: uint64(i), Epoch: uint64(1795411297285854 + i), Chat: "628@s.whatsapp.net",
		})
	}
	b.ReportAllocs()
	report := redisCPU(b, s, sessions)
	b.ResetTimer()
	for b.Loop() {
		if _, stale, err := c.Reassert(context.Background(), part, inc, 1<<60, held); stale || err != nil {
			b.Fatal(stale, err)
		}
	}
	report()
}

// atOnce runs f b.N times from a number of goroutines.
func atOnce(b *testing.B, goroutines int, f func(i int) error) {
	b.Helper()
	var next atomic.Int64
	var group sync.WaitGroup
	for range goroutines {
		group.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.N {
					return
				}
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}
