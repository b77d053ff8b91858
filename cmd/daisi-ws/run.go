package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/VictoriaMetrics/metrics"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/daisi/daisi-ws/server"
)

// run is the gateway: it ends when ctx does, after an orderly stop. A second
// signal does not wait for that (main's NotifyContext lets it through).
func run(ctx context.Context, c console) error {
	p, err := plan(c.environ)
	if err != nil {
		return err
	}
	log := newLog(c.err, p.config.LogLevel).With().Str("pod", p.options.PodID).Logger()
	setProcessDefaults(log)
	p.options.Log = log
	for _, name := range p.environment.ignored {
		log.Info().Str("name", name).Msg("ignored: looks like one that Kubernetes injects for a Service")
	}
	for _, w := range p.warnings() {
		log.Warn().Msg(w)
	}

	// What is embedded outlives the gateway, which says goodbye to it.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	parts, err := embed(&p.options)
	if err != nil {
		return err
	}
	group, inner := errgroup.WithContext(inner)
	for _, part := range parts {
		group.Go(func() error { return part(inner) })
	}
	gateway, err := server.New(p.options)
	if err != nil {
		stop()
		return errors.Join(fmt.Errorf("%w: %w", errConfig, inWords(err)), group.Wait())
	}
	outer, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(inner, cancel) // an embedded server that fails ends the gateway
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		watchKeys(outer, c.environ, p, gateway, log)
	}()
	greeted := make(chan struct{})
	go func() {
		defer close(greeted)
		if p.options.Embedded.On {
			greet(outer, c.out, gateway, p.options, log)
		}
	}()
	log.Info().Str("version", version).Str("http", p.options.HTTP.Addr).Str("internal", p.options.Internal.Addr).
		Str("rpc", p.options.RPC.Addr).Bool("tls", p.options.TLS.On()).Msg("starting")
	began := time.Now()
	err = gateway.Run(outer)
	cancel()
	stop()
	<-greeted
	<-watched
	// A server that was told to end before it was ready says so; that is no news.
	if ended := group.Wait(); ended != nil && !errors.Is(ended, context.Canceled) {
		err = errors.Join(err, ended)
	}
	if err != nil {
		return advise(err)
	}
	log.Info().Dur("ran", time.Since(began)).Msg("stopped")
	return nil
}

// advise adds what to change to errors that an operator sees often.
func advise(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w; free the port, or set DWS_HTTP_ADDR, DWS_INTERNAL_ADDR or DWS_RPC_ADDR to another", err)
	}
	return inWords(err)
}

// newLog writes JSON lines with times that keep their order.
func newLog(w io.Writer, level zerolog.Level) zerolog.Logger {
	return zerolog.New(zerolog.SyncWriter(w)).Level(level).With().Timestamp().Logger()
}

// setProcessDefaults sets the switches that libraries have one of in a process.
func setProcessDefaults(log zerolog.Logger) {
	zerolog.TimeFieldFormat = time.RFC3339Nano
	zerolog.DurationFieldUnit = time.Millisecond
	metrics.ExposeMetadata(true)
	server.SetProcessDefaults(log)
	// Nine tenths of the cgroup's limit, unless GOMEMLIMIT is set: the collector
	// works harder before the kernel kills. Without a limit nothing changes.
	limit, err := memlimit.Set(memlimit.WithLogger(slog.New(slog.DiscardHandler)))
	log.Debug().Int64("bytes", limit).AnErr("without", err).Msg("memory limit")
}
