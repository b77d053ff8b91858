package server

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Values of AuthOptions.Refuse, AuthOptions.TokenCache, SessionOptions.Conflict,
// LimitOptions.Slow.
const (
	RefuseAuto  = "auto"  // requests with an Origin: close, others: http
	RefuseHTTP  = "http"  // always an HTTP status
	RefuseClose = "close" // always 101, an error frame, a close code

	CacheProcess = "process"
	CacheRedis   = "redis"

	ConflictTakeover = "takeover"
	ConflictReject   = "reject"

	SlowClose = "close" // whoever is over the budget is closed with 4408
	SlowGap   = "gap"   // whoever understands gaps misses events and is told, others are closed
)

// withDefaults fills in what is zero, and checks all. The error names every
// field that is wrong, so that one start is enough to find them.
func (o Options) withDefaults() (Options, error) {
	if o.PodID == "" {
		o.PodID, _ = os.Hostname()
	}
	def(&o.PodID, "pod")
	def(&o.Version, "dev")
	def(&o.HTTP.Addr, ":8080")
	def(&o.HTTP.ReadHeaderTimeout, 5*time.Second)
	def(&o.HTTP.LoginDeadline, 15*time.Second)
	def(&o.HTTP.MaxHeader, 16<<10)
	def(&o.HTTP.MaxBody, 64<<10)
	def(&o.Internal.Addr, "127.0.0.1:9090")
	def(&o.TLS.Check, 5*time.Second)
	def(&o.TLS.TicketSeed, o.Auth.TokenKeys)
	def(&o.RPC.Addr, ":50051")
	def(&o.RPC.Name, "daisi-ws")
	def(&o.RPC.PeerQueue, 16<<20)
	def(&o.NATS.Stream, "wa_stream")
	def(&o.NATS.EventsStream, "dws_events")
	def(&o.NATS.Partitions, 64)
	def(&o.NATS.MaxBytes, 1<<30)
	def(&o.Auth.Refuse, RefuseAuto)
	def(&o.Auth.TokenCache, CacheProcess)
	def(&o.Auth.Failures, 60)
	def(&o.Auth.Warning, time.Minute)
	def(&o.Session.Conflict, ConflictTakeover)
	def(&o.Session.TTL, 5*time.Minute)
	def(&o.Session.LeaseTTL, 10*time.Second)
	def(&o.Session.Takeovers, 10)
	def(&o.Ping.Interval, 30*time.Second)
	def(&o.Ping.Timeout, 90*time.Second)
	def(&o.Limits.MaxPending, 8192)
	def(&o.Limits.Handshakes, 2*runtime.GOMAXPROCS(0))
	def(&o.Limits.LoginConcurrency, 512)
	def(&o.Limits.LoginQueue, 8192)
	def(&o.Limits.MaxMessage, 32<<10)
	def(&o.Limits.MessageRate, 100)
	def(&o.Limits.MaxEvent, 1<<20)
	def(&o.Limits.Cgroup, cgroupRoot)
	def(&o.Limits.SendBudget, 1<<20)
	def(&o.Limits.Slow, SlowClose)
	def(&o.Resume.Window, 5*time.Minute)
	def(&o.Resume.MaxEvents, 1000)
	def(&o.Resume.MaxBytes, 1<<20)
	def(&o.Drain.Rate, 1000)
	def(&o.Drain.Timeout, 30*time.Second)
	if o.PodAddr == "" {
		o.PodAddr = net.JoinHostPort(firstAddress(), portOf(o.RPC.Addr))
	}
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	return o, o.check()
}

func def[T comparable](field *T, value T) { *field = cmp.Or(*field, value) }

