package bench

import (
	"fmt"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

func benchClient(b *bed) *client {
	w := b.watch("u", 1)
	w.Ready(1, "", 1)
	fleet := &Fleet{plant: &planter{}}
	return &client{fleet: fleet, watch: w, user: w.user, state: clientLive}
}

func benchMessage(b *bed, n int) []byte {
	b.seq++
	return append(append([]byte(eventHead), AppendBody(nil, b.page, b.sent[n], 260)...), fmt.Sprintf(`,"seq":%d}`, b.seq)...)
}

// BenchmarkMessage is what one received event costs this process in user time:
// decoding, hash, verdict, two histograms.
func BenchmarkMessage(b *testing.B) {
	bed := newBed(nil)
	c := benchClient(bed)
	msgs := make([][]byte, 1<<12)
	for i := range msgs {
		msgs[i] = benchMessage(bed, bed.publish(uint16(i%2)))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%len(msgs) == 0 {
			c.watch.next, c.watch.seq = 0, 0
		}
		c.Message(nil, ws.OpText, msgs[i%len(msgs)])
	}
}

func BenchmarkAppendBody(b *testing.B) {
	_, p := testPage()
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendBody(buf[:0], p, Mark{Run: 7, Page: p.index, Topic: 1, Due: time.Now().UnixNano()}, 260)
	}
}
