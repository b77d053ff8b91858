package redisx

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/session"
)

// Options configure a Client. The zero value of a field is its default.
type Options struct {
	// URL says where Redis is: redis://h:p/0 or rediss://…; a cluster by
	// redis://h1:p?addr=h2:p or ?cluster=true; sentinels by
	// redis://s1:p?addr=s2:p&master_name=m. Files of a rediss URL as query:
	// ?ca=FILE&cert=FILE&key=FILE, in PEM. Required.
	URL string
	// Owner is this start of this pod. Required.
	Owner session.Owner
	// Addr is host:port where peers reach our rpc listener, told to them by
	// the live list. Required.
	Addr string
	// Partitions is P, 1..4096. Default 64.
	Partitions int

	LockTTL time.Duration // life of a lock without a sweep; default 300 s, at least 200 s
	// Takeovers is how often a minute one key's lock may be taken from a live
	// holder, over all pods. Default 10.
	Takeovers int

	LeaseTTL time.Duration // life on the live list without a beat; default 10 s, at least 1 s
	Beat     time.Duration // between two beats; default 500 ms, at most LeaseTTL/4

	// Lanes is how many pipelines of writes are in flight at once. Default 4.
	// In a cluster it is a lane a partition, whatever stands here: a dead node
	// then holds up only its own partitions.
	Lanes int
	// Queue is how many calls wait in a lane before more are refused with
	// session.ErrBusy. Default 16384.
	Queue int

	// OnUnsure is told that an edge of partition n could not be written for
	// 2 s: what Redis has of n is not what this pod wants. It comes from a
	// lane, once for each such edge, and must not block.
	OnUnsure func(n int)

	// OnFailover is told that partition n has another master, which may lack
	// what the former one acknowledged last; the last beat that one took was
	// age ago. It comes before any call reaches the new master, and must not
	// block.
	OnFailover func(n int, age time.Duration)

	Metrics *metrics.Set // default: a new one
	Log     zerolog.Logger
}

func (o Options) withDefaults() (Options, error) {
	var bad []error
	if o.URL == "" {
		bad = append(bad, errors.New("no URL: set one, such as redis://127.0.0.1:6379/0"))
	}
	if o.Owner == "" {
		bad = append(bad, errors.New("no owner"))
	}
	if o.Addr == "" || strings.ContainsAny(o.Addr, "|\n") {
		bad = append(bad, fmt.Errorf("address %q is no host:port for peers", o.Addr))
	}
	setDefault(&o.Partitions, 64)
	setDefault(&o.LockTTL, 300*time.Second)
	setDefault(&o.LeaseTTL, 10*time.Second)
	setDefault(&o.Beat, min(500*time.Millisecond, o.LeaseTTL/4))
	setDefault(&o.Queue, 16384)
	setDefault(&o.Takeovers, 10)
	if o.Partitions < 1 || o.Partitions > 4096 {
		bad = append(bad, fmt.Errorf("%d partitions: must be 1 to 4096", o.Partitions))
	}
	if o.LockTTL < 200*time.Second {
		bad = append(bad, fmt.Errorf("lock TTL %v: must be at least 200s, for locks are swept each 100s", o.LockTTL))
	}
	if o.LeaseTTL < time.Second {
		bad = append(bad, fmt.Errorf("lease TTL %v: must be at least 1s", o.LeaseTTL))
	}
	if o.Beat < 0 || o.Beat > o.LeaseTTL/4 {
		bad = append(bad, fmt.Errorf("beat %v: must be at most a quarter of the lease, %v", o.Beat, o.LeaseTTL))
	}
	if o.Lanes < 0 || o.Queue < 0 || o.Takeovers < 0 {
		bad = append(bad, errors.New("lanes, queue and takeovers must not be negative"))
	}
	if o.OnUnsure == nil {
		o.OnUnsure = func(int) {}
	}
	if o.OnFailover == nil {
		o.OnFailover = func(int, time.Duration) {}
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	return o, errors.Join(bad...)
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}
