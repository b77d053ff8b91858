package rpc

import (
	"time"

	"github.com/daisi/daisi-ws/session"
)

// joinBytes is where a chunk stops taking more batches in: joining saves the
// cost of a message, which no longer counts at this size.
const joinBytes = 256 << 10

// maxMarks of one Progress frame keep it below any message limit.
const maxMarks = 128

// batchCost is what a queued batch is taken to weigh beside its events.
const batchCost = 128

// chunk is what waits of one partition: one batch, or several that continue
// each other under the same incarnation, and will be sent as one.
type chunk struct {
	n          int
	from, upto uint64
	inc        string
	revoked    uint64           // the newest of those joined
	parts      []*session.Batch // those with events or fences
	content    int              // encoded bytes of events and fences
	items      int              // how many those are
	events     int
	batches    int           // joined in it
	cost       int           // bytes accounted in the queue
	since      time.Duration // when the first of it came
}

// plain says that there is nothing in it but progress.
func (c *chunk) plain() bool { return len(c.parts) == 0 }

// takes says whether b continues c.
func (c *chunk) takes(b *session.Batch, content, limit int) bool {
	return c.upto == b.From && c.inc == b.Inc &&
		c.content+content <= limit && c.items+len(b.Events)+len(b.Fences) <= maxItems
}

func (c *chunk) add(b *session.Batch, content int) {
	c.upto = b.Upto
	c.revoked = max(c.revoked, b.Revoked)
	c.batches++
	c.content += content
	c.events += len(b.Events)
	if items := len(b.Events) + len(b.Fences); items > 0 {
		c.parts = append(c.parts, b)
		c.items += items
	}
}

// queue is what waits for one peer, bounded in bytes, in order per partition.
// The peer's lock guards it.
type queue struct {
	chunks []*chunk
	head   int            // chunks before it are gone
	last   map[int]*chunk // of a partition, still waiting
	free   []*chunk       // to be used again

	bytes   int // waiting, and taken but not written yet
	batches int // the same

	limit int // of bytes
	join  int // of a chunk's content
}

func newQueue(limit, maxMessage int) queue {
	return queue{limit: limit, join: min(joinBytes, maxMessage/2), last: map[int]*chunk{}}
}

// push queues b; false: it is full. One batch always fits when nothing waits.
func (q *queue) push(b *session.Batch, content int, now time.Duration) bool {
	c := q.last[b.N]
	join := c != nil && c.takes(b, content, q.join)
	if join && content == 0 {
		c.add(b, 0) // costs nothing, so it fits always
		q.batches++
		return true
	}
	cost := content + batchCost
	if q.bytes > 0 && q.bytes+cost > q.limit {
		return false
	}
	q.bytes += cost
	q.batches++
	if join {
		c.cost += cost
		c.add(b, content)
		return true
	}
	c = q.make()
	c.n, c.from, c.inc, c.cost, c.since = b.N, b.From, b.Inc, cost, now
	c.add(b, content)
	q.last[b.N] = c
	q.chunks = append(q.chunks, c)
	return true
}

func (q *queue) make() *chunk {
	if n := len(q.free); n > 0 {
		c := q.free[n-1]
		q.free = q.free[:n-1]
		return c
	}
	return &chunk{}
}

// take moves the next frame's worth out of the queue into f: one chunk with
// events, or all marks up to the next such chunk. False: nothing waits.
func (q *queue) take(f *outFrame) bool {
	f.batch, f.marks = nil, f.marks[:0]
	for q.head < len(q.chunks) && len(f.marks) < maxMarks {
		c := q.chunks[q.head]
		if !c.plain() && len(f.marks) > 0 {
			break
		}
		q.chunks[q.head] = nil
		q.head++
		if q.last[c.n] == c {
			delete(q.last, c.n)
		}
		if !c.plain() {
			f.batch = c
			break
		}
		f.marks = append(f.marks, c)
	}
	if q.head == len(q.chunks) {
		q.chunks, q.head = q.chunks[:0], 0
	} else if q.head > 1024 && q.head > len(q.chunks)/2 {
		q.chunks, q.head = append(q.chunks[:0], q.chunks[q.head:]...), 0
	}
	return f.batch != nil || len(f.marks) > 0
}

// written takes f off what is accounted, and counts what was in it.
func (q *queue) written(f *outFrame) (batches, events int) {
	if f.batch != nil {
		batches, events = f.batch.batches, f.batch.events
		q.release(f.batch)
	}
	for _, c := range f.marks {
		batches += c.batches
		q.release(c)
	}
	q.batches -= batches
	return batches, events
}

func (q *queue) release(c *chunk) {
	q.bytes -= c.cost
	clear(c.parts)
	*c = chunk{parts: c.parts[:0]}
	if len(q.free) < 64 && cap(c.parts) <= 256 {
		q.free = append(q.free, c)
	}
}

// oldest is when the first waiting chunk came.
func (q *queue) oldest() (time.Duration, bool) {
	if q.head == len(q.chunks) {
		return 0, false
	}
	return q.chunks[q.head].since, true
}
