package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/daisi/daisi-ws/redisx"
	"github.com/daisi/daisi-ws/session"
)

// pruned is how many run-out entries go with one that comes.
const pruned = 1000

// revoker is revocationAdmin of a core.
type revoker struct{ c *core }

var _ revocationAdmin = revoker{}

func (v revoker) Revoke(ctx context.Context, r session.Revocation) (int, error) {
	var over []session.Revocation
	if now := v.c.manager.Revocations(); now != nil {
		over = now.RunOut(time.Now(), pruned)
	}
	before := v.c.revoked.m.closed.Get()
	if err := v.c.redis.Revoke(ctx, r, over); err != nil {
		return 0, err
	}
	err := v.c.revoked.Refresh(ctx)
	return int(v.c.revoked.m.closed.Get() - before), err
}

func (v revoker) Lift(ctx context.Context, r session.Revoked) (bool, error) {
	here := session.Revocation{Revoked: r} // in force here, though Redis may have lost it a moment ago
	if now := v.c.manager.Revocations(); now != nil {
		if e, ok := now.Find(r); ok {
			here.At = e.At
		}
	}
	ok, err := v.c.redis.Lift(ctx, here)
	if err != nil {
		return false, err
	}
	return ok, v.c.revoked.Refresh(ctx)
}

// revokeRequest is the body of POST /admin/revoke and /admin/lift. A token is
// named by itself, its jti, its sha256, or the fingerprint that the list shows.
type revokeRequest struct {
	Kind        session.RevokedKind `json:"kind"`
	Token       string              `json:"token"`
	JTI         string              `json:"jti"`
	Hash        string              `json:"hash"`
	Fingerprint string              `json:"fingerprint"`
	Company     string              `json:"company"`
	Agent       string              `json:"agent"`
	User        string              `json:"user"`
	Admin       string              `json:"admin"`
	KID         string              `json:"kid"`
	Purpose     session.Purpose     `json:"purpose"`
	Until       time.Time           `json:"until"`
}

// revocationView is an entry as the admin API shows it, in the words that
// revokeRequest takes.
type revocationView struct {
	Kind        session.RevokedKind `json:"kind"`
	Fingerprint string              `json:"fingerprint,omitempty"`
	Company     string              `json:"company,omitempty"`
	Agent       string              `json:"agent,omitempty"`
	User        string              `json:"user,omitempty"`
	Admin       string              `json:"admin,omitempty"`
	KID         string              `json:"kid,omitempty"`
	Purpose     session.Purpose     `json:"purpose,omitempty"`
	At          string              `json:"at"`
	Until       string              `json:"until,omitempty"`
	By          string              `json:"by"`
}

func viewOf(r session.Revocation) revocationView {
	v := revocationView{
		Kind: r.Kind, Company: r.Company, Agent: r.Agent, User: r.User, KID: r.KID, Purpose: r.Purpose,
		At: r.At.UTC().Format(time.RFC3339Nano), By: r.By,
	}
	switch r.Kind {
	case session.RevokedToken:
		v.Fingerprint = fmt.Sprintf("%016x", r.Token)
	case session.RevokedAdmin:
		v.User, v.Admin = "", r.User
	}
	if !r.Until.IsZero() {
		v.Until = r.Until.UTC().Format(time.RFC3339)
	}
	return v
}

// readRevocation reads the body. Unknown fields are refused: a misspelt agent
// would revoke a user of every agent.
func (e *edge) readRevocation(w http.ResponseWriter, r *http.Request) (rev session.Revocation, ok bool) {
	var q revokeRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, e.opts.HTTP.MaxBody))
	d.DisallowUnknownFields()
	if !decodeBody(w, d, &q) {
		return rev, false
	}
	rev, err := e.revocationOf(&q)
	if err == nil {
		err = rev.Check()
	}
	if err != nil {
		faultOf(session.ReasonBadRequest, err.Error()).write(w)
		return rev, false
	}
	return rev, true
}

func (e *edge) revocationOf(q *revokeRequest) (rev session.Revocation, err error) {
	rev = session.Revocation{
		Revoked: session.Revoked{Kind: q.Kind, Company: q.Company, Agent: q.Agent, User: q.User, KID: q.KID, Purpose: q.Purpose},
		At:      time.UnixMilli(time.Now().UnixMilli()), Until: q.Until,
	}
	given := 0
	for _, s := range []string{q.Token, q.JTI, q.Hash, q.Fingerprint} {
		if s != "" {
			given++
		}
	}
	switch {
	case q.Kind == session.RevokedAdmin && q.User != "" || q.Kind != session.RevokedAdmin && q.Admin != "":
		return rev, errors.New("admin names an admin, user a user")
	case q.Kind == session.RevokedAdmin:
		rev.User = q.Admin
	case q.Kind == session.RevokedToken && given != 1:
		return rev, errors.New("name the token by one of token, jti, hash and fingerprint")
	case q.Kind != session.RevokedToken && given != 0:
		return rev, fmt.Errorf("a revocation of a %s names no token", q.Kind)
	}
	switch {
	case q.Token != "":
		return rev, e.nameToken(q.Token, &rev)
	case q.JTI != "":
		rev.Revoked.Token = session.FingerprintOf(q.JTI)
	case q.Hash != "":
		rev.Revoked.Token, err = session.FingerprintOfHash(q.Hash)
	case q.Fingerprint != "":
		if rev.Revoked.Token, err = strconv.ParseUint(q.Fingerprint, 16, 64); err != nil || len(q.Fingerprint) != 16 {
			err = errors.New("fingerprint must be 16 hex characters")
		}
	}
	return rev, err
}

