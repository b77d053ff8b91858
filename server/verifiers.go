package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/daisi/daisi-ws/rpc"
	"github.com/daisi/daisi-ws/session"
)

// newVerifiers makes those of users and, when there are keys for them, admins.
func newVerifiers(o Options, shared session.TokenCache) (users, admins *session.Verifier, err error) {
	if o.Auth.TokenCache != CacheRedis {
		shared = nil
	}
	if users, err = newVerifier(session.PurposeUser, o.Auth.TokenKeys, !o.Auth.RefuseLegacy, shared); err != nil {
		return nil, nil, fmt.Errorf("read Auth.TokenKeys: %w", err)
	}
	if o.Auth.AdminTokenKeys == "" {
		return users, nil, nil
	}
	if admins, err = newVerifier(session.PurposeAdmin, o.Auth.AdminTokenKeys, !o.Auth.RefuseLegacy, shared); err != nil {
		return nil, nil, fmt.Errorf("read Auth.AdminTokenKeys: %w", err)
	}
	return users, admins, nil
}

func newVerifier(p session.Purpose, spec string, legacy bool, shared session.TokenCache) (*session.Verifier, error) {
	ring, err := session.ParseKeyRing(p, spec, legacy)
	if err != nil {
		return nil, err
	}
	return session.NewVerifier(session.VerifierOptions{Ring: ring, Shared: shared})
}

// SetTokenKeys puts other key rings in force, as Options.Auth has them: tokens
// of a key that is in both go on, so a rotation has an overlap. Nothing is
// changed when one can't be read. Admin tokens can't be turned on or off.
// Open sockets stay, whatever sealed their tokens; to end them, revoke the kid.
func (g *Gateway) SetTokenKeys(users, admins string) (err error) {
	defer func() {
		if err != nil {
			g.edge.m.keyErrors.Inc()
		}
	}()
	legacy := !g.opts.Auth.RefuseLegacy
	ring, err := session.ParseKeyRing(session.PurposeUser, users, legacy)
	if err != nil {
		return fmt.Errorf("read Auth.TokenKeys: %w", err)
	}
	if (admins == "") != (g.edge.env.admins == nil) {
		return errors.New("Auth.AdminTokenKeys: admin tokens are turned on and off by a restart")
	}
	if admins != "" {
		adminRing, err := session.ParseKeyRing(session.PurposeAdmin, admins, legacy)
		if err != nil {
			return fmt.Errorf("read Auth.AdminTokenKeys: %w", err)
		}
		g.edge.env.admins.SetRing(adminRing)
	}
	g.edge.env.users.SetRing(ring)
	g.edge.m.keyLoads.Inc()
	return nil
}

// lateCache is the shared token cache, once Redis is known.
type lateCache struct{ g *Gateway }

var _ session.TokenCache = lateCache{}

var errNoCore = errors.New("no Redis yet: NATS has not said how many partitions there are")

func (l lateCache) TokenGet(ctx context.Context, name string) ([]byte, bool, error) {
	if c := l.g.core.Load(); c != nil {
		return c.redis.TokenGet(ctx, name)
	}
	return nil, false, errNoCore
}

func (l lateCache) TokenSet(ctx context.Context, name string, claims []byte, ttl time.Duration) error {
	if c := l.g.core.Load(); c != nil {
		return c.redis.TokenSet(ctx, name, claims, ttl)
	}
	return errNoCore
}

// newCreds says how pods prove themselves to each other. Without certificates
// and without being told, the clear is refused: but for embedded mode, where
// there are no other pods.
func newCreds(o Options) (rpc.Creds, error) {
	if o.RPC.Insecure || o.Embedded.On && o.RPC.CertFile == "" {
		return rpc.Creds{Insecure: true}, nil
	}
	if o.RPC.CertFile == "" {
		return rpc.Creds{}, errors.New("peers: set certificate, key and CA files (DWS_RPC_TLS_CERT_FILE, _KEY_FILE, _CA_FILE), or DWS_RPC_INSECURE=true where the network between pods is trusted")
	}
	creds := rpc.Creds{
		ServerName: o.RPC.Name,
		Certificate: func() (*tls.Certificate, error) {
			c, err := tls.LoadX509KeyPair(o.RPC.CertFile, o.RPC.KeyFile)
			return &c, err
		},
		Roots: func() (*x509.CertPool, error) {
			pem, err := os.ReadFile(o.RPC.CAFile)
			if err != nil {
				return nil, err
			}
			pool := x509.NewCertPool()
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("%s holds no certificate", o.RPC.CAFile)
			}
			return pool, nil
		},
	}
	if _, err := creds.Certificate(); err != nil {
		return rpc.Creds{}, fmt.Errorf("load peer certificate: %w", err)
	}
	if _, err := creds.Roots(); err != nil {
		return rpc.Creds{}, fmt.Errorf("load peer CA: %w", err)
	}
	return creds, nil
}
