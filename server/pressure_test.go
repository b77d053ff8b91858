package server

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// groups writes a hierarchy of groups as the kernel shows it.
func groups(t *testing.T, self string, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	files["self"] = self
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestCgroup(t *testing.T) {
	f := func(name string, wantUsed, wantLimit uint64, self string, files map[string]string) {
		t.Helper()
		root := groups(t, self, files)
		if used, limit := findCgroup(root, filepath.Join(root, "self")).used(); used != wantUsed || limit != wantLimit {
			t.Errorf("%s: %d of %d, want %d of %d", name, used, limit, wantUsed, wantLimit)
		}
	}
	f("version 2, in a container", 70, 100, "0::/", map[string]string{
		"memory.max": "100", "memory.current": "90", "memory.stat": "anon 50\nsock 20\ninactive_file 20\nactive_file 3",
	})
	f("version 2, the fuller group above counts", 95, 100, "0::/pods/a", map[string]string{
		"pods/a/memory.max": "50", "pods/a/memory.current": "10", "pods/memory.max": "100", "pods/memory.current": "95",
	})
	f("version 2, no limit", 0, 0, "0::/a", map[string]string{"a/memory.max": "max", "a/memory.current": "10"})
	f("version 2, the host's path", 60, 100, "0::/host/only", map[string]string{"memory.max": "100", "memory.current": "60"})
	f("version 1, sockets counted apart", 90, 100, "4:cpu:/x\n3:memory:/a\n0::/", map[string]string{
		"memory/a/memory.limit_in_bytes": "100", "memory/a/memory.usage_in_bytes": "80",
		"memory/a/memory.kmem.tcp.usage_in_bytes": "25", "memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 15",
	})
	f("version 1, no limit", 0, 0, "3:memory:/", map[string]string{
		"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "80",
	})
	f("version 1, with another controller", 5, 10, "3:cpu,memory:/", map[string]string{
		"memory/memory.limit_in_bytes": "10", "memory/memory.usage_in_bytes": "5",
	})
	f("none", 0, 0, "", map[string]string{})
	if used, limit := findCgroup("/nowhere", "/nowhere/self").used(); used != 0 || limit != 0 {
		t.Errorf("no kernel: %d of %d", used, limit)
	}
	real := findCgroup(cgroupRoot, cgroupSelf) // whatever this machine has
	if used, limit := real.used(); limit > 0 && (used == 0 || used > 2*limit) {
		t.Errorf("this machine: %d of %d", used, limit)
	}
}

// What a pod does as its memory fills: collect, refuse logins with a time to
// come back, close what comes; and let in again when there is room.
func TestMemoryPressure(t *testing.T) {
	root := groups(t, "0::/", map[string]string{"memory.max": "100000000", "memory.current": "100000"})
	h := newHouse(t, func(o *Options) { o.Limits.Cgroup = root })
	if want := 100000000 / pendingShare / pendingSize; h.gate.maxPending != want {
		t.Errorf("%d pending allowed, want %d", h.gate.maxPending, want)
	}
	fill := func(bytes int) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, "memory.current"), []byte(strconv.Itoa(bytes)), 0o600); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is seen", func() bool { return h.gate.pressure.memory.Load() == uint32(bytes/100000) })
	}
	path := "/ws/acme/ag1?x-api-key=" + testAPIKey + "&token=" + url.QueryEscape(h.token("ag1", "u1"))
	in := h.login("ag1", "u0", "", nil)
	fill(84_000_000)
	h.login("ag1", "u2", "", nil)

	fill(86_000_000)
	status, header, body := h.do(call{path: path, header: upgradeHeader})
	refusedAs(t, status, header, body, 503, "Overloaded", "memory")
	if status, _, body := h.do(call{path: "/readyz"}); status != 503 {
		t.Errorf("ready: %d %s", status, body)
	}
	if status, _, _ := h.do(call{internal: true, path: "/livez"}); status != 200 {
		t.Errorf("live: %d", status)
	}
	in.barrier() // those who are in notice nothing

	fill(93_000_000)
	nc, err := h.tryDial()
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := nc.Read(make([]byte, 1)); err == nil {
		t.Error("a connection was let in")
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Error("a connection stays")
	}
	in.barrier()
	if status, _, _ := h.do(call{internal: true, path: "/metrics"}); status != 200 {
		t.Errorf("metrics: %d", status)
	}
	fill(50_000_000)
	h.login("ag1", "u3", "", nil)
}

