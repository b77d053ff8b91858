package rpc

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/daisi/daisi-ws/session"
)

func batchOf(n int, from, upto uint64, size int) *session.Batch {
	b := &session.Batch{Stream: "stream-1", N: n, From: from, Upto: upto, Inc: "i"}
	if size > 0 {
		route := session.Route{Company: "c", Agent: agentIn(n), Kind: "chats"}
		b.Events = []session.Event{{Seq: upto, Route: route, Body: make([]byte, size)}}
	}
	return b
}

// Whatever is pushed and taken: each partition's ranges come out in order,
// joined only where they continue, each event once, and bytes return to 0.
func TestQueueKeepsWhatItTook(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := newQueue(8<<10, 64<<10)
		var pushed, taken [testPartitions][]uint64 // events
		var pos, got [testPartitions]uint64
		batches := 0
		take := func() bool {
			var f outFrame
			if !q.take(&f) {
				return false
			}
			chunks := f.marks
			if f.batch != nil {
				chunks = append(chunks, f.batch)
			}
			for _, c := range chunks {
				if c.from < got[c.n] || c.upto < c.from {
					t.Fatalf("(%d, %d] of %d after %d", c.from, c.upto, c.n, got[c.n])
				}
				got[c.n] = c.upto
				for _, b := range c.parts {
					for _, e := range b.Events {
						taken[c.n] = append(taken[c.n], e.Seq)
					}
				}
			}
			n, _ := q.written(&f)
			batches -= n
			return true
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				n := rapid.IntRange(0, testPartitions-1).Draw(t, "n")
				if rapid.IntRange(0, 5).Draw(t, "hole") == 0 {
					pos[n]++
				}
				b := batchOf(n, pos[n], pos[n]+rapid.Uint64Range(1, 4).Draw(t, "more"), rapid.SampledFrom([]int{0, 0, 10, 3000}).Draw(t, "size"))
				b.Inc = rapid.SampledFrom([]string{"i", "i", "i", "j"}).Draw(t, "inc")
				pos[n] = b.Upto
				if q.push(b, contentSize(b), 0) {
					batches++
					for _, e := range b.Events {
						pushed[n] = append(pushed[n], e.Seq)
					}
				}
			},
			"take": func(*rapid.T) { take() },
			"": func(t *rapid.T) {
				if q.batches != batches || q.bytes < 0 || q.bytes > q.limit+4<<10 {
					t.Fatalf("%d batches, want %d; %d bytes", q.batches, batches, q.bytes)
				}
			},
		})
		for take() {
		}
		if q.bytes != 0 || q.batches != 0 || len(q.last) != 0 {
			t.Fatalf("empty queue has %d bytes, %d batches, %d last", q.bytes, q.batches, len(q.last))
		}
		for n := range pushed {
			if len(pushed[n]) != len(taken[n]) {
				t.Fatalf("partition %d: pushed %v, took %v", n, pushed[n], taken[n])
			}
			for i := range pushed[n] {
				if pushed[n][i] != taken[n][i] {
					t.Fatalf("partition %d: pushed %v, took %v", n, pushed[n], taken[n])
				}
			}
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueue(64<<10, 8<<20)
	big := batchOf(0, 0, 1, 100<<10)
	if !q.push(big, contentSize(big), 0) {
		t.Fatal("one batch must fit when nothing waits")
	}
	if next := batchOf(1, 0, 1, 10); q.push(next, contentSize(next), 0) {
		t.Fatal("took more than its limit")
	}
	// Progress that only moves the end of what waits costs nothing.
	if more := batchOf(0, 1, 9, 0); !q.push(more, 0, 0) {
		t.Fatal("refused progress that joins")
	}
	var f outFrame
	if !q.take(&f) || f.batch == nil || f.batch.upto != 9 {
		t.Fatalf("took %+v", f.batch)
	}
	if next := batchOf(1, 0, 1, 10); q.push(next, contentSize(next), 0) {
		t.Fatal("what is being written counts until it is written")
	}
	q.written(&f)
	if next := batchOf(1, 0, 1, 10); !q.push(next, contentSize(next), 0) {
		t.Fatal("refused although nothing waits")
	}
}

func TestQueueJoinsProgressIntoOneFrame(t *testing.T) {
	q := newQueue(64<<10, 8<<20)
	for n := range testPartitions {
		q.push(batchOf(n, 0, 4, 0), 0, 0)
		q.push(batchOf(n, 4, 8, 0), 0, 0)
	}
	event := batchOf(2, 8, 9, 10)
	q.push(event, contentSize(event), 0) // turns the mark of 2 into a batch, in its place
	var f outFrame
	var got []int
	for q.take(&f) {
		if f.batch != nil {
			got = append(got, -f.batch.n)
		} else {
			got = append(got, len(f.marks))
		}
		q.written(&f)
	}
	if len(got) != 3 || got[0] != 2 || got[1] != -2 || got[2] != 1 {
		t.Fatalf("frames %v, want 2 marks, batch of 2, 1 mark", got)
	}
}

func TestQueueStopsJoining(t *testing.T) {
	q := newQueue(64<<20, 8<<20)
	for i := range uint64(10) {
		b := batchOf(0, i, i+1, 100<<10)
		q.push(b, contentSize(b), 0)
	}
	var f outFrame
	frames := 0
	for q.take(&f) {
		if f.size() > joinBytes+1024 {
			t.Fatalf("a frame of %d bytes", f.size())
		}
		frames++
		q.written(&f)
	}
	if frames != 5 {
		t.Fatalf("%d frames", frames)
	}
}
