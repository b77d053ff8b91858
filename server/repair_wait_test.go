package server

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A login that needs an assert is not kept waiting by a stream that is silent,
// also when it asks in the moment before its partition turns to the stream.
func TestAssertWaitsForNoStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p, _ := newWorld(t)
		w.hangs = make(chan struct{}, 100)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() { _ = p.Run(ctx) })
		p.Doubt()
		<-w.hangs // it is asserted, and reads the stream
		for range 3 {
			began := time.Now()
			if err := p.Assert(ctx); err != nil || time.Since(began) > 0 {
				t.Errorf("error %v after %v", err, time.Since(began))
			}
		}
		cancel()
		wg.Wait()
		if p.asserts < 5 { // the test's own, the doubt's, and one for each that asked
			t.Errorf("asserted %d times", p.asserts)
		}
	})
}