// check says all that is wrong, in words of what to change.
func (o Options) check() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	bad(strings.ContainsAny(o.PodID, "@| "), "PodID %q must not contain '@', '|' or a space", o.PodID)
	bad(o.Redis.URL == "", "Redis.URL is required")
	bad(o.NATS.URL == "" && o.NATS.InProcess == nil, "NATS.URL or NATS.InProcess is required")
	bad(o.Auth.APIKey == "", "Auth.APIKey is required")
	bad(o.Auth.TokenKeys == "", "Auth.TokenKeys is required")
	bad(o.RequireExternal && o.Embedded.On, "RequireExternal forbids embedded servers: set the URLs of Redis and NATS, and all keys")
	bad((o.TLS.CertFile == "") != (o.TLS.KeyFile == ""), "TLS.CertFile and TLS.KeyFile go together")
	bad((o.RPC.CertFile == "") != (o.RPC.KeyFile == "") || (o.RPC.CertFile == "") != (o.RPC.CAFile == ""),
		"RPC.CertFile, RPC.KeyFile and RPC.CAFile go together")
	bad(o.RPC.Insecure && o.RPC.CertFile != "", "RPC.Insecure contradicts RPC.CertFile")
	bad(!oneOf(o.Auth.Refuse, RefuseAuto, RefuseHTTP, RefuseClose), "Auth.Refuse %q is not auto, http or close", o.Auth.Refuse)
	bad(!oneOf(o.Auth.TokenCache, CacheProcess, CacheRedis), "Auth.TokenCache %q is not process or redis", o.Auth.TokenCache)
	bad(!oneOf(o.Limits.Slow, SlowClose, SlowGap), "Limits.Slow %q is not close or gap", o.Limits.Slow)
	bad(!oneOf(o.Session.Conflict, ConflictTakeover, ConflictReject), "Session.Conflict %q is not takeover or reject", o.Session.Conflict)
	bad(o.Session.TTL < sweepFresh, "Session.TTL %v is below %v, and locks are swept each 100s", o.Session.TTL, sweepFresh)
	bad(o.Session.LeaseTTL < 2*time.Second, "Session.LeaseTTL %v is below 2s", o.Session.LeaseTTL)
	bad(o.Drain.Timeout < time.Second, "Drain.Timeout %v is below 1s", o.Drain.Timeout)
	bad(o.Ping.Timeout <= o.Ping.Interval, "Ping.Timeout %v must be longer than Ping.Interval %v", o.Ping.Timeout, o.Ping.Interval)
	bad(o.NATS.Partitions < 1 || o.NATS.Partitions > 4096, "NATS.Partitions %d is not in 1..4096", o.NATS.Partitions)
	bad(o.Limits.MaxMessage < 128 || o.Limits.MaxMessage > 16<<20, "Limits.MaxMessage %d is not in 128..16777216 bytes", o.Limits.MaxMessage)
	bad(o.Limits.MaxEvent < 128 || o.Limits.MaxEvent > 64<<20, "Limits.MaxEvent %d is not in 128..67108864 bytes", o.Limits.MaxEvent)
	for name, n := range map[string]int{
		"HTTP.MaxConnsPerIP": o.HTTP.MaxConnsPerIP, "Limits.MaxSessions": o.Limits.MaxSessions,
		"Limits.MaxPending": o.Limits.MaxPending, "Limits.Handshakes": o.Limits.Handshakes,
		"Limits.LoginConcurrency": o.Limits.LoginConcurrency, "Limits.LoginQueue": o.Limits.LoginQueue,
		"Session.Takeovers": o.Session.Takeovers, "Auth.Failures": o.Auth.Failures, "Limits.MessageRate": o.Limits.MessageRate, "Limits.SendBudget": o.Limits.SendBudget, "RPC.PeerQueue": o.RPC.PeerQueue,
		"Resume.MaxEvents": o.Resume.MaxEvents, "Resume.MaxBytes": o.Resume.MaxBytes, "Drain.Rate": o.Drain.Rate,
	} {
		bad(n < 0, "%s %d is negative", name, n)
	}
	for _, origin := range o.HTTP.Origins {
		_, err := parseOrigin(origin)
		bad(err != nil, "HTTP.Origins: %q is not scheme://host[:port] or *", origin)
	}
	for _, cidr := range o.HTTP.TrustedProxies {
		_, err := parsePrefix(cidr)
		bad(err != nil, "HTTP.TrustedProxies: %q is no CIDR", cidr)
	}
	return errors.Join(errs...)
}

func oneOf(s string, of ...string) bool {
	for _, v := range of {
		if s == v {
			return true
		}
	}
	return false
}

// parsePrefix reads "10.0.0.0/8", or one address.
func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

// firstAddress is where peers most likely reach this machine.
func firstAddress() string {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && !n.IP.IsLinkLocalUnicast() {
			return n.IP.String()
		}
	}
	return "127.0.0.1"
}

func portOf(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "50051"
	}
	return port
}
