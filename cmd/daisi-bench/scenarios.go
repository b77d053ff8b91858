package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/daisi/daisi-ws/bench"
)

// command is one scenario: flags registers what it adds to the common ones and
// returns what runs it.
type command struct {
	name, about string
	flags       func(*flag.FlagSet) starter
}

// starter runs a scenario; local is the run's own cluster, if it has one.
type starter func(ctx context.Context, base bench.Options, local *bench.Local) (*bench.Report, error)

func commands() []command {
	return []command{
		{"connect", "sessions come at a pace and stay: bytes, CPU a login, idle CPU", connectFlags},
		{"fanout", "events to many sessions on all pods: latency, CPU a delivery, every promise of delivery", fanoutFlags},
		{"latency", "rates of events up to the knee: the highest with a p99 below the limit", latencyFlags},
		{"burst", "50 events of an agent at the same instant, beside a calm baseline", scriptFlags(bench.ScriptBurst)},
		{"churn", "100 users a second leave and come again at another pod, under events", scriptFlags(bench.ScriptChurn)},
		{"storm", "all users leave at once and come again as fast as they can, under events", scriptFlags(bench.ScriptStorm)},
		{"takeover", "users log in again elsewhere: one socket a key, time of the takeover", takeoverFlags},
		{"slow", "one session in a hundred more that reads nothing: what it costs the others", scriptFlags(bench.ScriptSlow)},
		{"drain", "each pod in turn is ended by SIGTERM and started again, under events (-servers)", scriptFlags(bench.ScriptDrain)},
		{"chaos", "pods are killed, and stand still, under events (-servers)", scriptFlags(bench.ScriptChaos)},
		{"soak", "an hour of events: what grows, what slows down", scriptFlags(bench.ScriptSoak)},
		{"million", "as many sessions as memory holds, in many processes: counted, told, taken over", millionFlags},
		{"script", "steps of your own, from a YAML file", fileFlags},
		{"verify", "a fixed set of these with thresholds, in minutes: are the promises kept here?", verifyFlags},
		{"floor", "what the kernel alone asks for a frame: bare send(), one and ten joined", floorFlags},
	}
}

func connectFlags(fs *flag.FlagSet) starter {
	o := new(bench.ConnectOptions)
	fs.IntVar(&o.Sessions, "sessions", 1000, "sessions to open")
	fs.IntVar(&o.Agents, "agents", 0, "(company, agent) pairs; 0: one for 30 sessions")
	fs.DurationVar(&o.Hold, "hold", 0, "how long idle CPU is measured; 0: 10s")
	fs.DurationVar(&o.Empty, "empty", 0, "how long the server's own CPU is measured before the first session; 0: not")
	fs.BoolVar(&o.Chat, "chat", false, "each session selects a chat at connect")
	return func(ctx context.Context, base bench.Options, _ *bench.Local) (*bench.Report, error) {
		o.Options = base
		return bench.Connect(ctx, *o)
	}
}

// fanoutOptions registers the population and the kinds of events; o is preset
// with what they are by default.
func fanoutOptions(fs *flag.FlagSet, o *bench.FanoutOptions) {
	fs.IntVar(&o.Sessions, "sessions", o.Sessions, "sessions, spread over agents and pods")
	fs.IntVar(&o.Agents, "agents", o.Agents, "(company, agent) pairs")
	fs.IntVar(&o.Receivers, "receivers", 0, "sessions an agent; > 0 sets -agents")
	fs.IntVar(&o.Companies, "companies", 2, "companies, with the same agent names")
	fs.Float64Var(&o.Other, "other", 0, "share of an agent's sessions on another chat; 0: 1/3, < 0: none")
	fs.IntVar(&o.Chats, "chats", 1, "weight of chats events")
	fs.IntVar(&o.Messages, "messages", 1, "weight of messages.<chat> events")
	fs.Float64Var(&o.Rate, "rate", o.Rate, "events a second")
	fs.IntVar(&o.Burst, "burst", 1, "events of one agent due at the same instant")
	fs.BoolVar(&o.Resume, "resume", false, "clients that are cut off come back with ?resume, and are owed all they missed")
	fs.BoolVar(&o.Forget, "forget", false, "with -resume: they come back without saying where they stand, and miss what came meanwhile")
	fs.DurationVar(&o.Duration, "duration", 0, "of each measured part; 0: the scenario's default")
	fs.DurationVar(&o.Warmup, "warmup", 0, "before it, judged but not timed; 0: 1s, < 0: none")
	fs.IntVar(&o.Size, "size", 260, "bytes of an event's body")
}

// populated are the defaults of scenarios that measure.
func populated(sessions int) bench.FanoutOptions {
	return bench.FanoutOptions{Sessions: sessions, Agents: 50, Rate: 500}
}

func fanoutFlags(fs *flag.FlagSet) starter {
	o := populated(1500)
	fanoutOptions(fs, &o)
	return func(ctx context.Context, base bench.Options, _ *bench.Local) (*bench.Report, error) {
		o.Options = base
		return bench.Fanout(ctx, o)
	}
}

