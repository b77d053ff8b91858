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
	"slices"
	"strings"
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
		{"compare", "two sets of runs, with a verdict that knows noise", compare},
		{"doctor", "is this machine fit for it, and what mends it", doctor},
		{"tune", "sweep the settings that can matter here, print the best and why", tune},
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

func compare(_ context.Context, args []string, out, log io.Writer) (bench.Exit, error) {
	var o view.CompareOptions
	fs := flag.NewFlagSet("compare", flag.ContinueOnError)
	figures := fs.String("figures", "", "what is compared, comma separated; empty: all that could be better or worse")
	fs.Float64Var(&o.Alpha, "alpha", 0.01, "chance of calling noise a difference, a figure")
	fs.Float64Var(&o.Least, "least", 0.02, "smallest change of the median that counts, a share")
	fs.IntVar(&o.Runs, "runs", 5, "least number of runs on each side")
	fs.Usage = func() {
		fmt.Fprint(log, "usage: daisi-bench compare [flags] A B   each one file, several with commas between, or a pattern such as 'a-*.json'\n")
		fs.PrintDefaults()
	}
	if ok, code, err := parse(fs, args, log); !ok {
		return code, err
	}
	if fs.NArg() != 2 {
		return bench.ExitError, errors.New("compare takes two arguments, the reports of each side: one file, several with commas between, or a pattern in quotes")
	}
	o.Figures = words(*figures)
	var sides [2][]*bench.Report
	for i := range sides {
		var err error
		if sides[i], err = reports(fs.Arg(i)); err != nil {
			return bench.ExitError, err
		}
	}
	c, err := view.Compare(sides[0], sides[1], o)
	if err != nil {
		return bench.ExitError, err
	}
	return c.Exit, c.Write(out)
}

// reports reads all files of a list of patterns.
func reports(patterns string) (list []*bench.Report, err error) {
	for _, p := range words(patterns) {
		names, err := filepath.Glob(p)
		if err != nil {
			return nil, fmt.Errorf("read pattern %q: %w", p, err)
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("no file %q", p)
		}
		for _, name := range names {
			r, err := bench.ReadFile(name)
			if err != nil {
				return nil, err
			}
			list = append(list, r)
		}
	}
	return list, nil
}

func doctor(ctx context.Context, args []string, out, log io.Writer) (bench.Exit, error) {
	o := local.DoctorOptions{Root: os.DirFS("/")}
	fs := flag.NewFlagSet("doctor", flag.ContinueOnError)
	fs.IntVar(&o.Sessions, "sessions", 10000, "sessions in one process that the machine is to hold")
	fs.StringVar(&o.Redis, "redis", "", "URL of Redis; empty: not looked at")
	fs.StringVar(&o.NATS, "nats", "", "URL of NATS; empty: not looked at")
	if ok, code, err := parse(fs, args, log); !ok {
		return code, err
	}
	list := local.Doctor(ctx, o)
	return local.Exit(list), local.WriteFindings(out, list)
}

func tune(ctx context.Context, args []string, out, log io.Writer) (bench.Exit, error) {
	var o local.TuneOptions
	fs := flag.NewFlagSet("tune", flag.ContinueOnError)
	programFlags(fs, &o.Programs)
	fs.IntVar(&o.Runs, "runs", 5, "of each value, at most")
	fs.DurationVar(&o.For, "for", 10*time.Minute, "for all of it: fewer runs where that is not enough")
	fs.IntVar(&o.Sessions, "sessions", 500, "sessions")
	fs.IntVar(&o.Receivers, "receivers", 10, "sessions an event goes to, about")
	fs.Float64Var(&o.Rate, "rate", 500, "events a second")
	fs.DurationVar(&o.Duration, "duration", 4*time.Second, "of the measured part of a run")
	only := fs.String("only", "", "settings to sweep, comma separated; empty: all")
	if ok, code, err := parse(fs, args, log); !ok {
		return code, err
	}
	for _, k := range local.Knobs(runtime.NumCPU()) {
		if names := words(*only); len(names) == 0 || slices.Contains(names, k.Name) {
			o.Knobs = append(o.Knobs, k)
		}
	}
	for _, name := range words(*only) {
		if !slices.ContainsFunc(o.Knobs, func(k local.Knob) bool { return k.Name == name }) {
			return bench.ExitError, fmt.Errorf("read -only: no setting %q is swept here; there are %s", name, strings.Join(knobNames(), ", "))
		}
	}
	o.Told = func(s string) { fmt.Fprintln(log, s) }
	list, err := local.Tune(ctx, o)
	if len(list) > 0 {
		err = errors.Join(local.WriteTried(out, list), err)
	}
	if err != nil {
		return bench.ExitError, err
	}
	return bench.ExitPass, nil
}

func knobNames() (list []string) {
	for _, k := range local.Knobs(runtime.NumCPU()) {
		list = append(list, k.Name)
	}
	return list
}
