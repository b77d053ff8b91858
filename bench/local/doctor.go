package local

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/daisi/daisi-ws/bench"
)

// State is how a check came out.
type State string

// States. What WARNs distorts figures or fails under load; what FAILs stops a
// run of the size that was asked for.
const (
	OK   State = "OK"
	Warn State = "WARN"
	Fail State = "FAIL"
)

// Finding is one thing that was looked at.
type Finding struct {
	Name  string
	State State
	Is    string // what was found
	Means string // why it matters
	Mend  string // the command that mends it; empty when OK
}

// DoctorOptions say what the machine is to be fit for.
type DoctorOptions struct {
	Sessions int    // in one process, default 10000
	Redis    string // URL; empty: not looked at
	NATS     string // URL; empty: not looked at
	Root     fs.FS  // with proc and sys; required
}

// Doctor looks at this machine, for about two seconds.
func Doctor(ctx context.Context, o DoctorOptions) []Finding {
	if o.Sessions <= 0 {
		o.Sessions = 10000
	}
	list := append([]Finding{openFiles(o.Sessions)}, machine{o.Root}.findings(o.Sessions)...)
	list = append(list, clock(ctx)...)
	if o.Redis != "" {
		list = append(list, redisLatency(ctx, o.Redis)...)
	}
	if o.NATS != "" {
		list = append(list, natsLatency(ctx, o.NATS))
	}
	return list
}

// Exit is what the findings come to: an error when something fails.
func Exit(list []Finding) bench.Exit {
	for _, f := range list {
		if f.State == Fail {
			return bench.ExitError
		}
	}
	return bench.ExitPass
}

// WriteFindings writes them for people.
func WriteFindings(w io.Writer, list []Finding) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, f := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\n", f.State, f.Name, f.Is)
		if f.State != OK {
			fmt.Fprintf(t, "\t\t%s\n\t\tmend: %s\n", f.Means, f.Mend)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write findings: %w", err)
	}
	return nil
}

// openFiles looks at what one process may open; Go raises the soft limit to the
// hard one by itself.
func openFiles(sessions int) Finding {
	f := Finding{
		Name: "open files a process", State: OK, Means: "each socket is a descriptor: a process can't hold more sessions than this",
		Mend: fmt.Sprintf("LimitNOFILE=%d in the unit, or ulimit -Hn %d as root; else spread over more processes", sessions+1000, sessions+1000),
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		f.State, f.Is = Warn, err.Error()
		return f
	}
	f.Is = fmt.Sprintf("%d, for %d sessions", limit.Max, sessions)
	if limit.Max < uint64(sessions)+200 {
		f.State = Fail
	}
	return f
}

// machine reads settings of the kernel.
type machine struct{ root fs.FS }

func (m machine) findings(sessions int) []Finding {
	return []Finding{
		m.systemFiles(sessions), m.backlog("somaxconn", "proc/sys/net/core/somaxconn", "net.core.somaxconn"),
		m.backlog("SYN backlog", "proc/sys/net/ipv4/tcp_max_syn_backlog", "net.ipv4.tcp_max_syn_backlog"),
		m.portRange(sessions), m.conntrack(sessions), m.tcpMemory(sessions), m.memory(sessions), m.clockSource(),
	}
}

// numbers are the numbers of a file; none when it is not there.
func (m machine) numbers(name string) (list []int64) {
	b, err := fs.ReadFile(m.root, name)
	if err != nil {
		return nil
	}
	for _, w := range strings.Fields(string(b)) {
		n, err := strconv.ParseInt(w, 10, 64)
		if err != nil {
			// file-max may be 2^64-1 or near it
			n = 1<<63 - 1
		}
		list = append(list, n)
	}
	return list
}

// unread is a finding about what this machine does not tell.
func unread(f Finding) Finding {
	f.State, f.Is, f.Mend = Warn, "can't be read here", "look at it on the host: a container may hide it"
	return f
}

func (m machine) systemFiles(sessions int) Finding {
	want := int64(sessions)*2 + 10000
	f := Finding{Name: "open files of the machine", State: OK, Means: "both ends of a loopback connection are descriptors of the machine", Mend: fmt.Sprintf("sysctl -w fs.file-max=%d", want)}
	n := m.numbers("proc/sys/fs/file-max")
	if len(n) == 0 {
		return unread(f)
	}
	f.Is = fmt.Sprint(n[0])
	if n[0] < want {
		f.State = Fail
	}
	return f
}

