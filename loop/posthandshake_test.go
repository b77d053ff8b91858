package loop

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// TestHandshakeThatNeverEnds wants a peer ended that begins a message of TLS's own
// (crypto/tls takes a certificate of 256 KiB at any time) and goes on no more: it
// is kept, and is no part of a record.
func TestHandshakeThatNeverEnds(t *testing.T) {
	h := startHouse(t, houseOptions{tls: true, loop: Options{MessageTimeout: 2 * time.Second}})
	raw, err := net.Dial("tcp", h.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() }) // also: not collected before
	var secrets bytes.Buffer
	config := h.tls.Clone()
	config.KeyLogWriter, config.MinVersion = &secrets, tls.VersionTLS13
	client := tls.Client(raw, config)
	p := h.upgraded(t, client, nil)
	c := h.next(t)
	p.send(t, masked(0x81, "whole"))
	p.want(t, ws.OpText, "whole")
	eventually(t, "nothing is kept", func() bool { return c.Partial() == 0 })

	seal := sealer(t, client.ConnectionState().CipherSuite, secrets.String(), 2) // records: the request, the message
	const certificate, pieces, piece = 11, 12, 16 << 10
	for i := range pieces {
		plain := make([]byte, piece)
		if i == 0 {
			copy(plain, []byte{certificate, 0x03, 0xff, 0xff})
		}
		if _, err := raw.Write(seal(22, plain)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "what came of it is known", func() bool { return c.Partial() >= pieces*piece })
	if why := waitEnd(t, c.Handler().(*echo).ended); !errors.Is(why.Err, ErrTimeout) {
		t.Errorf("end %+v", why)
	}
}

// sealer makes records of TLS 1.3 by the secret that a client logged, from the
// number next on.
func sealer(t *testing.T, suite uint16, keylog string, next uint64) func(kind byte, plain []byte) []byte {
	t.Helper()
	if suite != tls.TLS_AES_128_GCM_SHA256 {
		t.Fatalf("suite %s", tls.CipherSuiteName(suite))
	}
	_, logged, _ := strings.Cut(keylog, "CLIENT_TRAFFIC_SECRET_0 ")
	var random, digits string
	if _, err := fmt.Sscan(logged, &random, &digits); err != nil {
		t.Fatalf("read %q: %v", keylog, err)
	}
	secret, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	expand := func(label string, size int) []byte {
		info := binary.BigEndian.AppendUint16(nil, uint16(size))
		info = append(info, byte(len("tls13 "+label)))
		key, err := hkdf.Expand(sha256.New, secret, string(append(append(info, "tls13 "+label...), 0)), size)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	block, err := aes.NewCipher(expand("key", 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	iv := expand("iv", 12)
	return func(kind byte, plain []byte) []byte {
		nonce := bytes.Clone(iv)
		binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(iv[4:])^next)
		next++
		head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(plain)+1+aead.Overhead()))
		return aead.Seal(head, nonce, append(plain, kind), head[:5])
	}
}
