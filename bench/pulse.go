package bench

import (
	"cmp"
	"math/bits"
	"sync/atomic"
	"time"
)

// Pulse is a coarse histogram of the last second, for the time series: one
// atomic add a record, 1/16 exact. What is judged comes from Hist.
type Pulse struct {
	n [pulseBuckets]atomic.Int32
}

const (
	pulseBits    = 4 // 16 buckets an octave
	pulseBuckets = 32 << pulseBits
)

// Beat is what a Pulse held: seconds. Of several workers' beats the highest
// stand; what is judged merges whole histograms.
type Beat struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// with joins another worker's beat; either may be nil.
func (b *Beat) with(o *Beat) *Beat {
	if b == nil || o == nil {
		return cmp.Or(b, o)
	}
	return &Beat{Count: b.Count + o.Count, P50: max(b.P50, o.P50), P99: max(b.P99, o.P99), Max: max(b.Max, o.Max)}
}

// Record notes d; below 1 us counts as 0, above an hour as an hour.
func (p *Pulse) Record(d time.Duration) {
	us := uint32(min(max(d, 0), time.Hour) / time.Microsecond)
	p.n[pulseBucket(us)].Add(1)
}

func pulseBucket(us uint32) int {
	if us < 2<<pulseBits {
		return int(us)
	}
	shift := bits.Len32(us) - pulseBits - 1
	return shift<<pulseBits + int(us>>shift)
}

// pulseTop is the largest number of microseconds of a bucket.
func pulseTop(i int) uint64 {
	if i < 2<<pulseBits {
		return uint64(i)
	}
	shift := i>>pulseBits - 1
	return uint64(i-shift<<pulseBits+1)<<shift - 1
}

// Take gives what was recorded since the last call, nil if nothing was.
func (p *Pulse) Take() *Beat {
	var n [pulseBuckets]int32
	b := new(Beat)
	for i := range n {
		n[i] = p.n[i].Swap(0)
		b.Count += int64(n[i])
	}
	if b.Count == 0 {
		return nil
	}
	seen := int64(0)
	at := func(i int) float64 { return float64(pulseTop(i)) / 1e6 }
	for i := range n {
		if n[i] == 0 {
			continue
		}
		before := seen
		seen += int64(n[i])
		if half := (b.Count + 1) / 2; before < half && half <= seen {
			b.P50 = at(i)
		}
		if tail := b.Count - b.Count/100; before < tail && tail <= seen {
			b.P99 = at(i)
		}
		b.Max = at(i)
	}
	return b
}
