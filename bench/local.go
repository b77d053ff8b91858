package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
)

// LocalOptions configures a Local cluster. Programs are paths, or names to be
// found on PATH.
type LocalOptions struct {
	Pods        int      // gateways, required
	Gateway     string   // program, default daisi-ws
	RedisServer string   // default redis-server
	NATSServer  string   // default nats-server
	Env         []string // more settings of the gateways, NAME=value
	Dir         string   // for logs and the stream; default a temporary one, removed by Close
	Host        string   // address of this machine that all listen on, default 127.0.0.1
}

// Local is a Redis, a NATS server and gateways of this machine, each a process of
// its own, for runs that need a cluster of this machine or break one.
type Local struct {
	// Static after StartLocal.
	opts     LocalOptions
	dir      string
	APIKey   string
	TokenKey string
	NATS     string // URLs
	Redis    string

	// Of StartLocal and Close.
	nats  *Child
	redis *Child
	pods  []*Pod
}

// Pod is one gateway of a Local cluster. Its addresses stay over restarts.
type Pod struct {
	ID       string
	Addr     string // public host:port
	Internal string // base URL

	local *Local
	rpc   string

	mu    sync.Mutex
	child *Child // nil while it does not run
}

// StartLocal starts everything and waits until every pod is ready and sees all
// the others. Close ends it.
func StartLocal(ctx context.Context, o LocalOptions) (l *Local, err error) {
	orString(&o.Gateway, "daisi-ws")
	orString(&o.RedisServer, "redis-server")
	orString(&o.NATSServer, "nats-server")
	orString(&o.Host, "127.0.0.1")
	l = &Local{opts: o, dir: o.Dir, APIKey: secret(16), TokenKey: secret(32)}
	if l.dir == "" {
		if l.dir, err = os.MkdirTemp("", "daisi-bench-"); err != nil {
			return nil, fmt.Errorf("start local cluster: %w", err)
		}
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start local cluster (logs in %s): %w", l.dir, err)
			l.opts.Dir = l.dir // to be read
			l.Close()
		}
	}()
	if err := l.startStores(ctx); err != nil {
		return l, err // which closes it
	}
	for i := range o.Pods {
		p, err := l.newPod(i)
		if err != nil {
			return l, err // which closes it
		}
		if err := p.Start(); err != nil {
			return l, err // which closes it
		}
		l.pods = append(l.pods, p)
	}
	return l, l.AwaitWhole(ctx)
}

