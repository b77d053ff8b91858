package redisx

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/redisx/redistest"
	"github.com/daisi/daisi-ws/session"
)

func TestOptionsFailure(t *testing.T) {
	good := Options{URL: "redis://h:1", Owner: "a@1", Addr: "h:2"}
	f := func(want string, change func(*Options)) {
		t.Helper()
		o := good
		change(&o)
		_, err := New(o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the password is shown: %v", err)
		}
	}
	f("no URL", func(o *Options) { o.URL = "" })
	f("no owner", func(o *Options) { o.Owner = "" })
	f("no host:port", func(o *Options) { o.Addr = "" })
	f("no host:port", func(o *Options) { o.Addr = "a|b:1" })
	f("partitions", func(o *Options) { o.Partitions = -1 })
	f("partitions", func(o *Options) { o.Partitions = 5000 })
	f("lock TTL", func(o *Options) { o.LockTTL = time.Minute })
	f("lease TTL", func(o *Options) { o.LeaseTTL = time.Millisecond })
	f("beat", func(o *Options) { o.Beat = time.Minute })
	f("negative", func(o *Options) { o.Lanes = -1 })
	f("can't be parsed", func(o *Options) { o.URL = "redis://u:secret@h:x" })
	for _, odd := range []string{"1#secret", "1/secret", "1?secret"} { // nobody escaped them
		f("behind its host", func(o *Options) { o.URL = "redis://u:" + odd + "@h:1/0" })
	}
	f("scheme", func(o *Options) { o.URL = "http://u:secret@h:1" })
	f("several hosts", func(o *Options) { o.URL = "redis://u:secret@h1:1,h2:2" })
	f("database", func(o *Options) { o.URL = "redis://u:secret@h1:1/3?cluster=true" })
	f("unexpected option", func(o *Options) { o.URL = "redis://u:secret@h1:1?colour=red" })
	f("unexpected option", func(o *Options) { o.URL = "redis://u:secret@h1:1?cluster=1&colour=red" })
	f("unexpected option", func(o *Options) { o.URL = "redis://u:secret@h1:1?master_name=m&colour=red" })
}

func TestConnectSuccess(t *testing.T) {
	f := func(url string, check func(redis.UniversalClient) bool) {
		t.Helper()
		c, err := connect(url, nil)
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		defer c.Close()
		if !check(c) {
			t.Errorf("%s: got %T", url, c)
		}
	}
	single := func(want func(o *redis.Options) bool) func(redis.UniversalClient) bool {
		return func(c redis.UniversalClient) bool {
			s, ok := c.(*redis.Client)
			return ok && s.Options().MaxRetries <= 0 && s.Options().ContextTimeoutEnabled && want(s.Options())
		}
	}
	cluster := func(want int, tls bool) func(redis.UniversalClient) bool {
		return func(c redis.UniversalClient) bool {
			s, ok := c.(*redis.ClusterClient)
			return ok && len(s.Options().Addrs) == want && (s.Options().TLSConfig != nil) == tls
		}
	}
	f("redis://:pw@h:1/3", single(func(o *redis.Options) bool {
		return o.Addr == "h:1" && o.DB == 3 && o.Password == "pw" && o.ReadTimeout == ioTimeout && o.TLSConfig == nil
	}))
	f("rediss://h:1?read_timeout=300ms", single(func(o *redis.Options) bool {
		return o.TLSConfig != nil && o.ReadTimeout == 300*time.Millisecond
	}))
	f("redis://h1:1?addr=h2:2", cluster(2, false))
	f("rediss://h1:1?cluster=true", cluster(1, true))
	f("redis://h1:1/0?cluster=1&addr=h2:2&addr=h3:3", cluster(3, false))
	f("redis://s1:1?addr=s2:2&master_name=m", single(func(o *redis.Options) bool { return o.Addr == "FailoverClient" }))
}

// A Redis that may evict keys is told loudly; a sound one is not.
func TestPolicy(t *testing.T) {
	for policy, warned := range map[string]bool{"noeviction": false, "allkeys-lru": true} {
		s := redistest.Start(t, "--maxmemory-policy", policy)
		var log bytes.Buffer
		c := create(t, Options{URL: s.URL, Log: zerolog.New(&log)})
		c.watch.look(context.Background(), true)
		if strings.Contains(log.String(), "maxmemory-policy") != warned {
			t.Errorf("policy %s: logged %q", policy, log.String())
		}
		_ = c.rdb.Close()
	}
}

// The number of series is that of this package's table, whatever happened.
func TestMetrics(t *testing.T) {
	s := redistest.Start(t)
	set := metrics.NewSet()
	h := hold(t, start(t, Options{URL: s.URL, Metrics: set, Takeovers: 1000}))
	count := func() int {
		var b bytes.Buffer
		set.WritePrometheus(&b)
		return strings.Count(b.String(), "\n")
	}
	before := count()
	for i := range 50 {
		h.login(uint64(i))
		h.c.Kill(context.Background(), session.Owner("x@"+decimal(uint64(i))), alice, 1, 1)
	}
	if after := count(); after != before {
		t.Errorf("%d lines after 50 logins, %d before", after, before)
	}
}

func TestAnswerGarbage(t *testing.T) {
	c := &Client{part: make([]partition, 1)}
	for _, reply := range []string{"", "A", "A x\n", "A 1", "A 1 2 3\n", "T 1 2", "A 1 x 2 1 o\n", "A 1 2 x 1 o\n"} {
		if a, err := c.readAcquired(0, reply); err == nil {
			t.Errorf("acquire answered %q: %+v", reply, a)
		}
	}
	for _, reply := range []string{"", "R", "R\nX", "R\nO 1 2", "R\nO\nO"} {
		if r, err := readReasserted(nil, reply, 1); err == nil {
			t.Errorf("reassert answered %q: %+v", reply, r)
		}
	}
	for _, reply := range []string{"i\n\n0 u x 1", "i\n\n1 u 5 1", "i\n\nx u 5 1"} {
		q := &question{routes: map[session.Want]int{{}: 0}, asked: make([]agent, 1), at: []int{0}}
		if l, err := q.read(reply); err == nil {
			t.Errorf("look-up answered %q: %+v", reply, l)
		}
	}
	if l := readLive("x\nno bar\na@1|h:1\n"); l.revVersion != 0 || len(l.pods) != 1 {
		t.Errorf("live list %+v", l)
	}
}