func latencyFlags(fs *flag.FlagSet) starter {
	o := bench.SweepOptions{FanoutOptions: populated(500)}
	fanoutOptions(fs, &o.FanoutOptions)
	fs.DurationVar(&o.Limit, "limit", 0, "of the p99 from the due instant; 0: 5ms")
	fs.Float64Var(&o.Most, "most", 0, "events a second that are not passed; 0: 200,000")
	fs.IntVar(&o.Halves, "halves", 0, "steps between the last rate that kept the limit and the first that did not; 0: 3")
	return func(ctx context.Context, base bench.Options, _ *bench.Local) (*bench.Report, error) {
		o.Options = base
		return bench.Sweep(ctx, o)
	}
}

// scriptFlags are those of a named script.
func scriptFlags(name string) func(*flag.FlagSet) starter {
	return func(fs *flag.FlagSet) starter {
		o := bench.ScriptOptions{FanoutOptions: populated(1000)}
		fanoutOptions(fs, &o.FanoutOptions)
		return func(ctx context.Context, base bench.Options, local *bench.Local) (*bench.Report, error) {
			o.Options, o.Local = base, local
			s, ok := bench.NamedScript(name, o)
			if !ok {
				return nil, fmt.Errorf("no script %q", name)
			}
			return bench.Script(ctx, s)
		}
	}
}

func fileFlags(fs *flag.FlagSet) starter {
	o := bench.ScriptOptions{FanoutOptions: populated(1000)}
	fanoutOptions(fs, &o.FanoutOptions)
	file := fs.String("file", "", "script in YAML; what it names goes before flags")
	return func(ctx context.Context, base bench.Options, local *bench.Local) (*bench.Report, error) {
		o.Options, o.Local = base, local
		f, err := os.Open(*file)
		if err != nil {
			return nil, fmt.Errorf("read -file: %w", err)
		}
		defer f.Close()
		s, err := bench.ReadScript(f, o)
		if err != nil {
			return nil, err
		}
		return bench.Script(ctx, s)
	}
}

func verifyFlags(fs *flag.FlagSet) starter {
	o := bench.VerifyOptions{FanoutOptions: bench.VerifyDefaults()}
	fanoutOptions(fs, &o.FanoutOptions)
	return func(ctx context.Context, base bench.Options, local *bench.Local) (*bench.Report, error) {
		o.Options, o.Local = base, local
		return bench.Verify(ctx, o)
	}
}

func millionFlags(fs *flag.FlagSet) starter {
	o := new(bench.MillionOptions)
	fs.IntVar(&o.Sessions, "sessions", 1000000, "sessions alive at once")
	fs.IntVar(&o.Agents, "agents", 0, "(company, agent) pairs; 0: one for 10 sessions")
	fs.DurationVar(&o.Hold, "hold", 0, "how long all are held; 0: 1m, two ping periods")
	fs.IntVar(&o.Events, "events", 10000, "events to agents drawn by the seed")
	fs.Float64Var(&o.EventRate, "event-rate", 200, "events a second")
	fs.IntVar(&o.Takeovers, "takeovers", 1000, "sessions taken over at another pod")
	fs.IntVar(&o.Abreast, "abreast", 0, "workers that log in at the same time; 0: 2")
	fs.Int64Var(&o.Reserve, "reserve", 0, "bytes of memory that must stay available on this machine, or the run stops; 0: 1.5 GiB")
	return func(ctx context.Context, base bench.Options, _ *bench.Local) (*bench.Report, error) {
		o.Options = base
		return bench.Million(ctx, *o)
	}
}

func takeoverFlags(fs *flag.FlagSet) starter {
	o := new(bench.TakeoverOptions)
	fs.IntVar(&o.Users, "users", 1000, "users, each of whom logs in three times")
	fs.IntVar(&o.Agents, "agents", 0, "(company, agent) pairs; 0: one for 10 users")
	fs.Float64Var(&o.Rate, "rate", 200, "logins a second")
	return func(ctx context.Context, base bench.Options, _ *bench.Local) (*bench.Report, error) {
		o.Options = base
		return bench.Takeover(ctx, *o)
	}
}

func floorFlags(fs *flag.FlagSet) starter {
	o := new(bench.FloorOptions)
	sizes := fs.String("sizes", "260,420", "bytes of a frame")
	fs.IntVar(&o.Sockets, "sockets", 5000, "sockets")
	fs.IntVar(&o.Repeats, "repeats", 4, "repetitions, of which the best counts")
	return func(ctx context.Context, base bench.Options, _ *bench.Local) (*bench.Report, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find own program: %w", err)
		}
		o.Options, o.Reader = base, []string{self, readerCommand}
		if o.Sizes, err = ints(*sizes); err != nil {
			return nil, fmt.Errorf("read -sizes: %w", err)
		}
		return bench.Floor(ctx, *o)
	}
}
