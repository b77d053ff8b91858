package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/server"
	"github.com/daisi/daisi-ws/server/clustertest"
)

// Pods that have one name in their certificates, and no address, find each
// other and forward; when all the files change, those that start again do so
// with the new ones.
func TestPeersByName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writePeerCertificate(t, dir, "daisi-ws")
	c := clustertest.Start(t, clustertest.Options{Pods: 2, Options: func(_ int, o *server.Options) {
		o.RPC.Insecure = false
		o.RPC.CertFile, o.RPC.KeyFile, o.RPC.CAFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.crt")
	}})
	k := []*clustertest.Client{c.Dial(c.Pods[0], user("acme", "ag1", "u0")), c.Dial(c.Pods[1], user("acme", "ag1", "u1"))}
	c.Publish(clustertest.Subject("acme", "ag1", "chats", ""), body("one"))
	for _, k := range k {
		wantEvents(t, "by name", k, "one")
	}
	writePeerCertificate(t, dir, "daisi-ws") // of another authority
	c.Pods[1].Term()
	c.Pods[1].Start()
	c.AwaitWhole()
}

// writePeerCertificate makes a self-signed certificate for a name.
func writePeerCertificate(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "peer"}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, b := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: der}, "ca.crt": {Type: "CERTIFICATE", Bytes: der}, "tls.key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
