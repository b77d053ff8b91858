package local

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"github.com/daisi/daisi-ws/bench"
)

// clockWatch is how long the clocks are watched, clockBeat how often.
const (
	clockWatch = time.Second
	clockBeat  = 5 * time.Millisecond
)

// instant is one look at both clocks.
type instant struct {
	wall int64         // unix nanoseconds
	mono time.Duration // since the first look
}

// clock sees steps of the wall clock, and times in which nothing ran.
func clock(ctx context.Context) []Finding {
	began := time.Now()
	looks := []instant{{wall: began.UnixNano()}}
	for last := began; time.Since(began) < clockWatch; {
		if bench.Wait(ctx, last.Add(clockBeat)) != nil {
			break
		}
		last = time.Now()
		looks = append(looks, instant{last.UnixNano(), last.Sub(began)})
	}
	return judgeClock(looks)
}

// judgeClock judges looks that were to be clockBeat apart.
func judgeClock(looks []instant) []Finding {
	var step, stall time.Duration
	for i, now := range looks[1:] {
		stall = max(stall, now.mono-looks[i].mono-clockBeat)
		// The wall clock's way less the monotonic clock's.
		if d := time.Duration(now.wall-looks[0].wall) - now.mono; d.Abs() > step.Abs() {
			step = d
		}
	}
	steps := Finding{
		Name: "clock steps", State: OK, Is: fmt.Sprintf("%v in %v", step.Round(time.Microsecond), clockWatch),
		Means: "latency between two processes is a difference of wall clocks: a step shows as latency, or as less than none", Mend: "let chrony or timesyncd slew: makestep off once it runs",
	}
	if step.Abs() > time.Millisecond {
		steps.State = Warn
	}
	stalls := Finding{
		Name: "stalls", State: OK, Is: fmt.Sprintf("longest %v in %v", stall.Round(time.Microsecond), clockWatch),
		Means: "this process did not get to run for so long: another program or the host held the cores, and p99 will show it", Mend: "measure with nothing else running, on a host that does not overcommit",
	}
	if stall > 20*time.Millisecond {
		stalls.State = Warn
	}
	return []Finding{steps, stalls}
}

// pings is how many round trips are timed.
const pings = 200

// roundTrips times do; the first, which connects, does not count.
func roundTrips(do func() error) (p50, p99 time.Duration, err error) {
	var list []time.Duration
	for i := range pings + 1 {
		began := time.Now()
		if err := do(); err != nil {
			return 0, 0, err
		}
		if i > 0 {
			list = append(list, time.Since(began))
		}
	}
	slices.Sort(list)
	return list[pings/2], list[pings*99/100], nil
}

// judgeLatency fills in a finding about round trips.
func judgeLatency(f Finding, slow time.Duration, do func() error) Finding {
	p50, p99, err := roundTrips(do)
	if err != nil {
		f.State, f.Is = Fail, err.Error()
		return f
	}
	f.Is = fmt.Sprintf("p50 %v, p99 %v of %d", p50.Round(time.Microsecond), p99.Round(time.Microsecond), pings)
	if p50 > slow {
		f.State = Warn
	}
	return f
}

func redisLatency(ctx context.Context, url string) []Finding {
	f := Finding{Name: "Redis", State: OK, Means: "a login takes two round trips, a batch of events one", Mend: "nearer, without a proxy between; look at redis-cli --latency and SLOWLOG"}
	policy := Finding{Name: "Redis's maxmemory-policy", State: OK, Means: "anything but noeviction may throw locks away: two owners of one key", Mend: "redis-cli CONFIG SET maxmemory-policy noeviction"}
	o, err := redis.ParseURL(url)
	if err != nil {
		f.State, f.Is, f.Mend = Fail, "its URL can not be read", "a URL such as redis://host:6379/0" // the error would show the password
		return []Finding{f}
	}
	o.MaxRetries, o.ContextTimeoutEnabled = -1, true
	client := redis.NewClient(o)
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	f = judgeLatency(f, time.Millisecond, func() error { return client.Ping(ctx).Err() })
	if f.State == Fail {
		return []Finding{f}
	}
	switch m, err := client.ConfigGet(ctx, "maxmemory-policy").Result(); {
	case err != nil:
		policy.State, policy.Is = Warn, err.Error()
	default:
		if policy.Is = m["maxmemory-policy"]; policy.Is != "noeviction" {
			policy.State = Fail
		}
	}
	return []Finding{f, policy}
}

func natsLatency(ctx context.Context, url string) Finding {
	f := Finding{Name: "NATS", State: OK, Means: "every event makes this way twice: to the stream, and from it", Mend: "nearer; JetStream on a local disk, not on a network file system"}
	nc, err := nats.Connect(url, nats.Name("daisi-bench doctor"), nats.Timeout(5*time.Second))
	if err != nil {
		f.State, f.Is = Fail, err.Error()
		return f
	}
	defer nc.Close()
	f = judgeLatency(f, time.Millisecond, func() error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, err := nc.RTT()
		return err
	})
	if js, err := jetstream.New(nc); f.State != Fail {
		if err == nil {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			_, err = js.AccountInfo(ctx)
		}
		if err != nil {
			f.State, f.Is, f.Mend = Fail, "no JetStream: "+err.Error(), "start nats-server with -js"
		}
	}
	return f
}
