// Command daisi-ws is the gateway, and what an operator needs beside it: a
// look at the effective configuration, a WebSocket client for the terminal, a
// publisher, and tokens. It reads the environment and the flags, sets what is
// process-wide once, and leaves everything else to package server.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// version is set by the linker.
var version = "dev"

const usage = `daisi-ws: a WebSocket gateway

  daisi-ws [run]                  the gateway; without any setting: embedded Redis and NATS
  daisi-ws config [-markdown]     the effective configuration, secrets masked
  daisi-ws connect [flags] URL    a WebSocket client: frames as lines out, lines in as frames
  daisi-ws publish SUBJECT JSON   publish to JetStream; JSON may be - for standard input
  daisi-ws token mint|inspect|revoke|lift|revocations
  daisi-ws version

Settings come from the environment, see daisi-ws config.
`

// console is where a command reads and writes, and its environment.
type console struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := execute(ctx, console{in: os.Stdin, out: os.Stdout, err: os.Stderr, environ: os.Environ()}, os.Args[1:])
	stop()
	os.Exit(code)
}

// errUsage marks errors whose cure is to read the usage.
var errUsage = errors.New("wrong usage")

// execute runs one command and returns the exit code.
func execute(ctx context.Context, c console, args []string) int {
	name, rest := "run", args
	if len(args) > 0 {
		name, rest = args[0], args[1:]
	}
	err := dispatch(ctx, c, name, rest)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(c.err, "daisi-ws %s: %v\n\n%s", name, err, usage)
		return 2
	case errors.Is(err, errConfig):
		fmt.Fprintf(c.err, "daisi-ws: %v\n", err)
		return 2
	}
	fmt.Fprintf(c.err, "daisi-ws %s: %v\n", name, err)
	return 1
}

func dispatch(ctx context.Context, c console, name string, args []string) error {
	switch name {
	case "run":
		if len(args) > 0 {
			return fmt.Errorf("%w: run takes no arguments", errUsage)
		}
		return run(ctx, c)
	case "config":
		return showConfig(c, args)
	case "connect":
		return connect(ctx, c, args)
	case "publish":
		return publish(ctx, c, args)
	case "token":
		return token(ctx, c, args)
	case "version", "-version", "--version":
		_, err := fmt.Fprintf(c.out, "daisi-ws %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return err
	case "help", "-h", "-help", "--help":
		_, err := io.WriteString(c.out, usage)
		return err
	}
	return fmt.Errorf("%w: no command %q", errUsage, name)
}

// flags makes a flag set that reports to c and never exits.
func (c console) flags(name, synopsis string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(c.err)
	f.Usage = func() {
		fmt.Fprintf(c.err, "usage: daisi-ws %s\n", synopsis)
		f.PrintDefaults()
	}
	return f
}

// parseFlags tells a wrong flag as wrong usage.
func parseFlags(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil && !errors.Is(err, flag.ErrHelp) {
		return fmt.Errorf("%w: %w", errUsage, err)
	} else if err != nil {
		return err
	}
	return nil
}
