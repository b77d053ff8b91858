package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// tick is the unit of utime and stime in /proc/<pid>/stat; the kernel's ABI
// fixes USER_HZ at 100 on every architecture Go runs on.
const tick = 10 * time.Millisecond

// Process is what /proc says of one process. A process that is gone is all
// zero but for PID.
type Process struct {
	PID     int     `json:"pid"`
	CPU     float64 `json:"cpu"` // seconds, user and system, since its start
	RSS     int64   `json:"rss"` // bytes
	Threads int     `json:"threads"`
	FDs     int     `json:"fds"`
	Gone    bool    `json:"gone,omitempty"`
}

// ReadProcess reads /proc/<pid>; 0 is this process.
func ReadProcess(pid int) (Process, error) {
	if pid == 0 {
		pid = os.Getpid()
	}
	p := Process{PID: pid}
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if errors.Is(err, fs.ErrNotExist) {
		p.Gone = true
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("sample process %d: %w", pid, err)
	}
	// The command name may hold anything, also spaces and ')'.
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(f) < 22 {
		return p, fmt.Errorf("sample process %d: stat has %d fields", pid, len(f))
	}
	var n [22]int64
	for _, i := range []int{11, 12, 17, 21} {
		if n[i], err = strconv.ParseInt(f[i], 10, 64); err != nil {
			return p, fmt.Errorf("sample process %d: %w", pid, err)
		}
	}
	p.CPU = float64(n[11]+n[12]) * tick.Seconds()
	p.Threads = int(n[17])
	p.RSS = n[21] * int64(os.Getpagesize())
	// Since Linux 6.2 the directory's size is the number of descriptors.
	if st, err := os.Stat(dir + "/fd"); err == nil && st.Size() > 0 {
		p.FDs = int(st.Size())
	} else if list, err := os.ReadDir(dir + "/fd"); err == nil {
		p.FDs = len(list)
	}
	return p, nil
}

// Kernel is what the whole machine holds for sockets and their buffers.
type Kernel struct {
	Available int64 `json:"available"` // bytes that programs may still have, from /proc/meminfo
	Slab      int64 `json:"slab"`      // bytes in slab caches, from /proc/meminfo
	TCP       int64 `json:"tcp"`       // bytes in TCP buffers, from /proc/net/sockstat
	Sockets   int64 `json:"sockets"`   // TCP sockets in use, this network namespace
	Load      Load  `json:"load"`
}

// Load is CPU time of the whole machine in seconds since its start.
type Load struct {
	Busy float64 `json:"busy"`
	Idle float64 `json:"idle"`
}

// ReadKernel reads it. What a machine does not tell stays 0.
func ReadKernel() Kernel {
	k := readSockets()
	scanFile("/proc/stat", func(f []string) {
		for i := 1; f[0] == "cpu" && i < len(f) && i <= 8; i++ {
			if i == 4 || i == 5 { // idle, iowait
				k.Load.Idle += float64(atoi(f[i])) * tick.Seconds()
			} else {
				k.Load.Busy += float64(atoi(f[i])) * tick.Seconds()
			}
		}
	})
	return k
}

// readSockets is ReadKernel without the load: the kernel takes long to write
// /proc/stat, and crews of many workers read this often.
func readSockets() (k Kernel) {
	scanFile("/proc/meminfo", func(f []string) {
		switch {
		case len(f) < 2:
		case f[0] == "Slab:":
			k.Slab = atoi(f[1]) * 1024
		case f[0] == "MemAvailable:":
			k.Available = atoi(f[1]) * 1024
		}
	})
	scanFile("/proc/net/sockstat", func(f []string) {
		for i := 1; f[0] == "TCP:" && i+1 < len(f); i += 2 {
			switch f[i] {
			case "inuse":
				k.Sockets = atoi(f[i+1])
			case "mem":
				k.TCP = atoi(f[i+1]) * int64(os.Getpagesize())
			}
		}
	})
	return k
}

// ReadSlabs gives the bytes of each slab cache of the machine; nil where
// /proc/slabinfo may not be read (it takes root).
func ReadSlabs() map[string]int64 {
	slabs := make(map[string]int64)
	scanFile("/proc/slabinfo", func(f []string) {
		// name <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables … : slabdata <active_slabs> <num_slabs> …
		if len(f) >= 15 && f[6] == ":" {
			slabs[f[0]] = atoi(f[14]) * atoi(f[5]) * int64(os.Getpagesize())
		}
	})
	if len(slabs) == 0 {
		return nil
	}
	return slabs
}

// scanFile hands over the fields of each line that has any.
func scanFile(name string, line func(f []string)) {
	file, err := os.Open(name)
	if err != nil {
		return
	}
	defer file.Close()
	for s := bufio.NewScanner(file); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) > 0 {
			line(f)
		}
	}
}

