package natsx

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/valyala/fastjson"

	"github.com/daisi/daisi-ws/natsx/natstest"
)

// cpu is the processor time of this process so far.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuOf is that of another process, in steps of 10 ms.
func cpuOf(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int
	for _, s := range f[11:13] { // utime, stime
		n, err := strconv.Atoi(s)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func payload(size int) []byte {
	return []byte(`{"event_id":"` + strings.Repeat("x", size-15) + `"}`)
}

// BenchmarkNext reads b.N events that have piled up, and tells the processor
// time of both sides.
func BenchmarkNext(b *testing.B) {
	for _, size := range []int{300, 4096} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			srv := natstest.StartProcess(b)
			c := start(b, Options{URL: srv.URL, CreateStream: true, Partitions: 1})
			pub := srv.Publisher(b)
			for range b.N {
				pub.Send("websocket.company.agent.chats", payload(size))
			}
			pub.Flush()
			until(b, "sourced", func() bool { _, last, err := c.LastSeq(b.Context()); return err == nil && last == uint64(b.N) })
			r := c.Reader(0, 0)
			defer r.Close()
			b.ReportAllocs()
			began, theirs := cpu(b), cpuOf(b, srv.Pid())
			b.ResetTimer()
			batches := 0
			for got := 0; got < b.N; {
				evs, err := r.Next(b.Context())
				if err != nil && !errors.Is(err, ErrIdle) {
					b.Fatal(err)
				}
				got += len(evs)
				batches++
			}
			b.StopTimer()
			b.ReportMetric(float64((cpu(b)-began).Nanoseconds())/1e3/float64(b.N), "cpu-us/event")
			b.ReportMetric(float64((cpuOf(b, srv.Pid())-theirs).Nanoseconds())/1e3/float64(b.N), "server-cpu-us/event")
			b.ReportMetric(float64(b.N)/float64(batches), "events/batch")
		})
	}
}

// BenchmarkPublishToNext publishes by schedule, 500 events a second, into 64
// partitions that are all read.
func BenchmarkPublishToNext(b *testing.B) {
	srv := natstest.StartProcess(b)
	c := start(b, Options{URL: srv.URL, CreateStream: true})
	var mu sync.Mutex
	due := make([]time.Time, b.N)
	took := make([]time.Duration, 0, b.N)
	done := make(chan struct{})
	watchAll(b, c, func(body []byte) {
		now := time.Now()
		n, err := strconv.Atoi(string(body[5 : len(body)-1]))
		if err != nil {
			b.Error(err)
		}
		mu.Lock()
		took = append(took, now.Sub(due[n]))
		if len(took) == b.N {
			close(done)
		}
		mu.Unlock()
	})
	nc := srv.Conn(b)
	time.Sleep(500 * time.Millisecond) // consumers and sources stand
	b.ResetTimer()
	began := time.Now()
	for i := range b.N {
		mu.Lock()
		due[i] = began.Add(time.Duration(i) * 2 * time.Millisecond)
		mu.Unlock()
		time.Sleep(time.Until(due[i]))
		if err := nc.Publish("websocket.company.agent"+strconv.Itoa(i%100)+".chats", []byte(body(i))); err != nil {
			b.Fatal(err)
		}
	}
	<-done
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

// watchAll reads all partitions until the benchmark ends.
func watchAll(b *testing.B, c *Client, f func(body []byte)) {
	b.Helper()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	b.Cleanup(func() { close(stop); wg.Wait() })
	for n := range c.Stream().Partitions {
		r := c.Reader(n, c.Stream().Last)
		wg.Go(func() {
			defer r.Close()
			for {
				select {
				case <-stop:
					return
				default:
				}
				evs, err := r.Next(b.Context())
				if err != nil && !errors.Is(err, ErrIdle) {
					return
				}
				for _, ev := range evs {
					f(ev.Body)
				}
			}
		})
	}
}

// BenchmarkIdle is what 64 readers with nothing to read cost, in both
// processes; run it with -benchtime=1x.
func BenchmarkIdle(b *testing.B) {
	srv := natstest.StartProcess(b)
	c := start(b, Options{URL: srv.URL, CreateStream: true})
	watchAll(b, c, func([]byte) {})
	time.Sleep(2 * time.Second)
	const window = 5 * time.Second
	for b.Loop() {
		began, theirs := cpu(b), cpuOf(b, srv.Pid())
		time.Sleep(window)
		b.ReportMetric(float64((cpu(b)-began).Microseconds())/window.Seconds(), "cpu-us/s")
		b.ReportMetric(float64((cpuOf(b, srv.Pid())-theirs).Microseconds())/window.Seconds(), "server-cpu-us/s")
	}
}

func BenchmarkJSONObject(b *testing.B) {
	mixed := []byte(`{"event_id":"0d9c1c5e-5e7a-4a43-a5a5-64f2f3c3f8a1","event_time":"2026-01-01T00:00:00Z","company_id":"acme",` +
		`"agent_id":"ag1","message_id":"3EB0","chat_id":"628@s.whatsapp.net","row_data":{"id":123456,"read":false,"score":-1.5e3,` +
		`"text":"Selamat pagi, ada yang bisa dibantu? \"ya\" — 🙂","list":[1,2,3,null,true]}}`)
	for _, body := range [][]byte{mixed, payload(4096)} {
		run := func(by string, f func() bool) {
			b.Run(fmt.Sprintf("size=%d/by=%s", len(body), by), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(body)))
				for b.Loop() {
					if !f() {
						b.Fatal("refused")
					}
				}
			})
		}
		run("natsx", func() bool { _, ok := jsonObject(body); return ok })
		run("fastjson", func() bool { return fastjson.ValidateBytes(body) == nil })
		run("std", func() bool { return json.Valid(body) })
	}
}
