package session

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"unicode/utf8"
)

// AdminCompany and AdminAgent stand where a user's company and agent would in
// the Key of an admin session. '*' is no valid id character, so no user's key
// can ever equal an admin's.
const (
	AdminCompany = "*admin"
	AdminAgent   = "*"
)

// Limits of ids, in bytes of UTF-8.
const (
	MaxID   = 256
	MaxChat = 512
)

// Key names the one socket that may exist for it in the whole cluster.
type Key struct {
	Company, Agent, User string
}

// AdminKey is the key of the admin session with this admin id.
func AdminKey(id string) Key { return Key{AdminCompany, AdminAgent, id} }

// IsAdmin says whether k belongs to an admin session.
func (k Key) IsAdmin() bool { return k.Company == AdminCompany }

// Partition is where everything about k lives, of p partitions.
func (k Key) Partition(p int) int { return Partition(k.Company, k.Agent, p) }

// Partition computes what NATS computes for {{partition(p,1,2)}} of a subject
// whose first two wildcards are company and agent: FNV-1a-32 of both, joined
// by nothing, modulo p.
func Partition(company, agent string, p int) int {
	h := fnv.New32a()
	h.Write([]byte(company))
	h.Write([]byte(agent))
	return int(h.Sum32() % uint32(p))
}

// Owner is one start of one pod: "pod@boot". A pod that restarts is another
// owner, so nothing it left behind can be mistaken for its own.
type Owner string

// Pod is the pod's name without the boot.
func (o Owner) Pod() string {
	if i := strings.LastIndexByte(string(o), '@'); i >= 0 {
		return string(o[:i])
	}
	return string(o)
}

// Pod is one entry of the live list: who, and where peers reach it.
type Pod struct {
	Owner   Owner
	Addr    string // host:port of its rpc listener
	Leaving bool   // drains: it reads no partition, but still has sessions
}

var errID = errors.New("must be 1-256 bytes of UTF-8 without control characters")

// CheckID checks a user or admin id.
func CheckID(field, id string) error {
	if !cleanText(id, MaxID) {
		return fmt.Errorf("%s %w", field, errID)
	}
	return nil
}

// CheckTenantID checks a company or agent id, which becomes a subject token
// and therefore may not hold what a subject gives a meaning to.
func CheckTenantID(field, id string) error {
	if err := CheckID(field, id); err != nil {
		return err
	}
	if strings.ContainsAny(id, ".*> ") {
		return fmt.Errorf("%s must not contain '.', '*', '>' or a space: no subject could ever match it", field)
	}
	return nil
}

// CheckChat checks a chat id, which may be dotted.
func CheckChat(id string) error {
	if !cleanText(id, MaxChat) {
		return fmt.Errorf("chat_id must be 1-%d bytes of UTF-8 without control characters", MaxChat)
	}
	return nil
}

func cleanText(s string, limit int) bool {
	if s == "" || len(s) > limit || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r <= 0x9f {
			return false
		}
	}
	return true
}