func atoi(s string) int64 {
	// What is no number counts as 0: these figures are shown, never judged.
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// Sample is one row of the time series of a run.
type Sample struct {
	At        float64 `json:"at"`         // seconds since the run began
	Sessions  int     `json:"sessions"`   // open sockets here
	Logins    int64   `json:"logins"`     // that came through so far
	Received  int64   `json:"received"`   // event frames so far
	Published int64   `json:"published"`  // events so far
	ServerCPU float64 `json:"server_cpu"` // seconds so far, all pids
	ServerRSS int64   `json:"server_rss"` // bytes, all pids
	OwnCPU    float64 `json:"own_cpu"`
	Breaches  int64   `json:"breaches"`
	Phase     string  `json:"phase,omitempty"` // the measured window that runs
	Asked     int64   `json:"asked"`           // logins asked for so far
	Failed    int64   `json:"failed"`          // refused or failed attempts so far
	Closed    int64   `json:"closed"`          // sockets ended by the server or lost, so far
	Returns   int64   `json:"returns"`         // attempts of clients that were cut off, so far
	Slab      int64   `json:"slab"`            // bytes, whole machine
	TCP       int64   `json:"tcp"`             // bytes in socket buffers, this network namespace

	Delivery    *Beat         `json:"delivery,omitempty"` // of this second, from the due instant
	DeliveryRaw *Beat         `json:"delivery_raw,omitempty"`
	Login       *Beat         `json:"login,omitempty"`
	Server      *ServerSample `json:"server,omitempty"` // when the pods' metrics were read
}

// Usage is what a window of time cost.
type Usage struct {
	Seconds  float64   `json:"seconds"`
	Server   float64   `json:"server_cpu"` // seconds, all pids
	Own      float64   `json:"own_cpu"`    // seconds, this process
	Machine  float64   `json:"machine"`    // busy share of all cores, 0-1
	Before   []Process `json:"before"`
	After    []Process `json:"after"`
	KernelIn Kernel    `json:"kernel_before"`
	Kernel   Kernel    `json:"kernel_after"`
}

// RSS is by how much the server's grew, in bytes, all pids.
func (u Usage) RSS() (n int64) {
	for i := range u.After {
		n += u.After[i].RSS - u.Before[i].RSS
	}
	return n
}

// lived says whether all of the server's processes were there at both ends. Where
// one was killed and started again, nobody knows what its CPU came to.
func (u Usage) lived() bool {
	for i := range u.After {
		if u.Before[i].Gone || u.After[i].Gone {
			return false
		}
	}
	return len(u.After) > 0
}

// Sampler reads /proc of the server's processes: each second for the time
// series, and at both ends of a window.
type Sampler struct {
	// Static.
	pids  []int
	began time.Time
	fill  func(*Sample) // what the run knows beside /proc

	mu   sync.Mutex
	rows []Sample
}

// NewSampler watches pids; fill, if not nil, completes each row.
func NewSampler(pids []int, fill func(*Sample)) *Sampler {
	return &Sampler{pids: pids, fill: fill, began: time.Now()}
}

// Run takes a row each second until ctx ends.
func (s *Sampler) Run(ctx context.Context) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := s.row(); err != nil {
				return err
			}
		}
	}
}

// Rows gives the rows so far.
func (s *Sampler) Rows() []Sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Sample(nil), s.rows...)
}

func (s *Sampler) row() error {
	r := Sample{At: time.Since(s.began).Seconds()}
	ps, err := s.Processes()
	if err != nil {
		return err
	}
	for _, p := range ps {
		r.ServerCPU += p.CPU
		r.ServerRSS += p.RSS
	}
	own, err := ReadProcess(0)
	if err != nil {
		return err
	}
	r.OwnCPU = own.CPU
	if s.fill != nil {
		s.fill(&r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows = append(s.rows, r)
	return nil
}

// Processes reads all pids now.
func (s *Sampler) Processes() ([]Process, error) {
	ps := make([]Process, len(s.pids))
	for i, pid := range s.pids {
		var err error
		if ps[i], err = ReadProcess(pid); err != nil {
			return nil, err
		}
	}
	return ps, nil
}

// present is an error if there is no such process as one that is to be watched:
// it would seem to cost nothing.
func (s *Sampler) present() error {
	list, err := s.Processes()
	if err != nil {
		return err
	}
	for _, p := range list {
		if p.Gone {
			return fmt.Errorf("no process %d (-pid) on this machine", p.PID)
		}
	}
	return nil
}

// Window begins a measurement; the function it returns ends it.
func (s *Sampler) Window() (end func() (Usage, error), err error) {
	u := Usage{KernelIn: ReadKernel()}
	if u.Before, err = s.Processes(); err != nil {
		return nil, err
	}
	own, err := ReadProcess(0)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	return func() (Usage, error) {
		u.Seconds = time.Since(began).Seconds()
		var err error
		if u.After, err = s.Processes(); err != nil {
			return u, err
		}
		now, err := ReadProcess(0)
		if err != nil {
			return u, err
		}
		u.Own, u.Kernel = now.CPU-own.CPU, ReadKernel()
		for i := range u.After {
			if !u.After[i].Gone {
				u.Server += u.After[i].CPU - u.Before[i].CPU
			}
		}
		busy, idle := u.Kernel.Load.Busy-u.KernelIn.Load.Busy, u.Kernel.Load.Idle-u.KernelIn.Load.Idle
		if busy+idle > 0 {
			u.Machine = busy / (busy + idle)
		}
		return u, nil
	}, nil
}

func atof(s string) float64 {
	// As atoi.
	f, _ := strconv.ParseFloat(s, 64)
	return f
}
