package bench

import (
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Histogram bounds: 1 us to 10 minutes with three digits.
const (
	histMin    = 1
	histMax    = int64(10 * time.Minute / time.Microsecond)
	histDigits = 3
	histShards = 8 // power of two
)

// Hist is a latency histogram for many writers, in shards by a hint.
type Hist struct {
	shards [histShards]struct {
		mu sync.Mutex
		h  *hdrhistogram.Histogram // nil until used
		_  [48]byte                // a cache line each
	}
}

// Record notes d; hint spreads writers. Times below 1 us count as 1 us, those
// above 10 minutes as 10 minutes.
func (h *Hist) Record(hint uint32, d time.Duration) {
	v := min(max(int64(d/time.Microsecond), histMin), histMax)
	s := &h.shards[hint%histShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.h == nil {
		s.h = hdrhistogram.New(histMin, histMax, histDigits)
	}
	// v is within the bounds, which is the only error there is.
	_ = s.h.RecordValue(v)
}

// twin is a latency from the due instant, and beside it from the sending.
type twin struct{ due, raw Hist }

func (t *twin) login(l LoginTime) {
	t.due.Record(l.hint, l.FromDue)
	t.raw.Record(l.hint, l.FromSent)
}

// Reset forgets all that was recorded.
func (h *Hist) Reset() {
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		s.h = nil
		s.mu.Unlock()
	}
}

// absorb adds what o holds.
func (h *Hist) absorb(o *Hist) {
	sum := o.merged()
	if sum.TotalCount() == 0 {
		return
	}
	s := &h.shards[0]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.h == nil {
		s.h = hdrhistogram.New(histMin, histMax, histDigits)
	}
	s.h.Merge(sum) // of the same bounds, so nothing is dropped
}

// merged is one histogram of all shards.
func (h *Hist) merged() *hdrhistogram.Histogram {
	out := hdrhistogram.New(histMin, histMax, histDigits)
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		if s.h != nil {
			out.Merge(s.h)
		}
		s.mu.Unlock()
	}
	return out
}

// Latency is a summary in seconds. HDR holds the whole histogram (microseconds,
// compressed V2, base64), so that reports of several workers merge losslessly.
type Latency struct {
	Count int64   `json:"count"`
	Min   float64 `json:"min"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99.9"`
	P9999 float64 `json:"p99.99"`
	Max   float64 `json:"max"`
	HDR   string  `json:"hdr,omitempty"`
}

// Summary gives the percentiles so far.
func (h *Hist) Summary() (Latency, error) { return summary(h.merged()) }

func summary(m *hdrhistogram.Histogram) (Latency, error) {
	if m.TotalCount() == 0 {
		return Latency{}, nil
	}
	sec := func(us int64) float64 { return float64(us) / 1e6 }
	l := Latency{
		Count: m.TotalCount(), Min: sec(m.Min()), Mean: m.Mean() / 1e6, Max: sec(m.Max()),
		P50: sec(m.ValueAtQuantile(50)), P90: sec(m.ValueAtQuantile(90)), P99: sec(m.ValueAtQuantile(99)),
		P999: sec(m.ValueAtQuantile(99.9)), P9999: sec(m.ValueAtQuantile(99.99)),
	}
	enc, err := m.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return l, fmt.Errorf("encode histogram: %w", err)
	}
	l.HDR = string(enc) // base64 already
	return l, nil
}

// Histogram is the whole of it: microseconds.
func (l Latency) Histogram() (*hdrhistogram.Histogram, error) {
	h, err := hdrhistogram.Decode([]byte(l.HDR))
	if err != nil {
		return nil, fmt.Errorf("decode histogram: %w", err)
	}
	return h, nil
}
