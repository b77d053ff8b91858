package server

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cgroup is the group of processes whose memory is limited together, of
// whichever version, with the groups above it: the kernel kills when any of
// them is full. Read by one goroutine.
type cgroup struct {
	v1   []string // folders, innermost first
	v2   []string
	stat []byte // buffer
}

// Where the kernel tells about groups.
const (
	cgroupRoot = "/sys/fs/cgroup"
	cgroupSelf = "/proc/self/cgroup"
)

// noLimit is above any limit: version 1 says "none" by a number near 2^63.
const noLimit = 1 << 60

// findCgroup reads self (/proc/self/cgroup) and looks for its groups under root.
// There may be none; then used says so.
func findCgroup(root, self string) *cgroup {
	g := &cgroup{}
	lines, err := os.ReadFile(self)
	if err != nil {
		return g
	}
	for line := range strings.Lines(string(lines)) {
		id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		kinds, path, _ := strings.Cut(rest, ":")
		switch {
		case id == "0" && kinds == "":
			// Under a hybrid hierarchy version 2 has a folder of its own.
			g.v2 = append(ancestors(root, path, "memory.max"), ancestors(filepath.Join(root, "unified"), path, "memory.max")...)
		case strings.Contains(","+kinds+",", ",memory,"):
			g.v1 = ancestors(filepath.Join(root, "memory"), path, "memory.limit_in_bytes")
		}
	}
	return g
}

// ancestors are path and all above it, below root, that have the file. In a
// container path may be the host's and not be there: then root itself is ours.
func ancestors(root, path, file string) (dirs []string) {
	for {
		if _, err := os.Stat(filepath.Join(root, path, file)); err == nil {
			dirs = append(dirs, filepath.Join(root, path))
		}
		if path == "/" || path == "." || path == "" {
			return dirs
		}
		path = filepath.Dir(path)
	}
}

// used is the memory of the fullest group and its limit, in bytes; limit 0:
// there is none. What the kernel can take back at once (file cache that nobody
// uses) does not count; memory of sockets does.
func (g *cgroup) used() (used, limit uint64) {
	fuller := func(u, l uint64) {
		if l > 0 && (limit == 0 || float64(u)/float64(l) > float64(used)/float64(limit)) {
			used, limit = u, l
		}
	}
	for _, dir := range g.v2 { // memory.current has sockets in it
		fuller(g.usedOf(dir, "memory.max", "inactive_file", "memory.current"))
	}
	for _, dir := range g.v1 { // TCP's buffers are counted apart
		fuller(g.usedOf(dir, "memory.limit_in_bytes", "total_inactive_file", "memory.usage_in_bytes", "memory.kmem.tcp.usage_in_bytes"))
	}
	return used, limit
}

// usedOf is that of one group. What can be taken back is asked for when it
// counts: the kernel takes long to add up memory.stat.
func (g *cgroup) usedOf(dir, max, idle string, parts ...string) (used, limit uint64) {
	limit = number(dir, max)
	if limit == 0 || limit >= noLimit {
		return 0, 0
	}
	for _, part := range parts {
		used += number(dir, part)
	}
	if used >= limit/2 {
		used = less0(used, g.field(dir, idle))
	}
	return used, limit
}

func less0(a, b uint64) uint64 { return a - min(a, b) }

// number reads a file of one; 0 for "max" and for what is not there.
func number(dir, file string) uint64 {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseUint(string(bytes.TrimSpace(b)), 10, 64)
	return n
}

// field is one line of memory.stat.
func (g *cgroup) field(dir, name string) uint64 {
	f, err := os.Open(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return 0
	}
	defer f.Close()
	if g.stat == nil {
		g.stat = make([]byte, 16<<10)
	}
	n, _ := f.Read(g.stat)
	for line := range bytes.Lines(g.stat[:n]) {
		if key, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" ")); string(key) == name {
			v, _ := strconv.ParseUint(string(value), 10, 64)
			return v
		}
	}
	return 0
}
