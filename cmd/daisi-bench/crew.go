package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/bench"
)

// workerCommand is how a process that bears a share of others' runs is started.
const workerCommand = "worker"

// Secrets may come from the environment, where other users can't see them; that
// is how spawned workers get theirs.
const (
	envAPIKey   = "DAISI_BENCH_API_KEY"
	envTokenKey = "DAISI_BENCH_TOKEN_KEY" //nolint:gosec // a name, no key
	envMintKey  = "DAISI_BENCH_MINT_KEY"  //nolint:gosec // as above
)

// work runs a worker until ctx ends.
func work(ctx context.Context, args []string, _, log io.Writer) (bench.Exit, error) {
	fs := flag.NewFlagSet(workerCommand, flag.ContinueOnError)
	f := commonFlags(fs)
	once := fs.Bool("once", false, "end after one run")
	if ok, code, err := parse(fs, args, log); !ok {
		return code, err
	}
	f.quiet = true
	o, err := f.options(log)
	if err != nil {
		return bench.ExitError, err
	}
	o.Log = zerolog.New(log).Level(zerolog.WarnLevel)
	fmt.Fprintf(log, "worker of crew %q waits at %s\n", f.base.Crew.Name, bench.Redacted(f.crewURL()))
	err = bench.Work(ctx, bench.WorkerOptions{Options: o, Crew: o.Crew.Name, URL: f.crewURL(), Once: *once})
	if err != nil {
		return bench.ExitError, err
	}
	return bench.ExitPass, nil
}

func (f *common) crewURL() string {
	if f.base.Crew.URL != "" {
		return f.base.Crew.URL
	}
	return f.base.NATS
}

// spawn starts o.Crew.Workers worker processes on this machine for a crew of
// this run alone.
func (f *common) spawn(o *bench.Options) (*bench.Spawned, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	o.Crew.Name = fmt.Sprintf("spawned-%d", os.Getpid())
	command := []string{self, workerCommand, "-crew", o.Crew.Name, "-nats", o.NATS}
	if f.wss {
		command = append(command, "-wss")
	}
	if f.ca != "" {
		command = append(command, "-tls-ca", f.ca)
	}
	if f.insecure {
		command = append(command, "-insecure")
	}
	// Side by side on this machine's cores, one at a time is what each has: more
	// would only wake each other.
	threads := max(1, runtime.NumCPU()/o.Crew.Workers)
	return bench.Spawn(o.Crew.Workers, command, append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(threads), envAPIKey+"="+o.APIKey, envTokenKey+"="+o.TokenKey, envMintKey+"="+o.MintKey))
}

// localFlags are about a cluster of the run's own.
func (f *common) localFlags(fs *flag.FlagSet) {
	o := &f.local
	fs.IntVar(&o.Pods, "servers", 0, "gateways to start on loopback, with a Redis and a NATS server of their own; 0: those at -addr are used")
	fs.StringVar(&o.Gateway, "daisi-ws", "", "that program; empty: daisi-ws beside this one, or on PATH")
	fs.StringVar(&o.RedisServer, "redis-server", "", "that program; empty: redis-server on PATH")
	fs.StringVar(&o.NATSServer, "nats-server", "", "that program; empty: nats-server on PATH")
	fs.StringVar(&o.Dir, "logs", "", "existing directory for logs of what is started; empty: a temporary one")
	fs.StringVar(&f.env, "server-env", "", "more settings of the gateways, NAME=value, comma separated")
	fs.IntVar(&f.base.Crew.Workers, "workers", 0, "processes that bear the load, found over NATS (daisi-bench worker); 0: this one")
	fs.BoolVar(&f.spawned, "spawn", false, "start those workers on this machine")
	fs.DurationVar(&f.base.Crew.Wait, "crew-wait", 0, "for so many workers; 0: 30s")
}

// start runs a scenario, with a cluster of its own if one is asked for, and
// with spawned workers.
func (f *common) start(ctx context.Context, base bench.Options, do starter) (*bench.Report, error) {
	if f.spawned && base.Crew.Workers <= 0 {
		return nil, errors.New("-spawn starts -workers, and there are none: how many?")
	}
	var local *bench.Local
	if f.local.Pods > 0 {
		o := f.local
		o.Env = words(f.env)
		if o.Gateway == "" {
			o.Gateway = beside("daisi-ws")
		}
		var err error
		if local, err = bench.StartLocal(ctx, o); err != nil {
			return nil, err
		}
		defer local.Close()
		local.Apply(&base)
	}
	if f.spawned && base.Crew.Workers > 0 {
		s, err := f.spawn(&base)
		if err != nil {
			return nil, err
		}
		defer s.Close()
	}
	return do(ctx, base, local)
}

// beside is the path of a program in our own directory, or its name.
func beside(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	path := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(path); err != nil {
		return name
	}
	return path
}
