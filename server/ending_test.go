package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// However many components hang, all of them together are waited for no longer
// than the stop may take, and the last still gets its part; one that ends is
// not waited for longer than that.
func TestAStopIsBoundedWhateverHangs(t *testing.T) {
	f := func(name string, takes []time.Duration, least, most time.Duration) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &Gateway{log: zerolog.Nop(), end: &ending{timeout: 10 * time.Second}}
				var running stack
				for _, d := range takes {
					running.push(g.start("memory", func(ctx context.Context) error {
						<-ctx.Done()
						time.Sleep(d)
						return nil
					}))
				}
				time.Sleep(time.Hour) // of serving is none of the stop
				began := time.Now()
				running.stop()
				if took := time.Since(began); took < least || took > most {
					t.Errorf("took %v, want %v to %v", took, least, most)
				}
				time.Sleep(time.Hour)
			})
		})
	}
	const s, hangs = time.Second, time.Minute
	f("none hangs", []time.Duration{0, s, s, 0}, 2*s, 2*s)
	f("one hangs", []time.Duration{0, hangs, 0}, 5*s, 5*s)
	f("one hangs, those behind it work", []time.Duration{s, s, hangs}, 7*s, 7*s)
	f("many hang", []time.Duration{hangs, hangs, hangs, hangs, hangs, hangs, hangs, hangs, hangs, hangs, hangs, hangs}, 9*s, 10*s)
}

// A step ends before its component is given up, and never has more than it asked for.
func TestStepsOfAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &ending{timeout: 8 * time.Second}
		f := func(own, want time.Duration) {
			t.Helper()
			if got := e.step(own); got != want || got > e.half() {
				t.Errorf("a step of %v gets %v, want %v", own, got, want)
			}
		}
		f(time.Second, time.Second)
		f(time.Minute, 2*time.Second)
		time.Sleep(6 * time.Second)
		e.begin() // again: the clock does not start anew
		f(time.Second, 500*time.Millisecond)
		time.Sleep(time.Minute)
		f(time.Second, 0)
	})
}
