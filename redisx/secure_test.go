package redisx

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/daisi/daisi-ws/redisx/redistest"
)

// TestTLS connects by rediss:// with files to a real server that wants a
// certificate and a password; whoever lacks one of them does not come in. Then
// the files change on both sides, and a client that runs goes on with them.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	writeCert(t, dir, net.IPv4(127, 0, 0, 1))
	port := freeTLSPort(t)
	s := redistest.Start(t,
		"--tls-port", port, "--tls-cert-file", file("cert.pem"), "--tls-key-file", file("key.pem"),
		"--tls-ca-cert-file", file("ca.pem"), "--tls-auth-clients", "yes")
	s.Do("ACL", "SETUSER", "gateway", "on", ">p@ss", "~*", "&*", "+@all")
	url := func(user, query string) string { return "rediss://" + user + "@127.0.0.1:" + port + "/0?" + query }
	all := "ca=" + file("ca.pem") + "&cert=" + file("cert.pem") + "&key=" + file("key.pem")

	c := start(t, Options{URL: url("gateway:p%40ss", all), Partitions: 8})
	incOf(t, c, 3)
	for name, bad := range map[string]string{
		"without the authority":      url("gateway:p%40ss", "cert="+file("cert.pem")+"&key="+file("key.pem")),
		"without a certificate":      url("gateway:p%40ss", "ca="+file("ca.pem")),
		"with a wrong password":      url("gateway:no", all),
		"by a name that is not said": strings.Replace(url("gateway:p%40ss", all), "127.0.0.1", "localhost", 1),
		"in the clear":               "redis://gateway:p%40ss@127.0.0.1:" + port + "/0",
	} {
		stranger := start(t, Options{URL: bad, Partitions: 8})
		if _, _, err := stranger.Inc(within(t, 700*time.Millisecond), 3); err == nil {
			t.Errorf("%s: came in", name)
		}
	}

	writeCert(t, dir, net.IPv4(127, 0, 0, 1)) // another authority, too
	s.Do("CONFIG", "SET", "tls-cert-file", file("cert.pem"), "tls-key-file", file("key.pem"), "tls-ca-cert-file", file("ca.pem"))
	s.Do("CLIENT", "KILL", "USER", "gateway")
	incOf(t, c, 4)
}

func TestTLSFilesOfURL(t *testing.T) {
	dir := t.TempDir()
	writeCert(t, dir, net.IPv4(127, 0, 0, 1))
	f := func(url, want string) {
		t.Helper()
		_, err := New(Options{URL: url, Owner: "pod@boot", Addr: "127.0.0.1:1"})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
	f("rediss://127.0.0.1:1/0", "")
	f("rediss://127.0.0.1:1/0?ca="+dir+"/ca.pem", "")
	f("rediss://127.0.0.1:1/0?cluster=true&ca="+dir+"/ca.pem", "")
	f("rediss://127.0.0.1:1/0?master_name=m&ca="+dir+"/ca.pem&cert="+dir+"/cert.pem&key="+dir+"/key.pem", "")
	f("redis://127.0.0.1:1/0?ca="+dir+"/ca.pem", "rediss")
	f("rediss://127.0.0.1:1/0?cert="+dir+"/cert.pem", "together")
	f("rediss://127.0.0.1:1/0?ca="+dir+"/none.pem", "no such file")
	f("rediss://127.0.0.1:1/0?ca="+dir+"/key.pem", "no certificate")
	f("rediss://127.0.0.1:1/0?cert="+dir+"/key.pem&key="+dir+"/key.pem", "load certificate")
}

func freeTLSPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// writeCert makes a self-signed certificate for ip: cert.pem, key.pem, ca.pem.
func writeCert(t *testing.T, dir string, ip net.IP) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{ip}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "ca.pem": {Type: "CERTIFICATE", Bytes: der},
		"key.pem": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
