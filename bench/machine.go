package bench

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

// Machine is where a run was made: figures of two machines don't compare.
type Machine struct {
	Host   string `json:"host"`
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory int64  `json:"memory"` // bytes
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// ReadMachine describes this machine; what it does not tell stays empty.
func ReadMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	// A host without a name is no reason not to measure.
	m.Host, _ = os.Hostname()
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	scanFile("/proc/meminfo", func(f []string) {
		if f[0] == "MemTotal:" && len(f) > 1 {
			m.Memory = atoi(f[1]) * 1024
		}
	})
	scanFile("/proc/cpuinfo", func(f []string) {
		if m.CPU == "" && f[0] == "model" && len(f) > 3 && f[1] == "name" {
			m.CPU = strings.Join(f[3:], " ")
		}
	})
	return m
}

// Commit is the version this binary was built from, "unknown" under go test and
// go run; "+" at the end: with changes.
func Commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	rev, dirty := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			rev = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+"
		}
	}
	return rev + dirty
}
