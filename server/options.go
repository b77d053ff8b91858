package server

import (
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// Options of a Gateway. The zero value of a field means the default stated
// beside it. Fields tagged mask are never printed as they are: "secret" shows
// only that something is set, "url" hides the password.
type Options struct {
	PodID   string // name of this pod: hostname
	PodAddr string // host:port where peers reach RPC.Addr: first non-loopback address, else 127.0.0.1, + rpc port
	Version string // build, shown by the admin API: "dev"

	HTTP     HTTPOptions
	Internal InternalOptions
	TLS      TLSOptions
	RPC      RPCOptions
	Redis    RedisOptions
	NATS     NATSOptions
	Auth     AuthOptions
	Session  SessionOptions
	Ping     PingOptions
	Limits   LimitOptions
	Resume   ResumeOptions
	Drain    DrainOptions
	Embedded EmbeddedOptions

	// RequireExternal refuses embedded servers and keys made at start.
	RequireExternal bool

	Log     zerolog.Logger `mask:"-"`
	Metrics *metrics.Set   `mask:"-"` // nil: a private set
}

// HTTPOptions are those of the public port.
type HTTPOptions struct {
	Addr           string   // ":8080"
	Origins        []string // allowed Origin values, exact "scheme://host[:port]" or "*"; empty: the request's own host
	TrustedProxies []string // CIDRs whose X-Forwarded-For is believed; empty: none
	MaxConnsPerIP  int      // sockets of one address; 0: no limit
	Deflate        bool     // accept permessage-deflate

	ReadHeaderTimeout time.Duration // 5 s, from the first byte of a request
	LoginDeadline     time.Duration // 15 s, from accept to the 101, whatever happens between
	MaxHeader         int           // 16 KiB, request line and headers
	MaxBody           int64         // 64 KiB, of a POST
}

// InternalOptions are those of the port for probes, metrics and operators.
type InternalOptions struct {
	Addr string // "127.0.0.1:9090"
}

// TLSOptions make the public port speak HTTPS and WSS. Both or none are set.
type TLSOptions struct {
	CertFile string        // PEM, leaf first
	KeyFile  string        // PEM
	Check    time.Duration // how often the files are looked at: 5 s
	// TicketSeed derives the session ticket keys, so that pods that share it
	// resume each other's sessions. Empty: Auth.TokenKeys is taken.
	TicketSeed string `mask:"secret"`
}

// On says whether the public port speaks TLS.
func (o TLSOptions) On() bool { return o.CertFile != "" }

// RPCOptions are those of the port for other pods.
type RPCOptions struct {
	Addr      string // ":50051"
	CertFile  string // with KeyFile and CAFile: mutual TLS
	KeyFile   string
	CAFile    string
	Name      string // DNS name or URI that must be in every pod's certificate: "daisi-ws"
	Insecure  bool   // speak in the clear though no certificate is set
	Legacy    bool   // serve PushEvent
	PeerQueue int    // bytes that wait for one peer: 16 MiB
}

// RedisOptions say where Redis is.
type RedisOptions struct {
	URL string `mask:"url"` // required
}

// NATSOptions say where NATS is, and what our streams there are called.
type NATSOptions struct {
	URL          string                     `mask:"url"` // required, unless InProcess is set
	InProcess    nats.InProcessConnProvider `mask:"-"`   // instead of URL
	Stream       string                     // the publisher's: "wa_stream"
	CreateStream bool                       // make it when missing
	EventsStream string                     // ours: "dws_events"
	Partitions   int                        // of ours, when it is made: 64
	MaxBytes     int64                      // of ours, when it is made: 1 GiB
}

// AuthOptions are keys and what is done with them. TokenKeys and
// AdminTokenKeys are "kid:hex,kid:hex" or one bare hex of 32 bytes.
type AuthOptions struct {
	APIKey         string `mask:"secret"` // for GET /ws/…; required
	MintKey        string `mask:"secret"` // for POST /generate-token; empty: off
	AdminKey       string `mask:"secret"` // for /ws/admin and the admin API; empty: both off
	TokenKeys      string `mask:"secret"` // required
	AdminTokenKeys string `mask:"secret"` // empty: no admin tokens

	RefuseLegacy bool   // refuse bare tokens (DWS_AUTH_LEGACY_TOKENS=false)
	Refuse       string // how a refusal is told: "auto", "http" or "close": "auto"
	TokenCache   string // "process" or "redis": "process"

	// Failures is how often an address (of IPv6 a /64) may come with a wrong key
	// or what is no token, a minute: 60. Beyond it: 429.
	Failures int

	Warning time.Duration // before expiry, token_expiring is sent: 60 s
}

// SessionOptions are those of locks.
type SessionOptions struct {
	Conflict string        // "takeover" or "reject": "takeover"
	TTL      time.Duration // of a lock: 5 min, 200 s at least, for locks are swept each 100 s
	LeaseTTL time.Duration // of a pod: 10 s
	// Takeovers is how often a minute a session may be taken over, on whichever
	// pods: 10. Beyond it the newcomer is refused, and the one that is in stays.
	Takeovers int
}

// PingOptions find dead sockets.
type PingOptions struct {
	Interval time.Duration // 30 s
	Timeout  time.Duration // without any byte: 90 s
}

// LimitOptions bound what clients may use.
type LimitOptions struct {
	MaxSessions      int    // 0: the file limit less a reserve
	MaxPending       int    // connections that are no session yet: 8,192, less where memory is limited
	Handshakes       int    // TLS key exchanges at once: 2 x GOMAXPROCS
	LoginConcurrency int    // logins in work: 512
	LoginQueue       int    // logins that wait for that: 8,192
	MaxMessage       int    // bytes from a client: 32 KiB
	MessageRate      int    // messages from a client a second, 20 s' worth of them at once: 100
	MaxEvent         int    // bytes of an event's body: 1 MiB
	SendBudget       int    // bytes queued for one socket: 1 MiB
	Slow             string // SlowClose
	// Cgroup is where the kernel tells of groups of processes and their memory:
	// "/sys/fs/cgroup". Elsewhere (in tests) /proc/self/cgroup is its file "self".
	Cgroup string
}

// ResumeOptions bound what a reconnecting client gets back.
type ResumeOptions struct {
	Window    time.Duration // 5 min
	MaxEvents int           // 1,000
	MaxBytes  int           // 1 MiB
}

// DrainOptions are those of an orderly stop.
type DrainOptions struct {
	Rate int // sockets told to go a second, more where two thirds of Timeout ask for it: 1,000
	// Timeout is for all of it, from the first word to the return of Run, however
	// many parts hang: 30 s, 1 s at least. Below 5 s what is read is handed over in
	// less than its second, and requests and replies under way are cut short.
	Timeout time.Duration
}

// EmbeddedOptions are those of development: on, GET / serves the demo page and
// POST /dev/events publishes, both to this machine only.
type EmbeddedOptions struct {
	On bool
}
