package bench

import (
	"strings"
	"testing"
)

// What a threshold asks for in vain is told with what it may have meant.
func TestThresholdCheckFailure(t *testing.T) {
	r := &Report{Latencies: map[string]Latency{"delivery": {Count: 1, P99: 0.004}}, Oracle: &Verdict{Breaches: map[string]int64{"lost": 0}}}
	r.Add("rss_per_session", 1300, "B", "")
	r.Add("logins_per_second", 1300, "1/s", "")
	f := func(text string, want ...string) {
		t.Helper()
		list, err := parseThresholds(text)
		if err == nil {
			err = r.check(&list[0])
		}
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: error %v, want %q", text, err, w)
			}
		}
	}
	f("delivery.p95<5ms", "no \"p95\"", "p99.99")
	f("delivry.p99<5ms", "nearest", "delivery.p99")
	f("rss<1KiB", "nearest", "rss_per_session")
	f("rss_per_session<5ms", "in seconds", "is bytes")
	f("delivery.p99<5KiB", "in bytes", "is seconds")
	f("lost<1B", "plain number")
	f("delivery.p99<50%", "a share", "is seconds")
	f("logins_per_second>1s", "a rate a second")
	f("lost==NaN", "no number")
	for _, text := range []string{"logins_per_second>1000/s", "delivery.p99<0.005", "lost<50%", "delivery.p99<1min"} {
		list, err := parseThresholds(text)
		if err != nil || r.check(&list[0]) != nil || !list[0].OK {
			t.Errorf("%s: %+v, %v", text, list, err)
		}
	}
}
