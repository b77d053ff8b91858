package natsx

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/daisi/daisi-ws/natsx/natstest"
)

// TestNkeyAndCreds connects with a seed file, and with a credentials file of an
// operator's account, to servers that want them; another's file is not let in.
func TestNkeyAndCreds(t *testing.T) {
	t.Run("nkey", func(t *testing.T) {
		user, other := newUser(t), newUser(t)
		srv := natstest.StartProcess(t, fmt.Sprintf("authorization { users = [ { nkey: %s } ] }", user.public))
		ready(t, run(t, Options{URL: srv.URL + "?nkey=" + user.file("seed", user.seed), CreateStream: true}))
		stranger(t, srv.URL+"?nkey="+other.file("seed", other.seed))
		stranger(t, srv.URL)
	})
	t.Run("creds", func(t *testing.T) {
		operator, account := pair(t, nkeys.CreateOperator), pair(t, nkeys.CreateAccount)
		claims := jwt.NewAccountClaims(public(t, account))
		claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit}
		accountJWT, err := claims.Encode(operator)
		if err != nil {
			t.Fatal(err)
		}
		system := pair(t, nkeys.CreateAccount)
		systemJWT, err := jwt.NewAccountClaims(public(t, system)).Encode(operator)
		if err != nil {
			t.Fatal(err)
		}
		operatorJWT, err := jwt.NewOperatorClaims(public(t, operator)).Encode(operator)
		if err != nil {
			t.Fatal(err)
		}
		user := newUser(t)
		srv := natstest.StartProcess(t, fmt.Sprintf("operator: %s\nresolver: MEMORY\nsystem_account: %s\nresolver_preload: { %s: %s, %s: %s }",
			user.file("operator.jwt", []byte(operatorJWT)), public(t, system), public(t, account), accountJWT, public(t, system), systemJWT))
		creds := func(u *testUser, by nkeys.KeyPair) string {
			token, err := jwt.NewUserClaims(u.public).Encode(by)
			if err != nil {
				t.Fatal(err)
			}
			b, err := jwt.FormatUserConfig(token, u.seed)
			if err != nil {
				t.Fatal(err)
			}
			return u.file("user.creds", b)
		}
		ready(t, run(t, Options{URL: srv.URL + "?creds=" + creds(user, account), CreateStream: true}))
		stranger(t, srv.URL+"?creds="+creds(newUser(t), pair(t, nkeys.CreateAccount)))
	})
}

// stranger wants a client with this URL not to come in.
func stranger(t *testing.T, url string) {
	t.Helper()
	c := run(t, Options{URL: url})
	time.Sleep(300 * time.Millisecond) // nothing to wait for: a connection must NOT come
	if c.Connected() == nil {
		t.Error("a stranger is connected")
	}
}

// testUser is a key pair of a user, and a folder for its files.
type testUser struct {
	t      *testing.T
	dir    string
	public string
	seed   []byte
}

func newUser(t *testing.T) *testUser {
	t.Helper()
	k := pair(t, nkeys.CreateUser)
	seed, err := k.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return &testUser{t, t.TempDir(), public(t, k), seed}
}

func (u *testUser) file(name string, b []byte) string {
	path := filepath.Join(u.dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		u.t.Fatal(err)
	}
	return path
}

func pair(t *testing.T, create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
	t.Helper()
	k, err := create()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func public(t *testing.T, k nkeys.KeyPair) string {
	t.Helper()
	s, err := k.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return s
}
