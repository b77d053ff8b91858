package local

import (
	"bytes"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/daisi/daisi-ws/bench"
)

// healthy is a machine on which nothing is to be mended.
func healthy() fstest.MapFS {
	m := fstest.MapFS{}
	for name, text := range map[string]string{
		"proc/sys/fs/file-max":                                            "9223372036854775807\n",
		"proc/sys/net/core/somaxconn":                                     "4096\n",
		"proc/sys/net/ipv4/tcp_max_syn_backlog":                           "2048\n",
		"proc/sys/net/ipv4/ip_local_port_range":                           "1024\t65535\n",
		"proc/sys/net/netfilter/nf_conntrack_max":                         "262144\n",
		"proc/sys/net/netfilter/nf_conntrack_count":                       "12\n",
		"proc/sys/net/ipv4/tcp_mem":                                       "282000\t376000\t564000\n",
		"proc/meminfo":                                                    "MemTotal: 1 kB\nMemAvailable:   20000000 kB\n",
		"sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
	} {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func find(t *testing.T, list []Finding, name string) Finding {
	t.Helper()
	for _, f := range list {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("nothing said of %s", name)
	return Finding{}
}

func TestDoctorSuccess(t *testing.T) {
	t.Parallel()
	list := Doctor(t.Context(), DoctorOptions{Sessions: 1000, Root: healthy()})
	for _, f := range list {
		// What this machine really does is not the test's business.
		if f.State != OK && f.Name != "clock steps" && f.Name != "stalls" && f.Name != "open files a process" {
			t.Errorf("%+v", f)
		}
		if f.Is == "" || f.Means == "" || f.Mend == "" {
			t.Errorf("unsaid: %+v", f)
		}
	}
	m := healthy()
	delete(m, "proc/sys/net/netfilter/nf_conntrack_max")
	if f := (machine{m}).conntrack(1000); f.State != OK || f.Is != "not in use" {
		t.Errorf("without connection tracking: %+v", f)
	}
}

// Each thing that is wrong is seen, and only that.
func TestDoctorFailure(t *testing.T) {
	f := func(name, file, text string, want State) {
		t.Helper()
		m := maps.Clone(healthy())
		m[file] = &fstest.MapFile{Data: []byte(text)}
		if text == "" {
			delete(m, file)
		}
		for _, got := range (machine{m}).findings(10000) {
			switch {
			case got.Name == name && got.State != want:
				t.Errorf("%s with %q: %+v, want %s", name, text, got, want)
			case got.Name != name && got.State != OK:
				t.Errorf("%s with %q: %+v", name, text, got)
			}
		}
	}
	f("open files of the machine", "proc/sys/fs/file-max", "1000", Fail)
	f("somaxconn", "proc/sys/net/core/somaxconn", "128", Warn)
	f("somaxconn", "proc/sys/net/core/somaxconn", "", Warn)
	f("SYN backlog", "proc/sys/net/ipv4/tcp_max_syn_backlog", "128", Warn)
	f("port range", "proc/sys/net/ipv4/ip_local_port_range", "60000 65000", Warn)
	f("port range", "proc/sys/net/ipv4/ip_local_port_range", "64000 65000", Fail)
	f("connection tracking", "proc/sys/net/netfilter/nf_conntrack_max", "4096", Fail)
	f("TCP memory", "proc/sys/net/ipv4/tcp_mem", "100 200 300", Warn)
	f("memory", "proc/meminfo", "MemAvailable: 1000 kB\n", Fail)
	f("memory", "proc/meminfo", "nonsense", Warn)
	f("clock source", "sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n", Warn)
	if got := openFiles(1 << 40); got.State != Fail || !strings.Contains(got.Mend, "LimitNOFILE") {
		t.Errorf("%+v", got)
	}
}

// A wall clock that steps, either way, and a time in which nothing ran.
func TestDoctorClock(t *testing.T) {
	f := func(step, stall time.Duration, wantSteps, wantStalls State) {
		t.Helper()
		looks := make([]instant, 200)
		for i := range looks {
			mono := time.Duration(i) * clockBeat
			looks[i] = instant{wall: 1e18 + int64(mono), mono: mono}
			if i >= 120 {
				looks[i].mono += stall
				looks[i].wall += int64(stall + step)
			}
		}
		list := judgeClock(looks)
		if a, b := find(t, list, "clock steps"), find(t, list, "stalls"); a.State != wantSteps || b.State != wantStalls {
			t.Errorf("a step of %v, a stall of %v: %+v", step, stall, list)
		}
	}
	f(0, 0, OK, OK)
	f(500*time.Microsecond, 10*time.Millisecond, OK, OK)
	f(2*time.Millisecond, 0, Warn, OK)
	f(-2*time.Millisecond, 0, Warn, OK)
	f(0, 50*time.Millisecond, OK, Warn)
	if list := judgeClock(make([]instant, 1)); len(list) != 2 || list[0].State != OK {
		t.Errorf("of one look: %+v", list)
	}
}

// A Redis and a NATS that are there, and that are not.
func TestDoctorLatency(t *testing.T) {
	t.Parallel()
	l, err := startPod(t.Context(), programs)
	if err != nil {
		t.Fatal(err)
	}
	list := append(redisLatency(t.Context(), l.Redis), natsLatency(t.Context(), l.NATS))
	for _, name := range []string{"Redis", "NATS"} {
		if f := find(t, list, name); f.State == Fail || !strings.Contains(f.Is, "p99") {
			t.Errorf("%+v", f)
		}
	}
	if f := find(t, list, "Redis's maxmemory-policy"); f.State != OK {
		t.Errorf("%+v", f)
	}
	l.Close()
	list = append(redisLatency(t.Context(), l.Redis), natsLatency(t.Context(), l.NATS))
	if len(list) != 2 || list[0].State != Fail || list[1].State != Fail {
		t.Errorf("of what is gone: %+v", list)
	}
	if f := redisLatency(t.Context(), "redis://:s3cret@%zz")[0]; f.State != Fail || strings.Contains(f.Is, "s3cret") {
		t.Errorf("%+v", f)
	}
}

func TestWriteFindings(t *testing.T) {
	list := []Finding{{"a", OK, "fine", "why", "how"}, {"b", Fail, "bad", "because", "sysctl -w x=1"}}
	var b bytes.Buffer
	if err := WriteFindings(&b, list); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); !strings.Contains(got, "mend: sysctl -w x=1") || strings.Contains(got, "how") {
		t.Error(got)
	}
	if Exit(list) != bench.ExitError || Exit(list[:1]) != bench.ExitPass {
		t.Error("exit code")
	}
}
