package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Creds says how pods prove themselves to each other: either Insecure, or
// mutual TLS by Certificate and Roots. There is no default.
type Creds struct {
	// Insecure speaks plain text and trusts whoever connects.
	Insecure bool
	// Certificate is this pod's own, for both roles. Called for each
	// handshake, so that it can be replaced while running.
	Certificate func() (*tls.Certificate, error)
	// Roots sign the certificates of peers. Called for each handshake.
	Roots func() (*x509.CertPool, error)
	// ServerName must stand in the certificate of each peer, whether it was
	// called or calls: a DNS name, or a URI (spiffe://…) where it has "://".
	// Empty: a peer that is called must have the host it was called by, and one
	// that calls may have any name that Roots vouch for.
	ServerName string
}

var errCreds = errors.New("rpc: Creds must be Insecure, or have Certificate and Roots, not both")

func (c *Creds) check() error {
	mutual := c.Certificate != nil && c.Roots != nil
	some := c.Certificate != nil || c.Roots != nil
	if c.Insecure == some || some != mutual {
		return errCreds
	}
	return nil
}

func (c *Creds) byURI() bool { return strings.Contains(c.ServerName, "://") }

// checkName wants ServerName in a peer's certificate.
func (c *Creds) checkName(cert *x509.Certificate) error {
	if !c.byURI() {
		if err := cert.VerifyHostname(c.ServerName); err != nil {
			return fmt.Errorf("check name of peer: %w", err)
		}
		return nil
	}
	for _, u := range cert.URIs {
		if u.String() == c.ServerName {
			return nil
		}
	}
	return fmt.Errorf("check name of peer: its certificate is for %v, not %s", cert.URIs, c.ServerName)
}

// transport gives gRPC what it needs for either role.
func (c *Creds) transport() credentials.TransportCredentials {
	if c.Insecure {
		return insecure.NewCredentials()
	}
	return mutual{c}
}

// mutual is TLS whose certificates are asked for at each handshake: roots of a
// client can't be replaced in a tls.Config, so each handshake gets a new one.
type mutual struct {
	c *Creds
}

// Guard line.
var _ credentials.TransportCredentials = mutual{}

// ClientHandshake calls a peer.
func (m mutual) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	cfg, err := m.config()
	if err != nil {
		return nil, nil, err
	}
	cfg.RootCAs, cfg.ClientCAs = cfg.ClientCAs, nil
	if !m.c.byURI() {
		cfg.ServerName = m.c.ServerName
		return credentials.NewTLS(cfg).ClientHandshake(ctx, authority, raw)
	}
	// crypto/tls checks no URIs, and nothing else without a host: so all of it is
	// done here.
	cfg.InsecureSkipVerify = true
	roots := cfg.RootCAs
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, c := range cs.PeerCertificates[1:] {
			o.Intermediates.AddCert(c)
		}
		if _, err := cs.PeerCertificates[0].Verify(o); err != nil {
			return fmt.Errorf("check called peer: %w", err)
		}
		return m.c.checkName(cs.PeerCertificates[0])
	}
	return credentials.NewTLS(cfg).ClientHandshake(ctx, authority, raw)
}

// ServerHandshake answers a peer.
func (m mutual) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	cfg, err := m.config()
	if err != nil {
		return nil, nil, err
	}
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	if m.c.ServerName != "" {
		cfg.VerifyConnection = func(cs tls.ConnectionState) error { return m.c.checkName(cs.PeerCertificates[0]) }
	}
	return credentials.NewTLS(cfg).ServerHandshake(raw)
}

func (m mutual) config() (*tls.Config, error) {
	cert, err := m.c.Certificate()
	if err != nil {
		return nil, fmt.Errorf("load certificate for peers: %w", err)
	}
	roots, err := m.c.Roots()
	if err != nil {
		return nil, fmt.Errorf("load roots of peers: %w", err)
	}
	if cert == nil || roots == nil {
		return nil, errors.New("load certificate and roots of peers: there is none")
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{*cert},
		ClientCAs:    roots,
		NextProtos:   []string{"h2"},
		// A session ticket would outlive the certificates it was given for.
		SessionTicketsDisabled: true,
	}, nil
}

// Info describes the protocol.
func (m mutual) Info() credentials.ProtocolInfo {
	//lint:ignore SA1019 gRPC takes the authority, and so the name to verify, from here
	return credentials.ProtocolInfo{SecurityProtocol: "tls", ServerName: m.c.ServerName}
}

// Clone gives itself: there is nothing that changes.
func (m mutual) Clone() credentials.TransportCredentials { return m }

// OverrideServerName is gRPC's former way to set a name; refused.
func (m mutual) OverrideServerName(string) error {
	return errors.New("name of peers is set by Creds.ServerName")
}
