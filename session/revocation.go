package session

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// MaxRevocations is how many may stand at once: about 10 MB in Redis and in
// each pod. The set is read as a whole when it changes.
const MaxRevocations = 50_000

// RevokedKind says what a revocation is about.
type RevokedKind string

// Kinds of revocations.
const (
	RevokedToken   RevokedKind = "token"   // one token
	RevokedUser    RevokedKind = "user"    // tokens of a user issued so far
	RevokedCompany RevokedKind = "company" // tokens of a company's users issued so far
	RevokedAdmin   RevokedKind = "admin"   // tokens of an admin issued so far
	RevokedKID     RevokedKind = "kid"     // every token sealed with a key
)

// Revoked names what is revoked: comparable, and the same for the same thing.
type Revoked struct {
	Kind    RevokedKind
	Company string
	Agent   string  // of a user; empty: the user of every agent
	User    string  // user or admin id
	KID     string  // of a key
	Purpose Purpose // of a key; empty: both
	Token   uint64  // FingerprintOf its jti, or of itself
}

// Check says what is missing or too much.
func (r Revoked) Check() error {
	only := Revoked{Kind: r.Kind}
	var err error
	switch r.Kind {
	case RevokedToken:
		if only.Token = r.Token; r.Token == 0 {
			err = errors.New("no token is named")
		}
	case RevokedUser:
		only.Company, only.Agent, only.User = r.Company, r.Agent, r.User
		err = cmp.Or(CheckTenantID("company", r.Company), CheckID("user", r.User))
		if r.Agent != "" {
			err = cmp.Or(err, CheckTenantID("agent", r.Agent))
		}
	case RevokedCompany:
		only.Company = r.Company
		err = CheckTenantID("company", r.Company)
	case RevokedAdmin:
		only.User = r.User
		err = CheckID("admin", r.User)
	case RevokedKID:
		only.KID, only.Purpose = r.KID, r.Purpose
		if !validKID(r.KID) || r.Purpose != "" && r.Purpose != PurposeUser && r.Purpose != PurposeAdmin {
			err = errors.New("kid must be 1-32 of A-Z a-z 0-9 _ -, its purpose user, admin or left out")
		}
	default:
		return fmt.Errorf("kind must be %s, %s, %s, %s or %s", RevokedToken, RevokedUser, RevokedCompany, RevokedAdmin, RevokedKID)
	}
	if err == nil && only != r {
		err = fmt.Errorf("a revocation of a %s has other fields", r.Kind)
	}
	return err
}

// Revocation is one entry of the set.
type Revocation struct {
	Revoked
	At    time.Time // milliseconds; of user, company, admin: tokens issued later are let in, those that do not say when never
	Until time.Time // seconds; no token it is about lives longer. Zero: it stands until it is lifted
	By    string    // who asked, for operators
}

// Revocations is the whole set as one read of Redis had it. Immutable, but for
// what Manager.SetRevocations notes before anybody else has it.
type Revocations struct {
	Version uint64 // grows with every change
	Mark    string // names the life of the set in Redis; another one: it was lost meanwhile. Empty: there never was one
	entries map[Revoked]Revocation
	tokens  map[uint32]time.Time // short fingerprints of the tokens among them, and when they run out
	odd     bool                 // whether the sets up to this one that had news are odd in number
}

// NewRevocations makes a set; entries of the same name: the last counts.
func NewRevocations(version uint64, mark string, list []Revocation) *Revocations {
	r := &Revocations{Version: version, Mark: mark, entries: make(map[Revoked]Revocation, len(list))}
	for _, e := range list {
		r.entries[e.Revoked] = e
	}
	return r
}

// Len is how many entries stand, run-out ones among them.
func (r *Revocations) Len() int { return len(r.entries) }

// List is all entries, the newest first.
func (r *Revocations) List() []Revocation {
	list := make([]Revocation, 0, len(r.entries))
	for _, e := range r.entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Revocation) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Company, b.Company), cmp.Compare(a.Agent, b.Agent),
			cmp.Compare(a.User, b.User), cmp.Compare(a.KID, b.KID), cmp.Compare(a.Purpose, b.Purpose), cmp.Compare(a.Token, b.Token))
	})
	return list
}

