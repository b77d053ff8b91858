package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// errMemory is why a run stopped before the machine ran out of memory.
var errMemory = errors.New("stopped before memory ran out")

// guardBeat is how often the guard looks: at 10,000 sessions a second, 12 KiB
// each, a beat costs 60 MiB.
const guardBeat = 500 * time.Millisecond

// guard ends the context, with errMemory and the numbers, when less than
// reserve bytes are available on this machine. stop ends the guard.
func (st *Stage) guard(ctx context.Context, reserve int64) (guarded context.Context, stop func()) {
	guarded, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(guardBeat)
		defer t.Stop()
		for {
			select {
			case <-guarded.Done():
				return
			case <-t.C:
				k := readSockets()
				if k.Available > 0 && k.Available < reserve {
					cancel(st.outOfMemory(k, reserve))
					return
				}
			}
		}
	}()
	return guarded, func() {
		cancel(nil)
		<-done
	}
}

func (st *Stage) outOfMemory(k Kernel, reserve int64) error {
	var s Sample
	st.sample(&s)
	if g, ok := st.crew.(*guide); ok {
		g.live(&s)
	}
	var rss int64
	// Those that can't be read are gone, and weigh nothing.
	servers, _ := st.Sampler.Processes()
	for _, p := range servers {
		rss += p.RSS
	}
	return fmt.Errorf("%w: %s available, less than %s, with %d sessions; %d gateways %s, kernel slab %s, TCP buffers %s",
		errMemory, bytesText(float64(k.Available)), bytesText(float64(reserve)), s.Sessions, len(servers), bytesText(float64(rss)), bytesText(float64(k.Slab)), bytesText(float64(k.TCP)))
}