// nameToken names a whole token by its jti, else by its hash; the entry ends
// with the token.
func (e *edge) nameToken(token string, rev *session.Revocation) error {
	for _, v := range []*session.Verifier{e.env.users, e.env.admins} {
		if v == nil {
			continue
		}
		claims, err := v.Ring().Open(token)
		if err != nil {
			continue
		}
		id := claims.TokenID(token)
		if rev.Revoked.Token = id.JTI; id.JTI == 0 {
			rev.Revoked.Token = id.Hash
		}
		if rev.Until.IsZero() || claims.ExpiresAt.Before(rev.Until) {
			rev.Until = claims.ExpiresAt.Add(time.Second) // entries have whole seconds
		}
		return nil
	}
	return errors.New("no token of a key that is here: name it by its jti or hash")
}

// covers says whether a scoped operator may change the revocation.
func (o operator) covers(r session.Revoked) bool {
	switch {
	case o.grants.Unscoped():
		return true
	case r.Kind == session.RevokedCompany, r.Kind == session.RevokedUser && r.Agent == "":
		return o.grants.SeesAll(r.Company)
	case r.Kind == session.RevokedUser:
		return o.grants.Sees(r.Company, r.Agent)
	}
	return false // a token, a key, an admin: they may be anybody's
}

// maxScoped is how many revocations of one company operators with a scope may
// have standing: there is room for so many in all, and it is everybody's.
const maxScoped = session.MaxRevocations / 10

// hasRoom says whether the operator may add r to what stands.
func (o operator) hasRoom(set *session.Revocations, r session.Revoked) bool {
	if o.grants.Unscoped() || set == nil {
		return true
	}
	_, there := set.Find(r)
	return there || set.CountOf(r.Company) < maxScoped
}

// change reads a body and holds it against the operator's scope.
func (e *edge) change(w http.ResponseWriter, r *http.Request, who operator) (*edgeCore, session.Revocation, bool) {
	core := e.started(w)
	if core == nil {
		return nil, session.Revocation{}, false
	}
	rev, ok := e.readRevocation(w, r)
	if !ok {
		return nil, rev, false
	}
	rev.By = who.by
	text, _ := json.Marshal(viewOf(rev)) // can't fail
	target(w, string(text))
	if !who.covers(rev.Revoked) {
		refusal(session.ReasonDenied, "out of the token's scope").write(w)
		return nil, rev, false
	}
	return core, rev, true
}

func (e *edge) revoke(w http.ResponseWriter, r *http.Request, who operator) {
	core, rev, ok := e.change(w, r, who)
	if !ok {
		return
	}
	if !rev.Until.IsZero() && !time.Now().Before(rev.Until) {
		faultOf(session.ReasonBadRequest, "it has run out already").write(w)
		return
	}
	if !who.hasRoom(core.manager.Revocations(), rev.Revoked) {
		noRoom(fmt.Sprintf("%d revocations of this company stand already: lift some, or wait for those with an end", maxScoped)).write(w)
		return
	}
	closed, err := core.revoker.Revoke(r.Context(), rev)
	if err != nil {
		e.revokeFailed(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"revoked": viewOf(rev), "closed_here": closed})
}

func (e *edge) lift(w http.ResponseWriter, r *http.Request, who operator) {
	core, rev, ok := e.change(w, r, who)
	if !ok {
		return
	}
	lifted, err := core.revoker.Lift(r.Context(), rev.Revoked)
	switch {
	case err != nil:
		e.revokeFailed(w, err)
	case !lifted:
		faultNotFound.with("no such revocation").write(w)
	default:
		writeJSON(w, http.StatusOK, map[string]any{"lifted": true})
	}
}

func noRoom(details string) fault {
	return fault{Status: http.StatusInsufficientStorage, Code: "Full", Message: "No room", Details: details}
}

func (e *edge) revokeFailed(w http.ResponseWriter, err error) {
	if errors.Is(err, redisx.ErrFull) {
		noRoom(err.Error()).write(w)
		return
	}
	f := faultOf(session.ReasonOverloaded, "Redis did not confirm it: ask again")
	f.Retry = retryAfter()
	f.write(w)
}

// listRevocations gives those in force on this pod, the newest first; ?kind=
// and ?company= filter, ?skip= pages.
func (e *edge) listRevocations(w http.ResponseWriter, r *http.Request, who operator) {
	core := e.started(w)
	if core == nil {
		return
	}
	q, limit, f := pageOf(r)
	skip, err := strconv.Atoi(strings.TrimSpace("0" + q.Get("skip")))
	if f == nil && err != nil {
		f = refusal(session.ReasonBadRequest, "skip must be a number")
	}
	if f != nil {
		f.write(w)
		return
	}
	list, more, version := []revocationView{}, false, uint64(0)
	if set := core.manager.Revocations(); set != nil {
		version = set.Version
		for _, rev := range set.List() {
			if !match(q.Get("kind"), string(rev.Kind)) || !match(q.Get("company"), rev.Company) || !who.covers(rev.Revoked) {
				continue
			}
			if skip--; skip >= 0 {
				continue
			}
			if more = len(list) == limit; more {
				break
			}
			list = append(list, viewOf(rev))
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"revocations": list, "more": more, "version": strconv.FormatUint(version, 10)})
}
