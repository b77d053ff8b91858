package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// deed is what a step does beside its events; nil: nothing, in this process.
func (s script) deed(st *Stage, p Step, c cast, rng *rand.Rand) func(context.Context) error {
	part := st.Options.Part
	switch p.Do {
	case DeedKill, DeedStop, DeedRestart:
		if s.Local == nil {
			return nil // the guide's
		}
		return func(ctx context.Context) error { return s.breakPods(ctx, p, rng) }
	case DeedStuck:
		if c.busy == nil {
			return nil
		}
		return func(ctx context.Context) error { return s.stuck(ctx, st, p, c.busy) }
	case DeedChurn, DeedStorm, DeedTakeover:
		if len(c.logins) == 0 {
			return nil
		}
		list, pace := movedLogins(st, p, c.logins, rng), st.Pace()
		pace.Rate = p.Pace / float64(max(part.Count, 1))
		return func(ctx context.Context) error {
			if p.Do == DeedStorm {
				pace.Together = true
				st.Fleet.leaveAll()
			}
			return st.loginAt(ctx, list, pace, nil)
		}
	}
	return nil
}

// movedLogins are who comes again, in which order, each at the next door.
func movedLogins(st *Stage, p Step, logins []Login, rng *rand.Rand) []Login {
	n := len(logins)
	switch p.Do {
	case DeedChurn:
		n = int(p.Pace * p.For.Seconds() / float64(max(st.Options.Part.Count, 1)))
	case DeedTakeover:
		n = int(p.Share*float64(n) + 0.5)
	}
	list := make([]Login, n)
	var order []int
	for i := range list {
		if i%len(logins) == 0 {
			order = rng.Perm(len(logins))
		}
		l := &logins[order[i%len(logins)]]
		if p.Do != DeedStorm {
			l.Door = (l.Door + 1) % st.Doors()
		}
		list[i] = *l
		list[i].Leave = p.Do == DeedChurn
		if list[i].Mode == ChatQuery && i%2 == 1 {
			list[i].Mode = ChatRestored // the server remembers it
		}
	}
	return list
}

// Stuck readers have an agent of their own, whose events are large and come
// often enough to fill what the kernel and the gateway hold for them.
const (
	busySize = 16 << 10
	busyRate = 100 // a second, in all parts together, if there are so many events
)

func (st *Stage) busyPage() *Page {
	p := st.Book.Page(st.Options.Company, fmt.Sprintf("stuck%d", st.Options.Part.Index))
	p.size = busySize
	return p
}

// withBusy lets some of the step's events go to the stuck readers' agent.
func (c cast) withBusy(p Step, picks func(int) (*Page, uint16)) func(int) (*Page, uint16) {
	if c.busy == nil {
		return picks
	}
	each := max(int(p.Rate/busyRate), 2)
	return func(i int) (*Page, uint16) {
		if i%each == 0 {
			return c.busy, 0
		}
		return picks(i)
	}
}

// stuck opens sessions that read nothing until the step's time is over, then
// looks how each was told.
func (s script) stuck(ctx context.Context, st *Stage, p Step, busy *Page) error {
	n := st.Options.Part.share(int(p.Share*float64(s.Sessions) + 0.5))
	if n == 0 {
		return nil
	}
	readers, err := st.Fleet.stick(ctx, []*Page{busy}, n)
	if err != nil {
		return err
	}
	defer readers.close()
	if err := Wait(ctx, time.Now().Add(p.For)); err != nil {
		return err
	}
	readers.settle(stuckSettle)
	c := st.Report.Counts
	c["readers"] += int64(n)
	c["readers_open"] += 0 // so that there is a figure
	for code, k := range readers.ends {
		c["readers_"+code] += k
	}
	return nil
}

// stuckSettle is how long what waited for a stuck reader may take to come once
// it reads.
const stuckSettle = 5 * time.Second

// breakPods breaks pods of the run's own cluster until the step's time is over,
// or each has had its turn.
func (s script) breakPods(ctx context.Context, p Step, rng *rand.Rand) error {
	pods := s.Local.Pods()
	if p.Do == DeedRestart {
		for _, pod := range pods {
			pod.Term()
			if err := s.revive(ctx, pod); err != nil {
				return err
			}
			if err := Wait(ctx, time.Now().Add(p.Pause)); err != nil {
				return err
			}
		}
		return nil
	}
	for end := time.Now().Add(p.For); time.Now().Before(end); {
		next := time.Now().Add(p.Every)
		pod := pods[rng.IntN(len(pods))]
		if err := s.fault(ctx, p, pod); err != nil {
			return err
		}
		if err := Wait(ctx, next); err != nil {
			return err
		}
	}
	return nil
}

// fault breaks one pod and mends it.
func (s script) fault(ctx context.Context, p Step, pod *Pod) error {
	if p.Do == DeedStop {
		if err := pod.Stop(); err != nil {
			return err
		}
		err := Wait(ctx, time.Now().Add(p.Pause))
		return errors.Join(err, pod.Cont())
	}
	pod.Kill()
	if err := Wait(ctx, time.Now().Add(p.Pause)); err != nil {
		return err
	}
	return s.revive(ctx, pod)
}

func (s script) revive(ctx context.Context, pod *Pod) error {
	if err := pod.Start(); err != nil {
		return err
	}
	if err := s.Local.AwaitWhole(ctx); err != nil {
		return fmt.Errorf("after the restart of %s: %w", pod.ID, err)
	}
	return nil
}
