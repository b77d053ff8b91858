package bench

import (
	"math"
	"testing"
	"time"
)

func TestPulse(t *testing.T) {
	var p Pulse
	if b := p.Take(); b != nil {
		t.Fatalf("empty: %+v", b)
	}
	for i := range 1000 {
		p.Record(time.Duration(i+1) * time.Millisecond)
	}
	near := func(got, want float64) bool { return math.Abs(got-want) <= want/15 }
	b := p.Take()
	if b == nil || b.Count != 1000 || !near(b.P50, 0.5) || !near(b.P99, 0.99) || !near(b.Max, 1) {
		t.Fatalf("%+v", b)
	}
	if b := p.Take(); b != nil {
		t.Errorf("taken twice: %+v", b)
	}
	p.Record(-time.Second)
	p.Record(1000 * time.Hour)
	if b := p.Take(); b.Count != 2 || b.P50 != 0 || !near(b.Max, 3600) {
		t.Errorf("bounds: %+v", b)
	}
}

// Every value lies in its bucket, and buckets follow each other without a hole.
func TestPulseBuckets(t *testing.T) {
	for i := 1; i < pulseBucket(uint32(time.Hour/time.Microsecond)); i++ {
		low, high := pulseTop(i-1)+1, pulseTop(i)
		if low > high || pulseBucket(uint32(low)) != i || pulseBucket(uint32(high)) != i {
			t.Fatalf("bucket %d is %d to %d us; these belong to %d and %d", i, low, high, pulseBucket(uint32(low)), pulseBucket(uint32(high)))
		}
	}
}