func (m machine) backlog(name, file, key string) Finding {
	f := Finding{Name: name, State: OK, Means: "connections beyond it are dropped in a storm and come again a second later: a false p99 of logins", Mend: "sysctl -w " + key + "=4096"}
	n := m.numbers(file)
	if len(n) == 0 {
		return unread(f)
	}
	f.Is = fmt.Sprint(n[0])
	if n[0] < 1024 {
		f.State = Warn
	}
	return f
}

func (m machine) portRange(sessions int) Finding {
	f := Finding{Name: "port range", State: OK, Means: "a source address has so many connections to one door at most", Mend: `sysctl -w net.ipv4.ip_local_port_range="1024 65535", or more addresses by -source`}
	n := m.numbers("proc/sys/net/ipv4/ip_local_port_range")
	if len(n) < 2 {
		return unread(f)
	}
	ports := n[1] - n[0] + 1
	f.Is = fmt.Sprintf("%d to %d: %d ports a source address", n[0], n[1], ports)
	if ports < int64(sessions) {
		f.State = Warn // loopback doors are given eight addresses
		if ports*8 < int64(sessions) {
			f.State = Fail
		}
	}
	return f
}

func (m machine) conntrack(sessions int) Finding {
	want := int64(sessions) * 2
	f := Finding{Name: "connection tracking", State: OK, Means: "the firewall drops connections when its table is full", Mend: fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d, or don't track the port (iptables -t raw … -j NOTRACK)", want*2)}
	limit, used := m.numbers("proc/sys/net/netfilter/nf_conntrack_max"), m.numbers("proc/sys/net/netfilter/nf_conntrack_count")
	if len(limit) == 0 || len(used) == 0 {
		f.Is = "not in use"
		return f
	}
	f.Is = fmt.Sprintf("%d of %d", used[0], limit[0])
	if limit[0]-used[0] < want {
		f.State = Fail
	}
	return f
}

// tcpMemory wants a page of buffers a socket, both ends, before the kernel
// begins to press; idle sockets hold none.
func (m machine) tcpMemory(sessions int) Finding {
	want := int64(sessions) * 2
	f := Finding{Name: "TCP memory", State: OK, Means: "past the second number the kernel shrinks windows, past the third it drops data: bursts to all sessions then stall", Mend: fmt.Sprintf(`sysctl -w net.ipv4.tcp_mem="%d %d %d"`, want, want*2, want*4)}
	n := m.numbers("proc/sys/net/ipv4/tcp_mem")
	if len(n) < 3 {
		return unread(f)
	}
	f.Is = fmt.Sprintf("%d %d %d pages", n[0], n[1], n[2])
	if n[1] < want {
		f.State = Warn
	}
	return f
}

// perSession is what a session takes here with both its ends: kernel 9-10 KB,
// the gateway's and the client's side.
const perSession = 14 << 10

func (m machine) memory(sessions int) Finding {
	f := Finding{Name: "memory", State: OK, Means: "a session takes about 14 KiB with both ends on this machine, most of it in the kernel", Mend: "fewer sessions, or the clients on another machine"}
	b, err := fs.ReadFile(m.root, "proc/meminfo")
	_, rest, ok := strings.Cut(string(b), "MemAvailable:")
	words := strings.Fields(rest)
	if err != nil || !ok || len(words) == 0 {
		return unread(f)
	}
	kib, err := strconv.ParseInt(words[0], 10, 64)
	if err != nil {
		return unread(f)
	}
	f.Is = fmt.Sprintf("%s available, about %s needed", bench.Quantity(float64(kib<<10), "B"), bench.Quantity(float64(sessions)*perSession, "B"))
	if kib<<10 < int64(sessions)*perSession {
		f.State = Fail
	}
	return f
}

func (m machine) clockSource() Finding {
	f := Finding{Name: "clock source", State: OK, Means: "a slow clock costs a system call at every reading, on the server's paths too", Mend: "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource, if it is among available_clocksource"}
	b, err := fs.ReadFile(m.root, "sys/devices/system/clocksource/clocksource0/current_clocksource")
	if err != nil {
		return unread(f)
	}
	switch f.Is = strings.TrimSpace(string(b)); f.Is {
	case "tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page":
	default:
		f.State = Warn
	}
	return f
}