func secret(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// ports below those the kernel gives to connections.
const (
	firstPort = 10000
	lastPort  = 30000
)

// freePort finds one nobody listens on; each is found once.
func (l *Local) freePort() (int, error) {
	taken := map[int]bool{}
	for _, p := range l.pods {
		for _, a := range []string{p.Addr, strings.TrimPrefix(p.Internal, "http://"), p.rpc} {
			if _, port, err := net.SplitHostPort(a); err == nil {
				taken[int(atoi(port))] = true
			}
		}
	}
	var b [2]byte
	for range 1000 {
		_, _ = rand.Read(b[:])
		port := firstPort + (int(b[0])<<8|int(b[1]))%(lastPort-firstPort)
		if taken[port] {
			continue
		}
		ln, err := net.Listen("tcp", l.opts.Host+":"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		if err := ln.Close(); err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		return port, nil
	}
	return 0, errors.New("no free port on " + l.opts.Host)
}

func (l *Local) startStores(ctx context.Context) error {
	redisPort, err := l.freePort()
	if err != nil {
		return err
	}
	l.Redis = fmt.Sprintf("redis://%s:%d/0", l.opts.Host, redisPort)
	l.redis, err = StartChild(l.dir, "redis", nil, l.opts.RedisServer, "--port", strconv.Itoa(redisPort), "--bind", l.opts.Host, "--protected-mode", "no",
		"--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction", "--maxclients", "10000")
	if err != nil {
		return err
	}
	natsPort, err := l.freePort()
	if err != nil {
		return err
	}
	l.NATS = fmt.Sprintf("nats://%s:%d", l.opts.Host, natsPort)
	conf := filepath.Join(l.dir, "nats.conf")
	text := fmt.Sprintf("listen: \"%s:%d\"\nmax_payload: 8MB\njetstream { store_dir: %q, max_file_store: 8GB }\n", l.opts.Host, natsPort, filepath.Join(l.dir, "jetstream"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return fmt.Errorf("configure NATS: %w", err)
	}
	if l.nats, err = StartChild(l.dir, "nats", nil, l.opts.NATSServer, "-c", conf); err != nil {
		return err
	}
	reader, err := NewRedisReader(l.Redis)
	if err != nil {
		return err
	}
	defer reader.Close()
	err = await(ctx, 20*time.Second, "redis-server", func() error {
		if err := l.redis.lives(); err != nil {
			return err
		}
		_, err := reader.Info(ctx)
		return err
	})
	if err != nil {
		return err
	}
	err = await(ctx, 20*time.Second, "nats-server", func() error {
		if err := l.nats.lives(); err != nil {
			return err
		}
		nc, err := nats.Connect(l.NATS)
		if err == nil {
			nc.Close()
		}
		return err
	})
	if err == nil {
		l.redis.prefer()
		l.nats.prefer()
	}
	return err
}

func (l *Local) newPod(i int) (*Pod, error) {
	p := &Pod{ID: fmt.Sprintf("pod-%d", i), local: l}
	for _, where := range []*string{&p.Addr, &p.Internal, &p.rpc} {
		port, err := l.freePort()
		if err != nil {
			return nil, err
		}
		*where = l.opts.Host + ":" + strconv.Itoa(port)
	}
	p.Internal = "http://" + p.Internal
	return p, nil
}

// Pods lists the gateways.
func (l *Local) Pods() []*Pod { return l.pods }

// PIDs of the gateways that run.
func (l *Local) PIDs() (list []int) {
	for _, p := range l.pods {
		if pid := p.PID(); pid != 0 {
			list = append(list, pid)
		}
	}
	return list
}

// Brokers are the PIDs of Redis and of the NATS server.
func (l *Local) Brokers() []int { return []int{l.redis.PID(), l.nats.PID()} }

// Apply fills in where the cluster is and its secrets.
func (l *Local) Apply(o *Options) {
	o.Addrs, o.Internal = nil, nil
	for _, p := range l.pods {
		o.Addrs = append(o.Addrs, p.Addr)
		o.Internal = append(o.Internal, p.Internal)
	}
	o.PIDs, o.NATS, o.Redis, o.Create = l.PIDs(), l.NATS, l.Redis, true
	o.Own = true
	o.APIKey, o.TokenKey = l.APIKey, l.TokenKey
}

// AwaitWhole waits until every running pod is ready and is connected to all
// the others.
func (l *Local) AwaitWhole(ctx context.Context) error {
	running := len(l.PIDs())
	limit := 30*time.Second + time.Duration(running)*time.Second
	group, inner := errgroup.WithContext(ctx)
	for _, p := range l.pods {
		if p.PID() == 0 {
			continue
		}
		group.Go(func() error {
			return await(inner, limit, p.ID+" to be whole", func() error { return p.whole(inner, running) })
		})
	}
	return group.Wait()
}

func (p *Pod) whole(ctx context.Context, running int) error {
	if p.PID() == 0 {
		return errEnded
	}
	s := NewScraper([]string{p.Internal})
	defer s.Close()
	if err := s.ready(ctx); err != nil {
		return err
	}
	m, err := s.Read(ctx)
	if err != nil {
		return err
	}
	if n := m.Total("dws_peers_connected"); int(n) != running-1 {
		return fmt.Errorf("it is connected to %v of %d others", n, running-1)
	}
	return nil
}

// Close ends all processes, gateways first. All pods stop at once: what they
// would do for their clients no longer matters.
func (l *Local) Close() {
	var wait sync.WaitGroup
	for _, p := range l.pods {
		wait.Go(func() { p.end(syscall.SIGKILL) })
	}
	wait.Wait()
	for _, c := range []*Child{l.nats, l.redis} {
		if c != nil {
			c.End(syscall.SIGTERM, 5*time.Second)
		}
	}
	if l.opts.Dir == "" {
		_ = os.RemoveAll(l.dir) // what is left is in the system's temporary directory
	}
}

// Start runs the pod, if it does not run.
func (p *Pod) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.child != nil && p.child.running() {
		return nil
	}
	l := p.local
	env := append([]string{
		"DWS_POD_ID=" + p.ID, "DWS_POD_ADDR=" + p.rpc, "DWS_RPC_ADDR=" + p.rpc, "DWS_RPC_INSECURE=true",
		"DWS_HTTP_ADDR=" + p.Addr, "DWS_INTERNAL_ADDR=" + strings.TrimPrefix(p.Internal, "http://"),
		"DWS_REDIS_URL=" + l.Redis, "DWS_NATS_URL=" + l.NATS, "DWS_NATS_CREATE_STREAM=true",
		"DWS_AUTH_API_KEY=" + l.APIKey, "DWS_AUTH_TOKEN_KEYS=" + l.TokenKey, "DWS_REQUIRE_EXTERNAL=true",
	}, l.opts.Env...)
	var err error
	p.child, err = StartChild(l.dir, p.ID, env, l.opts.Gateway)
	return err
}

// PID of its process, 0 when it does not run.
func (p *Pod) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.child == nil || !p.child.running() {
		return 0
	}
	return p.child.PID()
}

// Kill ends the pod with SIGKILL.
func (p *Pod) Kill() { p.end(syscall.SIGKILL) }

// Term ends it as an operator does, and waits for that.
func (p *Pod) Term() { p.end(syscall.SIGTERM) }

// Stop lets it stand still, Cont go on.
func (p *Pod) Stop() error { return p.pass(syscall.SIGSTOP) }

// Cont ends a Stop.
func (p *Pod) Cont() error { return p.pass(syscall.SIGCONT) }

func (p *Pod) pass(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.child == nil {
		return fmt.Errorf("signal %s: it does not run", p.ID)
	}
	if err := p.child.signal(s); err != nil {
		return fmt.Errorf("signal %s: %w", p.ID, err)
	}
	return nil
}

func (p *Pod) end(s syscall.Signal) {
	p.mu.Lock()
	c := p.child
	p.mu.Unlock()
	if c != nil {
		c.End(s, time.Minute)
	}
}
