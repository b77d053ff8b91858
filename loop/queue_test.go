package loop

import (
	"fmt"
	"testing"

	"github.com/gobwas/ws"
)

// TestQueueOfABusySocket wants what a socket that is never quite empty holds to
// be what waits for it, not all that it was ever given, and in order.
func TestQueueOfABusySocket(t *testing.T) {
	const waiting, rounds, each = 100, 5000, 7
	for _, lane := range []Lane{Control, Events} {
		t.Run(fmt.Sprint(lane), func(t *testing.T) {
			e, err := New(Options{Budget: 1 << 30})
			if err != nil {
				t.Fatal(err)
			}
			c := e.NewConn(quietHandler{})
			var given, taken []*Frame
			give := func(n int) {
				for range n {
					f := NewFrame(ws.OpText, []byte("word"), lane)
					if err := c.Queue(f); err != nil {
						t.Fatal(err)
					}
					given = append(given, f)
				}
			}
			give(waiting)
			most := 0
			for range rounds {
				// As the worker has it: more comes while it writes, and some is left.
				c.shard.mu.Lock()
				q := c.q
				c.q = nil
				c.shard.mu.Unlock()
				give(each)
				for range each {
					taken = append(taken, q.peek())
					q.pop()
				}
				c.shard.mu.Lock()
				c.shard.putBack(c, q)
				most = max(most, cap(c.q.control), cap(c.q.events))
				c.shard.mu.Unlock()
			}
			if limit := 8 * waiting; most > limit {
				t.Errorf("room for %d frames where %d wait, want at most %d", most, waiting, limit)
			}
			for q := c.q; !q.empty(); q.pop() {
				taken = append(taken, q.peek())
			}
			if len(taken) != len(given) {
				t.Fatalf("%d of %d frames", len(taken), len(given))
			}
			for i, f := range given {
				if taken[i] != f {
					t.Fatalf("frame %d is another one", i)
				}
			}
		})
	}
}
