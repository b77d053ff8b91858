package bench

import (
	"math/rand/v2"
	"sync/atomic"
)

// planter commits the faults of a Plant: it picks, by the run's seed, which of
// the first event frames are dropped or doubled.
type planter struct {
	at    map[int64]fault // by ordinal of the event frame; nil: nothing planted
	frame atomic.Int64
	done  [faults]atomic.Int64
}

type fault uint8

const (
	faultNone fault = iota
	faultDrop
	faultDouble
	faults
)

// planting is the range of ordinals that faults are drawn from: early, so that
// short runs have them too.
const planting = 64

func newPlanter(p Plant, rng *rand.Rand) *planter {
	n := p.Drop + p.Double
	if n == 0 {
		return &planter{}
	}
	t := &planter{at: make(map[int64]fault, n)}
	for i, at := range rng.Perm(max(planting, 4*n))[:n] {
		f := faultDouble
		if i < p.Drop {
			f = faultDrop
		}
		t.at[int64(at)] = f
	}
	return t
}

// next decides about one event frame.
func (t *planter) next() fault {
	if t.at == nil {
		return faultNone
	}
	f := t.at[t.frame.Add(1)-1]
	t.done[f].Add(1)
	return f
}
