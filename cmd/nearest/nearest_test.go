package nearest

import (
	"slices"
	"testing"
)

func TestNames(t *testing.T) {
	names := []string{"delivery.p50", "delivery.p99", "delivery_raw.p99", "lost", "repeated", "rss_per_session", "kernel_slab_per_session"}
	f := func(name string, want ...string) {
		t.Helper()
		if got := Names(name, names, len(want)); !slices.Equal(got, want) {
			t.Errorf("nearest to %q: %q, want %q", name, got, want)
		}
	}
	f("delivry.p99", "delivery.p99")
	f("rss", "rss_per_session")
	f("Lost", "lost")
	f("per_session", "rss_per_session", "kernel_slab_per_session")
	f("delivery.p50", "delivery.p50")
	if got := Names("x", nil, 3); len(got) != 1 {
		t.Errorf("of nothing: %q", got)
	}
}

func TestEdits(t *testing.T) {
	f := func(a, b string, want int) {
		t.Helper()
		if got := edits(a, b); got != want {
			t.Errorf("%q to %q: %d, want %d", a, b, got, want)
		}
		if got := edits(b, a); got != want {
			t.Errorf("%q to %q: %d, want %d", b, a, got, want)
		}
	}
	f("", "", 0)
	f("", "abc", 3)
	f("kitten", "sitting", 3)
	f("lost", "lost", 0)
	f("lost", "cost", 1)
}
