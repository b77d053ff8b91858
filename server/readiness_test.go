package server_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// probes look at /readyz of a watcher's pods again and again, and note when the
// worst answer of them changes.
type probes struct {
	w     *watcher
	down  []int
	began time.Time
	stop  chan struct{}
	wg    sync.WaitGroup
	last  string
	text  []string // the worst of all, and since when
}

func (w *watcher) startProbes(down []int) *probes {
	p := &probes{w: w, down: down, began: time.Now(), stop: make(chan struct{})}
	p.wg.Go(func() {
		for {
			p.look()
			select {
			case <-p.stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	return p
}

func (p *probes) look() {
	if now := p.worst(); now != p.last {
		p.text = append(p.text, fmt.Sprintf("%s at %.1f s", now, time.Since(p.began).Seconds()))
		p.last = now
	}
}

// worst of the answers.
func (p *probes) worst() string {
	order := []string{"READY", "DEGRADED", "NOT_READY", "no answer"}
	worst := 0
	for i, pod := range p.w.c.Pods {
		if slices.Contains(p.down, i) {
			continue
		}
		a, err := p.w.c.Do("GET", pod.InternalURL()+"/readyz", "")
		state, _ := a.JSON()["status"].(string)
		if err != nil {
			state = "no answer"
		}
		worst = max(worst, slices.Index(order, cmp.Or(state, "no answer")))
	}
	return order[worst]
}

// end says what they saw, over time.
func (p *probes) end() string {
	close(p.stop)
	p.wg.Wait()
	p.look()
	return strings.Replace(strings.Join(p.text, ", "), " at 0.0 s", "", 1)
}
