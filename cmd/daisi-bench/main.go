// Command daisi-bench loads a gateway, proves that what arrived was right, and
// says what it cost. See package bench.
//
// Exit codes: 0 pass, 1 error, 2 threshold missed, 3 promise broken, 4 the
// generator was the bottleneck.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/daisi/daisi-ws/bench"
	"github.com/daisi/daisi-ws/bench/view"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, errFlags) {
		fmt.Fprintln(os.Stderr, "daisi-bench:", err)
	}
	os.Exit(int(code))
}

var errFlags = errors.New("wrong flags")

// readerCommand is how the floor scenario starts its second process.
const readerCommand = "floor-reader"

func run(ctx context.Context, args []string, out, log io.Writer) (bench.Exit, error) {
	bench.SetProcessDefaults()
	if len(args) == 3 && args[0] == readerCommand {
		return bench.ExitError, reader(args[1], args[2])
	}
	if len(args) == 0 || args[0] == "-h" || args[0] == "help" || args[0] == "-help" || args[0] == "--help" {
		usage(out)
		return bench.ExitPass, nil
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
		fs.SetOutput(log)
		f := commonFlags(fs)
		f.localFlags(fs)
		f.title = "daisi-bench " + c.name
		start := c.flags(fs)
		if err := fs.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
			return bench.ExitPass, nil
		} else if err != nil {
			return bench.ExitError, errFlags // fs has said what is wrong
		}
		if fs.NArg() > 0 {
			return bench.ExitError, fmt.Errorf("%s takes no argument %q", c.name, fs.Arg(0))
		}
		o, err := f.options(log)
		if err != nil {
			return bench.ExitError, err
		}
		report, err := f.start(ctx, o, start)
		return tell(report, err, f, out)
	}
	for _, t := range tools() {
		if t.name == args[0] {
			return t.run(ctx, args[1:], out, log)
		}
	}
	usage(log)
	return bench.ExitError, fmt.Errorf("unknown scenario %q", args[0])
}

// tell prints the report, writes the files, and gives the exit code.
func tell(r *bench.Report, err error, f *common, out io.Writer) (bench.Exit, error) {
	if r == nil {
		return bench.ExitError, err
	}
	failed := r.WriteTable(out)
	if f.json != "" {
		failed = errors.Join(failed, r.WriteFile(f.json))
	}
	if f.html != "" {
		failed = errors.Join(failed, view.WriteHTMLFile(f.html, r))
	}
	if failed != nil {
		return r.Exit.Worse(bench.ExitError), failed // which hides no broken promise
	}
	return r.Exit, nil // err is in the report, and was printed with it
}

func reader(port, sockets string) error {
	p, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("read port: %w", err)
	}
	n, err := strconv.Atoi(sockets)
	if err != nil {
		return fmt.Errorf("read number of sockets: %w", err)
	}
	return bench.FloorReader(p, n)
}

func usage(w io.Writer) {
	fmt.Fprint(w, "usage: daisi-bench <scenario> [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.about)
	}
	fmt.Fprint(w, "\nbesides:\n")
	for _, t := range tools() {
		fmt.Fprintf(w, "  %-10s %s\n", t.name, t.about)
	}
	fmt.Fprint(w, "\ndaisi-bench <scenario> -h lists its flags.\n"+
		"exit codes: 0 pass, 1 error, 2 threshold missed, 3 promise broken, 4 the generator was the bottleneck\n")
}
