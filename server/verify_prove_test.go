//go:build prove

package server_test

import (
	"context"
	"testing"

	"github.com/daisi/daisi-ws/bench"
)

// The whole set, drain and chaos with it, on a cluster of its own.
func TestProveVerify(t *testing.T) {
	l := startLocal(t, 3)
	o := bench.VerifyOptions{FanoutOptions: localFanout(l), Local: l}
	o.Sessions, o.Rate, o.Duration = 600, 200, proofTime
	r, err := bench.Verify(context.Background(), o)
	passed(t, r, err)
	if len(r.Parts) != 8 {
		t.Errorf("%d parts, want 8", len(r.Parts))
	}
}
