package clustertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/daisi/daisi-ws/natsx/natstest"
	"github.com/daisi/daisi-ws/redisx/redistest"
	"github.com/daisi/daisi-ws/server"
	"github.com/daisi/daisi-ws/session"
)

// Keys of every cluster; they guard nothing.
const (
	APIKey   = "test-api-key"
	MintKey  = "test-mint-key"
	AdminKey = "test-admin-key"

	// TokenKeys and AdminTokenKeys are the key rings, as the environment has them.
	TokenKeys      = userHex
	AdminTokenKeys = adminHex

	userHex  = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	adminHex = "f0e0d0c0b0a090807060504030201000f1e1d1c1b1a191817161514131211101"
)

// Kinds of Redis.
const (
	RedisSingle   = "single"
	RedisCluster  = "cluster"
	RedisSentinel = "sentinel"
)

// Options of a Cluster.
type Options struct {
	Pods      int    // 1
	Redis     string // RedisSingle
	Processes bool   // of the binary, instead of gateways in this process
	TLS       bool   // wss, with a certificate made for the test
	Links     bool   // each pod has ways of its own to NATS and a single Redis, and the others to it

	Options func(pod int, o *server.Options) // changes those of a gateway in this process
	Env     func(pod int) []string           // more environment of a process, NAME=value
	Before  string                           // shell command in the shell that becomes a process: ulimit, a cgroup
}

// Cluster is some pods, a Redis and a NATS server.
type Cluster struct {
	t    testing.TB
	o    Options
	ring [2]*session.KeyRing

	NATS     *natstest.Process
	Redis    *redistest.Server   // RedisSingle
	Cluster  *redistest.Cluster  // RedisCluster
	Sentinel *redistest.Sentinel // RedisSentinel
	RedisURL string
	Pods     []*Pod
	Cert     *Certificate // TLS

	conn      *nats.Conn
	publisher *natstest.Publisher
}

// Start brings a cluster up and waits until every pod is ready and sees all
// the others.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Pods == 0 {
		o.Pods = 1
	}
	c := &Cluster{t: t, o: o, NATS: natstest.StartProcess(t)}
	c.startRedis()
	for i, spec := range []string{userHex, adminHex} {
		ring, err := session.ParseKeyRing([]session.Purpose{session.PurposeUser, session.PurposeAdmin}[i], spec, true)
		if err != nil {
			t.Fatal(err)
		}
		c.ring[i] = ring
	}
	if o.TLS {
		c.Cert = newCertificate(t)
	}
	for i := range o.Pods {
		c.Pods = append(c.Pods, c.newPod(i))
	}
	for _, p := range c.Pods {
		p.Start()
	}
	c.AwaitWhole()
	return c
}

func (c *Cluster) startRedis() {
	switch c.o.Redis {
	case "", RedisSingle:
		c.Redis = redistest.Start(c.t)
		c.RedisURL = c.Redis.URL
	case RedisCluster:
		c.Cluster = redistest.StartCluster(c.t, 3)
		c.RedisURL = c.Cluster.URL
	case RedisSentinel:
		c.Sentinel = redistest.StartSentinel(c.t)
		c.RedisURL = c.Sentinel.URL
	default:
		c.t.Fatalf("no such Redis: %q", c.o.Redis)
	}
}

// AwaitWhole waits until every running pod is ready and has the others as peers.
func (c *Cluster) AwaitWhole() {
	c.t.Helper()
	running := 0
	for _, p := range c.Pods {
		if p.running() {
			running++
		}
	}
	for _, p := range c.Pods {
		if !p.running() {
			continue
		}
		c.Eventually(30*time.Second, p.ID+" is ready", p.Ready)
		c.Eventually(30*time.Second, fmt.Sprintf("%s sees %d pods and a stream to each", p.ID, running), func() bool {
			m := p.Metrics()
			return m["dws_live_pods"] == float64(running) && m["dws_peers_connected"] == float64(running-1)
		})
	}
}

// Eventually waits for a condition, and fails the test if it never holds.
func (c *Cluster) Eventually(limit time.Duration, what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(limit); !ok(); {
		if time.Now().After(end) {
			c.t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Token is one for a user, valid for an hour.
func (c *Cluster) Token(key session.Key) string {
	return c.mint(0, session.Claims{Company: key.Company, Agent: key.Agent, User: key.User, ExpiresAt: time.Now().Add(time.Hour)})
}

// AdminToken is one for an admin whose scope is company and agent ("" any).
func (c *Cluster) AdminToken(id, company, agent string) string {
	return c.mint(1, session.Claims{
		Admin: true, AdminID: id, SubscribedCompany: company, SubscribedAgent: agent, ExpiresAt: time.Now().Add(time.Hour),
	})
}

// Mint seals any claims of a user.
func (c *Cluster) Mint(claims session.Claims) string { return c.mint(0, claims) }

func (c *Cluster) mint(ring int, claims session.Claims) string {
	c.t.Helper()
	token, err := c.ring[ring].Mint(claims)
	if err != nil {
		c.t.Fatal(err)
	}
	return token
}

// Publish stores an event in the publisher's stream, as a publisher does, and
// waits until it is stored.
func (c *Cluster) Publish(subject, body string) uint64 {
	c.t.Helper()
	if c.publisher == nil {
		c.publisher = c.NATS.Publisher(c.t)
	}
	return c.publisher.Publish(subject, body)
}

// TryPublish is Publish for a server that may be gone: false, it was not
// stored, or nobody knows. With the same id it may be tried again.
func (c *Cluster) TryPublish(subject, body, id string) bool {
	if c.conn == nil {
		c.conn = c.NATS.Conn(c.t)
	}
	msg := &nats.Msg{Subject: subject, Data: []byte(body), Header: nats.Header{nats.MsgIdHdr: {id}}}
	answer, err := c.conn.RequestMsg(msg, time.Second)
	return err == nil && !strings.Contains(string(answer.Data), `"error"`)
}

// T is the test the cluster belongs to.
func (c *Cluster) T() *testing.T { return c.t.(*testing.T) }

// Subject is where events of a kind are published; chat only for messages.
func Subject(company, agent, kind, chat string) string {
	return strings.TrimSuffix("websocket."+company+"."+agent+"."+kind+"."+chat, ".")
}