// Garbage is given back before anybody is refused for it, and not all the time.
func TestPressureCollectsFirst(t *testing.T) {
	root := groups(t, "0::/", map[string]string{"memory.max": "1000", "memory.current": "900"})
	p := newPressure(findCgroup(root, filepath.Join(root, "self")))
	freed := 0
	p.release = func() {
		freed++
		if err := os.WriteFile(filepath.Join(root, "memory.current"), []byte("500"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	p.look(now, 0)
	if _, short := p.refuses(); freed != 1 || short != "" {
		t.Errorf("freed %d times, refuses %q", freed, short)
	}
	p.release = func() { freed++ } // it helps no more
	if err := os.WriteFile(filepath.Join(root, "memory.current"), []byte("900"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		p.look(now.Add(time.Duration(i)*pressureEvery), 0)
	}
	if g, short := p.refuses(); freed != 1 || short == "" || g != gateMemory {
		t.Errorf("freed %d times within 2 s, refuses %q", freed, short)
	}
	p.look(now.Add(freeEvery), 0)
	if freed != 2 {
		t.Errorf("freed %d times", freed)
	}
}

// Those for whom the most waits are ended when giving garbage back was not
// enough, then those for whom half as much does, until it is; nobody before,
// and nobody again and again for nothing.
func TestPressureSheds(t *testing.T) {
	root := groups(t, "0::/", map[string]string{"memory.max": "1000", "memory.current": "840"})
	p := newPressure(findCgroup(root, filepath.Join(root, "self")))
	fill := func(n string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, "memory.current"), []byte(n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	released, kept, over, evicts := 0, []int(nil), 1, 0
	p.release = func() { released++ }
	p.budget, p.shed = 32<<10, func(keep int) int { kept = append(kept, keep); return over }
	p.evict = func() bool { evicts--; return evicts >= 0 }
	now := time.Now()
	look := func(after time.Duration, want ...int) {
		t.Helper()
		now = now.Add(after)
		kept = nil
		if p.look(now, 0); !slices.Equal(kept, want) {
			t.Errorf("kept %v, want %v", kept, want)
		}
	}
	look(0)
	fill("900")
	look(pressureEvery)           // its garbage was given back only now
	for evicts = 8; evicts > 0; { // a flood that asks for nothing makes no session a greater burden
		look(shedEvery)
		look(reapAfter)
		released -= 2
	}
	look(shedEvery, 16<<10)
	for _, keep := range []int{8 << 10, 4 << 10, 4 << 10} {
		before := released
		look(reapAfter / 2)
		look(reapAfter / 2) // what was held for them
		if released != before+1 {
			t.Errorf("garbage was given back %d times behind an end", released-before)
		}
		look(shedEvery/2 + 1)
		look(shedEvery/2, keep)
	}
	look(reapAfter)
	over = 0
	look(shedEvery, 4<<10)
	look(shedEvery) // nobody was left
	look(freeEvery, 4<<10)
	fill("840")
	look(freeEvery)
	fill("900")
	look(freeEvery, 4<<10) // not over yet
	fill("500")
	look(freeEvery)
	fill("900")
	look(freeEvery, 16<<10, 8<<10, 4<<10) // at once, for nobody was over
	if released != 14 {
		t.Errorf("garbage was given back %d times", released)
	}
}

// Lag is what logins are refused for when nothing else is short; one bad look
// is none.
func TestLag(t *testing.T) {
	p := newPressure(findCgroup("/nowhere", "/nowhere/self"))
	now := time.Now()
	look := func(late time.Duration) {
		now = now.Add(pressureEvery)
		p.look(now, late)
	}
	look(0)
	look(lagRefuse)
	if _, short := p.refuses(); short != "" {
		t.Errorf("refuses after one late look: %s", short)
	}
	for range 10 {
		look(2 * lagRefuse)
	}
	if g, short := p.refuses(); short == "" || g != gateLag {
		t.Errorf("refuses %q", short)
	}
	for range 10 {
		look(0)
	}
	if _, short := p.refuses(); short != "" {
		t.Errorf("refuses for ever: %s", short)
	}
}

// Before a key exchange so many hear why they are refused; the others' ends at
// once.
func TestRefusedHandshakes(t *testing.T) {
	sessions := 0
	a := newGate(LimitOptions{MaxSessions: 1, Handshakes: 1, LoginConcurrency: 1, LoginQueue: 1}, &sessions)
	a.pressure.memory.Store(memoryRefuse)
	heard := 0
	for range 1000 {
		release, err := a.handshake(t.Context())
		if err == nil {
			heard++
			release()
		}
	}
	if heard < 100 || heard > 300 {
		t.Errorf("%d of 1000 heard", heard)
	}
	a.pressure.memory.Store(0)
	release, err := a.handshake(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	release()
}

// The public port never takes the last descriptors.
func TestFilesAreKept(t *testing.T) {
	sessions := 90
	a := newGate(LimitOptions{MaxSessions: 1000, Handshakes: 1, LoginConcurrency: 1, LoginQueue: 1}, &sessions)
	a.maxFiles = 100
	addr := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
	in := 0
	for range 20 {
		if a.admit(addr) {
			in++
		}
	}
	if in != 10 {
		t.Errorf("%d connections beside 90 sessions, want 10", in)
	}
	a.released(addr, false)
	if !a.admit(addr) {
		t.Error("a place that was given back is not given again")
	}
	for _, files := range []uint64{64, 1024, 20000, 1 << 20} {
		if s, m := sessionLimit(files), files-min(fileReserve, files/fileShare)/2; uint64(s) >= m || m >= files {
			t.Errorf("%d files: %d sessions, %d connections", files, s, m)
		}
	}
}
