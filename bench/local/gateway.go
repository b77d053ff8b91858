package local

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/daisi/daisi-ws/bench"
)

// Programs are where the programs lie; a name without a slash is looked for in
// PATH.
type Programs struct {
	Gateway string // daisi-ws, default bin/daisi-ws
	Redis   string // default redis-server
	NATS    string // default .tools/bin/nats-server
	Peers   string // default .tools/bin/peers
}

func (p Programs) withDefaults() (Programs, error) {
	for _, f := range []struct {
		name *string
		def  string
	}{{&p.Gateway, "bin/daisi-ws"}, {&p.Redis, "redis-server"}, {&p.NATS, ".tools/bin/nats-server"}, {&p.Peers, ".tools/bin/peers"}} {
		if *f.name == "" {
			*f.name = f.def
		}
		if filepath.Base(*f.name) == *f.name {
			continue
		}
		abs, err := filepath.Abs(*f.name) // processes run in a folder of their own
		if err != nil {
			return p, fmt.Errorf("find %s: %w", *f.name, err)
		}
		*f.name = abs
	}
	return p, nil
}

// gateway is one pod on a Redis and a NATS of its own, all outside this
// process.
type gateway struct {
	parts    []*process // the pod last
	public   string
	internal string
	nats     string
	redis    string // host:port
	dir      string
	secrets  [2]string // API key, token key
}

// startGateway starts all three; env is added to the pod's.
func startGateway(ctx context.Context, p Programs, env ...string) (g *gateway, err error) {
	dir, err := os.MkdirTemp("", "daisi-bench-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	g = &gateway{dir: dir, secrets: [2]string{secret(), secret()}}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.end())
		}
	}()
	at, err := ports(5)
	if err != nil {
		return g, err
	}
	g.public, g.internal, g.nats, g.redis = at[0], at[1], "nats://"+at[3], at[4]
	_, redisPort, _ := net.SplitHostPort(at[4]) // ports made it
	_, natsPort, _ := net.SplitHostPort(at[3])
	if err := g.add(ctx, at[4], "redis", nil, p.Redis, "--port", redisPort, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"); err != nil {
		return g, err
	}
	if err := g.add(ctx, at[3], "nats", nil, p.NATS, "-js", "-a", "127.0.0.1", "-p", natsPort, "-sd", filepath.Join(dir, "jetstream")); err != nil {
		return g, err
	}
	return g, g.add(ctx, g.public, "daisi-ws", append([]string{
		"DWS_POD_ID=bench-1", "DWS_POD_ADDR=" + at[2], "DWS_HTTP_ADDR=" + g.public, "DWS_INTERNAL_ADDR=" + g.internal,
		"DWS_RPC_ADDR=" + at[2], "DWS_RPC_INSECURE=true", "DWS_REDIS_URL=redis://" + at[4] + "/0", "DWS_NATS_URL=" + g.nats,
		"DWS_NATS_CREATE_STREAM=true", "DWS_AUTH_API_KEY=" + g.secrets[0], "DWS_AUTH_TOKEN_KEYS=b1:" + g.secrets[1],
		"DWS_LOG_LEVEL=warn", "DWS_REQUIRE_EXTERNAL=true",
	}, env...), p.Gateway, "run")
}

func (g *gateway) add(ctx context.Context, addr, name string, env []string, program string, args ...string) error {
	p, err := start(g.dir, name, env, program, args...)
	if err != nil {
		return err
	}
	g.parts = append(g.parts, p)
	return p.await(ctx, addr)
}

// fill points the options at this gateway.
func (g *gateway) fill(o *bench.Options) {
	o.Addrs, o.Internal, o.NATS = []string{g.public}, []string{"http://" + g.internal}, g.nats
	o.PIDs = []int{g.parts[2].pid()}
	o.APIKey, o.TokenKey = g.secrets[0], "b1:"+g.secrets[1]
}

// brokers are the pids of Redis and NATS.
func (g *gateway) brokers() []int { return []int{g.parts[0].pid(), g.parts[1].pid()} }

// end stops the pod first, then what it needs.
func (g *gateway) end() (err error) {
	for i := len(g.parts) - 1; i >= 0; i-- {
		err = errors.Join(err, g.parts[i].end())
	}
	return errors.Join(err, os.RemoveAll(g.dir))
}

func secret() string {
	var b [32]byte
	// Since Go 1.24 it never fails.
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
