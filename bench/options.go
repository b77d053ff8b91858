package bench

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"github.com/rs/zerolog"
)

// Options is what all scenarios share; each embeds it in its own. Zero values
// mean the defaults given here. Secrets never reach a report.
type Options struct {
	Addrs    []string    `json:"addrs"` // public doors, host:port, one a pod; required but by Floor
	TLS      *tls.Config `json:"-"`     // nil: ws, else wss
	NATS     string      `json:"nats"`  // URL; required by scenarios that publish
	Stream   string      `json:"stream"`
	Prefix   string      `json:"prefix"`
	Create   bool        `json:"create_stream"` // make the publisher's stream when it is missing
	Internal []string    `json:"internal"`      // base URLs of the pods' internal ports, for /metrics
	PIDs     []int       `json:"pids"`          // the server's processes, on this machine
	Redis    string      `json:"-"`             // URL of its Redis, to count locks and commands; empty: not read
	Own      bool        `json:"own"`           // nobody else uses the cluster, so its ledger is that of the run

	Crew CrewOptions `json:"crew"` // other processes that bear the load
	Part Part        `json:"part"` // set by the crew

	APIKey   string                                                    `json:"-"`
	TokenKey string                                                    `json:"-"` // user key ring, as DWS_AUTH_TOKEN_KEYS
	MintKey  string                                                    `json:"-"` // instead of TokenKey: the doors mint, at POST /generate-token, before logins begin
	Mint     func(company, agent, user string) (tok string, err error) `json:"-"` // instead of both

	Sources      []netip.Addr  `json:"sources"`       // local addresses; default 127.0.0.1-8 for loopback doors, else the system's choice
	Pollers      int           `json:"pollers"`       // of the client engine, default one a core
	LoginWorkers int           `json:"login_workers"` // logins under way at once, default 32
	LoginRate    float64       `json:"login_rate"`    // a second, by schedule; 0: as fast as the workers go
	LoginTimeout time.Duration `json:"login_timeout"` // until `ready`, default 15 s
	LoginRetries int           `json:"login_retries"` // after 429 and 503, default 5, < 0: none

	Company   string        `json:"company"`    // company ids begin so; default bench-<run>, so that runs do not meet
	DrainTime time.Duration `json:"drain_time"` // how long outstanding events are waited for while none comes, default 10 s
	Quiet     time.Duration `json:"quiet"`      // and then for repeats, default 300 ms
	Settle    time.Duration `json:"settle"`     // between a ramp and the reading of memory, default 10 s
	Seed      uint64        `json:"seed"`       // 0: from the clock; the report has it
	Plant     Plant         `json:"plant"`      // faults planted into this client, to show that the oracle sees them

	Thresholds string         `json:"thresholds"` // "lost==0,delivery.p99<5ms", beside the scenario's own
	Untimed    bool           `json:"untimed"`    // nobody looks at the times: a generator that can't keep up voids nothing, and is only said
	Follow     time.Duration  `json:"follow"`     // between readings of the pods' metrics for the time series; 0: none, for each costs a pod about a millisecond
	Progress   func(Sample)   `json:"-"`          // called once a second
	Log        zerolog.Logger `json:"-"`
}

// Plant are faults that the client commits itself.
type Plant struct {
	Drop   int `json:"drop"`   // event frames thrown away
	Double int `json:"double"` // event frames taken twice
}

func (o Options) withDefaults() (Options, error) {
	orString(&o.Crew.Name, defaultCrew)
	orString(&o.Crew.URL, o.NATS)
	orDuration(&o.Crew.Wait, 30*time.Second)
	orDuration(&o.Crew.Lost, crewLost)
	orString(&o.Stream, "wa_stream")
	orString(&o.Prefix, "websocket")
	orInt(&o.Pollers, runtime.GOMAXPROCS(0))
	orInt(&o.LoginWorkers, 32)
	orDuration(&o.LoginTimeout, 15*time.Second)
	orDuration(&o.DrainTime, 10*time.Second)
	orDuration(&o.Quiet, 300*time.Millisecond)
	orDuration(&o.Settle, 10*time.Second)
	switch {
	case o.LoginRetries == 0:
		o.LoginRetries = 5
	case o.LoginRetries < 0:
		o.LoginRetries = 0
	}
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano())
	}
	if _, err := parseThresholds(o.Thresholds); err != nil {
		return o, err
	}
	for _, a := range o.Addrs {
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			return o, fmt.Errorf("read address %q: %w", a, err)
		}
		if ip, err := netip.ParseAddr(host); o.Sources == nil && (host == "localhost" || err == nil && ip.IsLoopback() && ip.Is4()) {
			o.Sources = loopbacks(o.Part)
		}
	}
	if o.Mint == nil && o.MintKey == "" && len(o.Addrs) > 0 {
		mint, err := localMint(o.TokenKey)
		if err != nil {
			return o, err
		}
		o.Mint = mint
	}
	return o, nil
}

// loopbacks are eight source addresses, other ones for each part of a run: each
// has its own range of ports.
func loopbacks(p Part) []netip.Addr {
	list := make([]netip.Addr, 8)
	for i := range list {
		list[i] = netip.AddrFrom4([4]byte{127, byte(p.Index >> 8), byte(p.Index), byte(i + 1)})
	}
	return list
}

func orString(s *string, def string) {
	if *s == "" {
		*s = def
	}
}

func orInt(n *int, def int) {
	if *n <= 0 {
		*n = def
	}
}

func orDuration(d *time.Duration, def time.Duration) {
	if *d <= 0 {
		*d = def
	}
}

func orFloat(f *float64, def float64) {
	if *f <= 0 {
		*f = def
	}
}
