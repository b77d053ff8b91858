package bench

import (
	"fmt"
	"maps"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// merge adds what a worker found to the guide's report: counts are summed,
// histograms merged bucket by bucket, so nothing is lost in it.
func (r *Report) merge(part int, o *Report) error {
	for _, e := range o.Errors {
		r.Errors = append(r.Errors, fmt.Sprintf("worker %d: %s", part, e))
	}
	r.Interrupted = r.Interrupted || o.Interrupted
	if o.Logins != nil {
		seconds := o.Logins.Seconds // side by side, not one after the other
		if r.Logins != nil {
			seconds = max(seconds, r.Logins.Seconds)
		}
		r.addLogins(*o.Logins)
		r.Logins.Seconds = seconds
	}
	r.Closes = sumInto(r.Closes, o.Closes)
	r.ErrorFrames = sumInto(r.ErrorFrames, o.ErrorFrames)
	r.Counts = sumInto(r.Counts, o.Counts)
	if o.Oracle != nil {
		if r.Oracle == nil {
			r.Oracle = &Verdict{Breaches: map[string]int64{}}
		}
		r.Oracle.merge(o.Oracle)
	}
	for name, l := range o.Latencies {
		sum, err := r.Latencies[name].plus(l)
		if err != nil {
			return fmt.Errorf("merge latency %q of worker %d: %w", name, part, err)
		}
		r.Latencies[name] = sum
	}
	return r.Generator.merge(fmt.Sprintf("worker %d", part), &o.Generator)
}

func sumInto(sum, more map[string]int64) map[string]int64 {
	if sum == nil {
		return maps.Clone(more)
	}
	for k, n := range more {
		sum[k] += n
	}
	return sum
}

func (v *Verdict) merge(o *Verdict) {
	v.Sessions += o.Sessions
	v.Published += o.Published
	v.Unsure += o.Unsure
	v.Expected += o.Expected
	v.Received += o.Received
	v.Met += o.Met
	v.Told += o.Told
	v.Foreign += o.Foreign
	v.Gaps += o.Gaps
	v.Takeovers += o.Takeovers
	v.Overlaps += o.Overlaps
	v.Excused += o.Excused
	v.Breaches = sumInto(v.Breaches, o.Breaches)
	v.Findings = append(v.Findings, o.Findings...)
	v.Findings = v.Findings[:min(len(v.Findings), MaxFindings)]
}

// plus merges two histograms; either may be empty.
func (l Latency) plus(o Latency) (Latency, error) {
	if l.Count == 0 {
		return o, nil
	}
	if o.Count == 0 {
		return l, nil
	}
	sum, err := hdrhistogram.Decode([]byte(l.HDR))
	if err != nil {
		return l, fmt.Errorf("decode histogram: %w", err)
	}
	more, err := hdrhistogram.Decode([]byte(o.HDR))
	if err != nil {
		return l, fmt.Errorf("decode histogram: %w", err)
	}
	if dropped := sum.Merge(more); dropped > 0 {
		return l, fmt.Errorf("merge histograms: %d values do not fit", dropped)
	}
	return summary(sum)
}

// merge keeps the figures of the slowest, for it alone can void the result. who
// is the worker, or the run of a set, that o is of.
func (g *Generator) merge(who string, o *Generator) (err error) {
	g.CPU = max(g.CPU, o.CPU)
	g.Bytes += o.Bytes
	if o.Bottleneck != "" && g.Bottleneck == "" {
		g.Bottleneck = who + ": " + o.Bottleneck
	}
	if o.Slow != "" && g.Slow == "" {
		g.Slow = who + ": " + o.Slow
	}
	if g.Lag, err = g.Lag.plus(o.Lag); err != nil {
		return err
	}
	if o.Feed == nil {
		return nil
	}
	if g.Feed == nil {
		g.Feed = new(FeedStats)
	}
	f := g.Feed
	f.Sent, f.Acked, f.Refused, f.Stalls = f.Sent+o.Feed.Sent, f.Acked+o.Feed.Acked, f.Refused+o.Feed.Refused, f.Stalls+o.Feed.Stalls
	f.Lag, err = f.Lag.plus(o.Feed.Lag)
	return err
}

// add sums what workers bear side by side.
func (s *Sample) add(o Sample) {
	s.Sessions += o.Sessions
	s.Logins += o.Logins
	s.Received += o.Received
	s.Published += o.Published
	s.OwnCPU += o.OwnCPU
	s.Breaches += o.Breaches
	s.Asked, s.Failed, s.Closed = s.Asked+o.Asked, s.Failed+o.Failed, s.Closed+o.Closed
	s.Returns += o.Returns
	s.Delivery, s.DeliveryRaw, s.Login = s.Delivery.with(o.Delivery), s.DeliveryRaw.with(o.DeliveryRaw), s.Login.with(o.Login)
}

// addRows adds a worker's rows to the guide's, each to the one of that second;
// for seconds the worker did not tell of, its last row before stands.
func addRows(rows []Sample, more map[int]Sample, ahead float64) {
	var last Sample
	for i := range rows {
		if r, ok := more[int(rows[i].At-ahead)]; ok {
			last = r
		} else {
			last.Delivery, last.DeliveryRaw, last.Login = nil, nil, nil // totals stand, a second's latency does not
		}
		rows[i].add(last)
	}
}
