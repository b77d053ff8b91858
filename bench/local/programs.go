package local

import (
	"context"
	"fmt"
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

// startPod starts one pod on a Redis and a NATS of its own; env is added to the
// pod's settings.
func startPod(ctx context.Context, p Programs, env ...string) (*bench.Local, error) {
	return bench.StartLocal(ctx, bench.LocalOptions{
		Pods: 1, Gateway: p.Gateway, RedisServer: p.Redis, NATSServer: p.NATS, Env: append([]string{"DWS_LOG_LEVEL=warn"}, env...),
	})
}
