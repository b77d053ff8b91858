package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/daisi/daisi-ws/bench"
)

// common are the flags of all scenarios that do not go into Options as they
// are.
type common struct {
	base                              bench.Options
	addr, internal, pids, sources, ca string
	apiKeyFile, tokenKeyFile          string
	mintKeyFile, plant                string
	insecure, wss, quiet, spawned     bool
	json, html                        string
	title                             string // of the live view
	local                             bench.LocalOptions
	env                               string
}

func commonFlags(fs *flag.FlagSet) *common {
	f := new(common)
	b := &f.base
	fs.StringVar(&f.addr, "addr", "127.0.0.1:8080", "public doors, host:port, one a pod, comma separated")
	fs.StringVar(&b.NATS, "nats", "nats://127.0.0.1:4222", "URL of NATS, to publish events")
	fs.StringVar(&b.Stream, "stream", "", "the publisher's stream; empty: wa_stream")
	fs.BoolVar(&b.Create, "create-stream", false, "make that stream when it is missing")
	fs.StringVar(&f.internal, "internal", "", "base URLs of internal ports, http://host:port, comma separated: their metrics go into the report")
	fs.StringVar(&f.pids, "pid", "", "the server's processes on this machine, comma separated")
	fs.StringVar(&b.APIKey, "api-key", "", "API key of the public door")
	fs.StringVar(&f.apiKeyFile, "api-key-file", "", "the same from a file")
	fs.StringVar(&b.TokenKey, "token-key", "", "user token keys, as DWS_AUTH_TOKEN_KEYS; tokens are minted here")
	fs.StringVar(&f.tokenKeyFile, "token-key-file", "", "the same from a file")
	fs.StringVar(&b.MintKey, "mint-key", "", "instead of them the key of POST /generate-token: the doors mint")
	fs.StringVar(&f.mintKeyFile, "mint-key-file", "", "the same from a file")
	fs.BoolVar(&f.wss, "wss", false, "doors speak wss; so does -tls-ca or -insecure")
	fs.StringVar(&f.ca, "tls-ca", "", "PEM file of the authority to trust")
	fs.BoolVar(&f.insecure, "insecure", false, "do not verify the door's certificate")
	fs.StringVar(&f.sources, "source", "", "local addresses, comma separated; empty: 127.0.0.1-8 for loopback doors")
	fs.IntVar(&b.LoginWorkers, "login-workers", 32, "logins under way at once")
	fs.Float64Var(&b.LoginRate, "login-rate", 0, "logins a second, by schedule; 0: as fast as the workers go")
	fs.DurationVar(&b.LoginTimeout, "login-timeout", 0, "until ready; 0: 15s")
	fs.IntVar(&b.LoginRetries, "login-retries", 5, "after 429 and 503; < 0: none")
	fs.DurationVar(&b.DrainTime, "drain", 0, "how long outstanding events are awaited while none comes; 0: 10s")
	fs.DurationVar(&b.Settle, "settle", 0, "between the ramp and the reading of memory; 0: 10s")
	fs.StringVar(&b.Company, "company", "", "company ids begin so; empty: bench-<run>")
	fs.Uint64Var(&b.Seed, "seed", 0, "of all that is drawn; 0: from the clock")
	fs.StringVar(&b.Thresholds, "thresholds", "", "such as lost==0,delivery.p99<5ms,rss_per_session<1.3KiB")
	fs.StringVar(&f.plant, "plant", "", "faults committed by this client, such as drop=1,double=1")
	fs.StringVar(&b.Redis, "redis", "", "URL of the gateway's Redis, one server: its figures go into the report")
	fs.StringVar(&b.Crew.Name, "crew", "bench", "name of the crew that workers belong to")
	fs.StringVar(&b.Crew.URL, "crew-nats", "", "NATS where the crew meets; empty: that of -nats")
	fs.StringVar(&f.json, "json", "", "file for the report as JSON")
	fs.StringVar(&f.html, "html", "", "file for the report as one HTML page; the pods' metrics are then read each second")
	fs.BoolVar(&f.quiet, "quiet", false, "show no progress")
	return f
}

// options turns flags into Options; log gets the progress.
func (f *common) options(log io.Writer) (o bench.Options, err error) {
	o = f.base
	o.Addrs, o.Internal, o.Log = words(f.addr), words(f.internal), zerolog.Nop()
	if err := writable(f.json, f.html); err != nil {
		return o, err
	}
	if o.PIDs, err = ints(f.pids); err != nil {
		return o, fmt.Errorf("read -pid: %w", err)
	}
	if err := f.secrets(&o); err != nil {
		return o, err
	}
	if o.TLS, err = f.tls(); err != nil {
		return o, err
	}
	for _, s := range words(f.sources) {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return o, fmt.Errorf("read -source: %w", err)
		}
		o.Sources = append(o.Sources, a)
	}
	if o.Plant, err = plant(f.plant); err != nil {
		return o, err
	}
	if f.html != "" {
		o.Follow = time.Second
	}
	if !f.quiet {
		o.Progress = live(log, f.title).Show
	}
	return o, nil
}

// writable says before the run what would else be lost after it.
func writable(names ...string) error {
	for _, name := range names {
		if name == "" {
			continue
		}
		_, before := os.Stat(name)
		file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return fmt.Errorf("write report: %w", err)
		}
		err = file.Close()
		if errors.Is(before, os.ErrNotExist) {
			err = errors.Join(err, os.Remove(name)) // nothing is left of a run that does not begin
		}
		if err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	return nil
}

func (f *common) tls() (*tls.Config, error) {
	if f.ca == "" && !f.insecure && !f.wss {
		return nil, nil
	}
	c := &tls.Config{InsecureSkipVerify: f.insecure} //nolint:gosec // asked for by name, for test certificates
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("read -tls-ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("read -tls-ca: no certificate in it")
		}
	}
	return c, nil
}

// secrets come from flags, else from files, else from the environment.
func (f *common) secrets(o *bench.Options) error {
	for _, s := range []struct {
		value     *string
		file, env string
	}{{&o.APIKey, f.apiKeyFile, envAPIKey}, {&o.TokenKey, f.tokenKeyFile, envTokenKey}, {&o.MintKey, f.mintKeyFile, envMintKey}} {
		if err := fromFile(s.value, s.file); err != nil {
			return err
		}
		if *s.value == "" {
			*s.value = os.Getenv(s.env)
		}
	}
	return nil
}

// fromFile reads a secret, without its last newline, unless name is empty.
func fromFile(secret *string, name string) error {
	if name == "" {
		return nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("read secret: %w", err)
	}
	*secret = strings.TrimRight(string(b), "\r\n")
	return nil
}

func plant(s string) (p bench.Plant, err error) {
	for _, w := range words(s) {
		name, value, _ := strings.Cut(w, "=")
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return p, fmt.Errorf("read -plant %q: want drop=N or double=N", w)
		}
		switch name {
		case "drop":
			p.Drop = n
		case "double":
			p.Double = n
		default:
			return p, fmt.Errorf("read -plant %q: unknown fault, want drop or double", w)
		}
	}
	return p, nil
}

func words(s string) (list []string) {
	for _, w := range strings.Split(s, ",") {
		if w = strings.TrimSpace(w); w != "" {
			list = append(list, w)
		}
	}
	return list
}

func ints(s string) (list []int, err error) {
	for _, w := range words(s) {
		n, err := strconv.Atoi(w)
		if err != nil || n <= 0 {
			return nil, fmt.Errorf("%q is no positive number", w)
		}
		list = append(list, n)
	}
	return list, nil
}
