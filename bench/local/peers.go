package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/daisi/daisi-ws/bench"
)

// gatewayName is the gateway among the servers of Peers.
const gatewayName = "daisi-ws"

// PeersOptions is a comparison with bare servers.
type PeersOptions struct {
	Programs
	bench.PeerOptions          // the same for all; Server, Control and addresses are filled in
	Servers           []string // in this order; default gorilla, gws, coder, nbio, daisi-ws
}

// Measured is a server and what was found.
type Measured struct {
	Server string
	*bench.Report
}

// Peers measures one server after the other; what was measured is returned with
// the error.
func Peers(ctx context.Context, o PeersOptions) (list []Measured, err error) {
	if o.Programs, err = o.Programs.withDefaults(); err != nil {
		return nil, err
	}
	if len(o.Servers) == 0 {
		o.Servers = []string{"gorilla", "gws", "coder", "nbio", gatewayName}
	}
	for _, name := range o.Servers {
		one := o.PeerOptions
		one.Server = name
		var r *bench.Report
		if name == gatewayName {
			r, err = peerGateway(ctx, o.Programs, one)
		} else {
			r, err = peerBare(ctx, o.Programs, one)
		}
		if r != nil {
			list = append(list, Measured{name, r})
		}
		if err != nil {
			return list, fmt.Errorf("measure %s: %w", name, err)
		}
	}
	return list, nil
}

func peerGateway(ctx context.Context, p Programs, o bench.PeerOptions) (r *bench.Report, err error) {
	l, err := startPod(ctx, p)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.Apply(&o.Options)
	o.Brokers = l.Brokers()
	// It begins to read its partitions after it took the first connection.
	if err := bench.Wait(ctx, time.Now().Add(3*time.Second)); err != nil {
		return nil, err
	}
	return bench.Peer(ctx, o)
}

func peerBare(ctx context.Context, p Programs, o bench.PeerOptions) (r *bench.Report, err error) {
	dir, err := os.MkdirTemp("", "daisi-bench-")
	if err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	at, err := ports(2)
	if err != nil {
		return nil, err
	}
	run, err := bench.StartChild(dir, o.Server, []string{}, p.Peers, "-server", o.Server, "-addr", at[0], "-control", at[1])
	if err != nil {
		return nil, err
	}
	defer run.End(syscall.SIGTERM, 30*time.Second)
	for _, a := range at {
		if err := run.AwaitListening(ctx, a); err != nil {
			return nil, err
		}
	}
	o.Addrs, o.Control, o.PIDs = []string{at[0]}, at[1], []int{run.PID()}
	o.Mint = func(string, string, string) (string, error) { return "none", nil } // nobody looks at it
	return bench.Peer(ctx, o)
}

// ports are free TCP ports of loopback, as host:port: free a moment ago, which
// is all that can be known.
func ports(n int) ([]string, error) {
	list := make([]string, n)
	for i := range list {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer ln.Close()
		list[i] = ln.Addr().String()
	}
	return list, nil
}

// peerColumns are the columns of the table and the figures they show.
var peerColumns = [...]struct{ title, figure, unit string }{
	{"RSS a session", "rss_per_session", "KiB"},
	{"CPU a login", "server_cpu_per_login", "us"},
	{"CPU an event nobody wants", "nobody_cpu_per_event", "us"},
	{"CPU a delivery, one by one", "single_cpu_per_delivery", "us"},
	{"of it without intake", "single_cpu_per_delivery_net", "us"},
	{"p50", "single.p50", "ms"},
	{"p99", "single.p99", "ms"},
	{"CPU a delivery, bursts", "burst_cpu_per_delivery", "us"},
	{"p50", "burst.p50", "ms"},
	{"p99", "burst.p99", "ms"},
}

// WritePeers writes the table, in markdown, and what must be known to read it.
func WritePeers(w io.Writer, o PeersOptions, list []Measured) error {
	if len(list) == 0 {
		return errors.New("write table of peers: nothing was measured")
	}
	o.PeerOptions = o.PeerOptions.WithDefaults()
	var b strings.Builder
	fmt.Fprintf(&b, "%d idle sessions; %d receivers an event of %d B; %.0f events/s one by one, then %.0f events/s in bursts of %d; %.0f s each. %d cores, %s, Go %s, commit %s.\n\n",
		o.Sessions, o.Receivers, o.Size, o.Rate, o.BurstRate, o.Burst, o.Duration.Seconds(), list[0].Machine.Cores, list[0].Machine.CPU, strings.TrimPrefix(list[0].Machine.Go, "go"), list[0].Commit)
	b.WriteString("| server |")
	for _, c := range peerColumns {
		b.WriteString(" " + c.title + " |")
	}
	b.WriteString(" judged |\n|" + strings.Repeat("---|", len(peerColumns)+2) + "\n")
	for _, r := range list {
		fmt.Fprintf(&b, "| %s |", r.Server)
		for _, c := range peerColumns {
			v, ok := r.Figure(c.figure)
			if !ok {
				b.WriteString(" – |")
				continue
			}
			fmt.Fprintf(&b, " %s |", inUnit(v, c.unit))
		}
		fmt.Fprintf(&b, " %s |\n", r.Result)
	}
	b.WriteString(peerNotes)
	if i := slices.IndexFunc(list, func(r Measured) bool { return r.Server == gatewayName }); i >= 0 {
		single, _ := list[i].Figure("single_broker_cpu_per_delivery")
		burst, _ := list[i].Figure("burst_broker_cpu_per_delivery")
		fmt.Fprintf(&b, "Redis and NATS beside %s cost %s and %s of CPU a delivery more (one by one, bursts).\n", gatewayName, inUnit(single, "us"), inUnit(burst, "us"))
	}
	_, err := io.WriteString(w, b.String())
	if err != nil {
		return fmt.Errorf("write table of peers: %w", err)
	}
	return nil
}

const peerNotes = `
The bare servers have no login, no token, no Redis, no NATS, no exclusive sessions, no order between pods, no resume and
no budget for slow readers: they write each event to a list of sockets found by the request's path. Their events come by
HTTP on one connection, a burst in one request; the gateway's come through NATS JetStream and two streams. CPU a
delivery holds all that the server's process did, the intake of the event included (a bare server's HTTP request, a
gateway's stream and Redis look-up): "an event nobody wants" is that part alone, and a server that sleeps between events
pays for each waking. Latency runs from the instant the
event was due to the client's handling of its frame. Each library is used as its README shows, with compression off and
its broadcast encoded once where it can; memory is read after a forced collection in the bare servers, and as it is in
the gateway.
`

func inUnit(v float64, unit string) string {
	switch unit {
	case "KiB":
		return fmt.Sprintf("%.2f KiB", v/1024)
	case "us":
		return fmt.Sprintf("%.1f us", v*1e6)
	default:
		return fmt.Sprintf("%.2f ms", v*1e3)
	}
}
