package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"time"

	"github.com/daisi/daisi-ws/bench"
	"github.com/daisi/daisi-ws/bench/local"
	"github.com/daisi/daisi-ws/bench/view"
)

// tool is a verb that is no scenario of its own.
type tool struct {
	name, about string
	run         func(ctx context.Context, args []string, out, log io.Writer) (bench.Exit, error)
}

func tools() []tool {
	return []tool{
		{"html", "a report in JSON as one HTML page", toHTML},
		{"peers", "the gateway beside bare servers of other WebSocket libraries, as one table", peers},
		{workerCommand, "bears a share of the runs of others' -workers, found over NATS", work},
	}
}

// parse reads the flags of a tool; ok: go on.
func parse(fs *flag.FlagSet, args []string, log io.Writer) (ok bool, code bench.Exit, err error) {
	fs.SetOutput(log)
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return false, bench.ExitPass, nil
	case err != nil:
		return false, bench.ExitError, errFlags // fs has said what is wrong
	}
	return true, bench.ExitPass, nil
}

func programFlags(fs *flag.FlagSet, p *local.Programs) {
	fs.StringVar(&p.Gateway, "gateway", "bin/daisi-ws", "the gateway's program")
	fs.StringVar(&p.Redis, "redis-server", "redis-server", "Redis's program")
	fs.StringVar(&p.NATS, "nats-server", ".tools/bin/nats-server", "NATS's program")
}

func peers(ctx context.Context, args []string, out, log io.Writer) (bench.Exit, error) {
	var o local.PeersOptions
	fs := flag.NewFlagSet("peers", flag.ContinueOnError)
	programFlags(fs, &o.Programs)
	fs.StringVar(&o.Peers, "peers", ".tools/bin/peers", "the bare servers' program")
	servers := fs.String("servers", "gorilla,gws,coder,nbio,daisi-ws", "what is measured, in this order")
	fs.IntVar(&o.Sessions, "sessions", 10000, "idle sessions")
	fs.IntVar(&o.Receivers, "receivers", 10, "sessions an event goes to")
	fs.Float64Var(&o.Rate, "rate", 500, "events a second, one by one")
	fs.Float64Var(&o.BurstRate, "burst-rate", 2000, "events a second, in bursts")
	fs.IntVar(&o.Burst, "burst", 10, "events of one agent due at the same instant")
	fs.DurationVar(&o.Duration, "duration", 6*time.Second, "of each of the two")
	fs.DurationVar(&o.Settle, "settle", 5*time.Second, "between the ramp and the reading of memory")
	if ok, code, err := parse(fs, args, log); !ok {
		return code, err
	}
	o.Servers = words(*servers)
	o.Progress = live(log, "daisi-bench peers").Show
	list, err := local.Peers(ctx, o)
	code := bench.ExitPass
	for _, m := range list {
		code = code.Worse(m.Exit)
	}
	if len(list) > 0 {
		err = errors.Join(local.WritePeers(out, o, list), err)
	}
	if err != nil {
		return bench.ExitError, err
	}
	return code, nil
}

func toHTML(_ context.Context, args []string, out, _ io.Writer) (bench.Exit, error) {
	if len(args) != 1 {
		return bench.ExitError, errors.New("html takes one argument, a report in JSON; the page goes to standard output")
	}
	r, err := bench.ReadFile(args[0])
	if err == nil {
		err = view.WriteHTML(out, r)
	}
	if err != nil {
		return bench.ExitError, err
	}
	return bench.ExitPass, nil
}
