//go:build prove

package server_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/bench"
)

// The whole set, drain and chaos with it, five times, each on a cluster of its
// own.
func TestProveVerify(t *testing.T) {
	for i := range 5 {
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			l := startLocal(t, 3)
			o := bench.VerifyOptions{FanoutOptions: localFanout(l), Local: l}
			o.Sessions, o.Rate, o.Duration = 600, 200, 4*time.Second
			r, err := bench.Verify(context.Background(), o)
			passed(t, r, err)
			if len(r.Parts) != 8 {
				t.Errorf("%d parts, want 8", len(r.Parts))
			}
		})
	}
}