// CountOf is how many entries name this company or a user of it.
func (r *Revocations) CountOf(company string) (n int) {
	for name := range r.entries {
		if name.Company == company {
			n++
		}
	}
	return n
}

// Find is the entry of that name.
func (r *Revocations) Find(name Revoked) (Revocation, bool) {
	e, ok := r.entries[name]
	return e, ok
}

// RunOut is entries that no token can meet any more, at most limit.
func (r *Revocations) RunOut(now time.Time, limit int) []Revocation {
	var list []Revocation
	for _, e := range r.entries {
		if len(list) == limit {
			break
		}
		if e.over(now) {
			list = append(list, e)
		}
	}
	return list
}

func (e *Revocation) over(now time.Time) bool { return !e.Until.IsZero() && !now.Before(e.Until) }

// bearer is what a revocation can be about, of a token or of a session.
type bearer struct {
	key Key
	kid string
}

// names are all that a revocation of b can be called, but for its token; unused
// ones are zero.
func (b bearer) names() [6]Revoked {
	var n [6]Revoked
	purpose := PurposeUser
	if b.key.IsAdmin() {
		purpose = PurposeAdmin
		n[1] = Revoked{Kind: RevokedAdmin, User: b.key.User}
	} else {
		n[1] = Revoked{Kind: RevokedCompany, Company: b.key.Company}
		n[2] = Revoked{Kind: RevokedUser, Company: b.key.Company, User: b.key.User}
		n[3] = Revoked{Kind: RevokedUser, Company: b.key.Company, Agent: b.key.Agent, User: b.key.User}
	}
	if b.kid != "" {
		n[4] = Revoked{Kind: RevokedKID, KID: b.kid}
		n[5] = Revoked{Kind: RevokedKID, KID: b.kid, Purpose: purpose}
	}
	return n
}

// Refuses says whether a token with these claims is revoked, and by what.
func (r *Revocations) Refuses(c *Claims, token TokenID, now time.Time) (Revocation, bool) {
	if len(r.entries) == 0 {
		return Revocation{}, false
	}
	names := bearer{c.Key(), c.KID}.names()
	all := append(names[:], Revoked{Kind: RevokedToken, Token: token.Hash}, Revoked{Kind: RevokedToken, Token: token.JTI})
	for _, name := range all {
		e, ok := r.entries[name]
		if !ok || e.over(now) {
			continue
		}
		dated := name.Kind != RevokedToken && name.Kind != RevokedKID
		if dated && !c.IssuedAt.IsZero() && c.IssuedAt.After(e.At) {
			continue
		}
		return e, true
	}
	return Revocation{}, false
}

// since is what r has and old has not, or had from an earlier moment.
func (r *Revocations) since(old *Revocations) *Revocations {
	fresh := &Revocations{entries: map[Revoked]Revocation{}}
	for name, e := range r.entries {
		if old != nil {
			if o, ok := old.entries[name]; ok && o.At.Equal(e.At) {
				continue
			}
		}
		fresh.entries[name] = e
		if name.Kind == RevokedToken {
			if fresh.tokens == nil {
				fresh.tokens = map[uint32]time.Time{}
			}
			fresh.tokens[uint32(name.Token>>32)] = e.Until
		}
	}
	return fresh
}

// ends says whether a session of b ends by one of these, which came after it
// was let in: whenever its token was issued, it was before that.
func (r *Revocations) ends(b bearer, token uint64, now time.Time) bool {
	for _, half := range [2]uint32{uint32(token >> 32), uint32(token)} {
		if until, ok := r.tokens[half]; ok && (until.IsZero() || now.Before(until)) {
			return true
		}
	}
	for _, name := range b.names() {
		if e, ok := r.entries[name]; ok && !e.over(now) {
			return true
		}
	}
	return false
}
