package server

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Ticket keys change each ticketPeriod; tickets of the two periods before
// still resume, so a ticket lives a day at most.
const (
	ticketPeriod = 8 * time.Hour
	ticketKeys   = 4
)

// certs is the TLS of the public port: one certificate, read again when its
// files change, and ticket keys that all pods with the same seed share.
type certs struct {
	// Static after newCerts.
	opts      TLSOptions
	handshake func(context.Context) (release func(), err error)
	log       zerolog.Logger
	m         *edgeMetrics

	leaf atomic.Pointer[tls.Certificate]

	// Owned by watch after newCerts.
	seen  [2]fileStamp
	epoch int64 // ticket period of the keys in use

	configs *configs
}

// fileStamp tells one content of a file from the next. The inode is left to
// ModTime: Kubernetes swaps a symlink, and os.Stat follows it.
type fileStamp struct {
	modified time.Time
	size     int64
}

// newCerts reads the certificate, which must be there at the start.
func newCerts(o TLSOptions, slots int, handshake func(context.Context) (func(), error), log zerolog.Logger, m *edgeMetrics) (*certs, error) {
	c := &certs{opts: o, handshake: handshake, log: log, m: m}
	if err := c.load(); err != nil {
		return nil, err
	}
	c.configs = newConfigs(slots, c.base())
	c.setTicketKeys(time.Now())
	return c, nil
}

// base is what all connections share.
func (c *certs) base() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"}, // an h2 connection can't be hijacked
		// A joined flush would become several records and several send().
		DynamicRecordSizingDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.leaf.Load(), nil
		},
	}
}

// server is the config for the listener. Each hello waits for a handshake slot
// before any key exchange, and goes on with the config of that slot, which
// gives it back: tls.Conn keeps its config, so one made for each connection
// would cost every session some 500 bytes.
func (c *certs) server() *tls.Config {
	config := c.base()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		release, err := c.handshake(hello.Context())
		if err != nil {
			return nil, fmt.Errorf("wait for a handshake slot: %w", err)
		}
		return c.configs.next(release), nil
	}
	return config
}

// watch reads the files again when they change, and turns the ticket keys,
// until ctx ends.
func (c *certs) watch(ctx context.Context) {
	tick := time.NewTicker(c.opts.Check)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			c.setTicketKeys(now)
			if stamps, err := c.stamps(); err == nil && stamps == c.seen {
				continue
			}
			if err := c.load(); err != nil {
				// Halfway through a change the two do not fit; the next look
				// finds them again, and the old certificate serves until then.
				c.m.reloadErrors.Inc()
				c.log.Warn().Err(err).Msg("certificate not reloaded: the old one stays")
				continue
			}
			c.m.reloads.Inc()
			c.log.Info().Str("file", c.opts.CertFile).Msg("certificate reloaded")
		}
	}
}

func (c *certs) stamps() (s [2]fileStamp, err error) {
	for i, name := range []string{c.opts.CertFile, c.opts.KeyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return s, err
		}
		s[i] = fileStamp{info.ModTime(), info.Size()}
	}
	return s, nil
}

func (c *certs) load() error {
	stamps, err := c.stamps()
	if err != nil {
		return fmt.Errorf("look at certificate: %w", err)
	}
	leaf, err := tls.LoadX509KeyPair(c.opts.CertFile, c.opts.KeyFile)
	if err != nil {
		return fmt.Errorf("load certificate %s: %w", c.opts.CertFile, err)
	}
	c.seen = stamps
	c.leaf.Store(&leaf)
	return nil
}

// setTicketKeys puts the keys of now's period first. The next period's is
// there as well, for pods whose clocks are ahead.
func (c *certs) setTicketKeys(now time.Time) {
	epoch := now.Unix() / int64(ticketPeriod/time.Second)
	if epoch == c.epoch {
		return
	}
	keys := make([][32]byte, 0, ticketKeys)
	for _, at := range []int64{epoch, epoch - 1, epoch - 2, epoch + 1} {
		key, err := ticketKey(c.opts.TicketSeed, at)
		if err != nil {
			c.log.Error().Err(err).Msg("ticket keys not changed")
			return
		}
		keys = append(keys, key)
	}
	c.epoch = epoch
	c.configs.setTicketKeys(keys)
}

var errSeed = errors.New("TLS.TicketSeed is empty")

func ticketKey(seed string, epoch int64) (key [32]byte, err error) {
	if seed == "" {
		return key, errSeed
	}
	salt := binary.BigEndian.AppendUint64(nil, uint64(epoch))
	b, err := hkdf.Key(sha256.New, []byte(seed), salt, "daisi-ws session tickets", len(key))
	if err != nil {
		return key, fmt.Errorf("derive ticket key: %w", err)
	}
	copy(key[:], b)
	return key, nil
}
