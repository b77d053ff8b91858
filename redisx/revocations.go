package redisx

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/daisi/daisi-ws/session"
)

// ErrFull says that session.MaxRevocations stand already.
var ErrFull = fmt.Errorf("%d revocations stand already: lift some, or wait for those with an end", session.MaxRevocations)

// markField is the field of the set's own mark; no entry's name begins so.
const markField = "#"

// changesACall bounds the changes of one script.
const changesACall = 1000

// Revocations reads the whole set. known is the last one this pod had, nil for
// none: what is missing of it though nobody lifted it, because Redis lost its
// keys or its latest writes, is written again first; and so is what operators
// had this pod do lately. One call at a time.
func (c *Client) Revocations(ctx context.Context, known *session.Revocations) (*session.Revocations, error) {
	got, err := c.readRevocations(ctx)
	if err != nil || known == nil {
		return got, err
	}
	lost := got.Mark != known.Mark || got.Version < known.Version
	var changes []change
	if now := time.Now(); lost {
		for _, r := range known.List() {
			if !runOut(r, now) {
				changes = append(changes, change{'A', r})
			}
		}
	}
	changes = append(changes, c.deeds.missing(got, lost, sinceBoot())...)
	if len(changes) == 0 {
		return got, nil
	}
	c.opt.Log.Warn().Int("entries", len(changes)).Msg("Redis lost revocations, or lifts of some: written again")
	for len(changes) > 0 {
		part := changes[:min(len(changes), changesACall)]
		changes = changes[len(part):]
		if _, _, err := c.change(ctx, known.Version, part); err != nil {
			return nil, err
		}
	}
	if got, err = c.readRevocations(ctx); err == nil {
		c.deeds.settle(got)
	}
	return got, err
}

func runOut(r session.Revocation, now time.Time) bool {
	return !r.Until.IsZero() && !now.Before(r.Until)
}

func (c *Client) readRevocations(ctx context.Context) (*session.Revocations, error) {
	reply, err := c.plain(ctx, c.scripts.revoked, []string{revKey, revVersionKey})
	if err != nil {
		return nil, fmt.Errorf("read revocations: %w", err)
	}
	first, rest, _ := strings.Cut(reply, "\n")
	version, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read version of revocations %q: %w", first, err)
	}
	mark := ""
	var list []session.Revocation
	for line := range strings.SplitSeq(rest, "\n") {
		field, value, ok := strings.Cut(line, " ")
		switch {
		case !ok: // an empty set
		case field == markField:
			mark = strings.Clone(value)
		default:
			r, err := parseRevocation(field, value)
			if err != nil {
				// It may be one of a newer version of us: not to know it is to let in
				// whom it names, so nobody is let in.
				return nil, fmt.Errorf("read revocation %q: %w", field, err)
			}
			list = append(list, r)
		}
	}
	return session.NewRevocations(version, mark, list), nil
}

// Revoke adds r to the set, and drops the run-out entries given. ErrFull:
// nothing was done.
func (c *Client) Revoke(ctx context.Context, r session.Revocation, over []session.Revocation) error {
	if err := r.Check(); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	changes := make([]change, 0, len(over)+1)
	for _, o := range over[:min(len(over), changesACall)] {
		changes = append(changes, change{'P', o})
	}
	if len(changes) > 0 { // first, for there may be no room before
		if _, _, err := c.change(ctx, 0, changes); err != nil {
			return err
		}
	}
	if _, _, err := c.change(ctx, 0, []change{{'R', r}}); err != nil {
		return err
	}
	c.deeds.add(deed{r: r}, sinceBoot())
	return nil
}

// Lift takes a revocation back; false: there was none. At, when not zero, is
// that of the one in force here: it is lifted though Redis has lost it.
func (c *Client) Lift(ctx context.Context, r session.Revocation) (bool, error) {
	if err := r.Check(); err != nil {
		return false, fmt.Errorf("lift: %w", err)
	}
	n, date, err := c.change(ctx, 0, []change{{'L', r}})
	if err != nil || n == 0 {
		return false, err
	}
	r.At = time.UnixMilli(date)
	c.deeds.add(deed{r: r, lifted: true}, sinceBoot())
	return true, nil
}

type change struct {
	op byte
	r  session.Revocation
}

// change says how much changed, and the date of what was lifted, in milliseconds.
func (c *Client) change(ctx context.Context, floor uint64, changes []change) (n int, date int64, err error) {
	args := make([]any, 0, 3+3*len(changes))
	args = append(args, rand.Text(), session.MaxRevocations, floor)
	for _, ch := range changes {
		field, value := formatRevocation(ch.r)
		args = append(args, string(ch.op), field, value)
	}
	reply, err := c.plain(ctx, c.scripts.revoke, []string{revKey, revVersionKey, revLiftedKey}, args...)
	if err != nil {
		return 0, 0, fmt.Errorf("change revocations: %w", err)
	}
	if reply == "F" {
		return 0, 0, ErrFull
	}
	if _, err := fmt.Sscanf(reply, "%d %d", &n, &date); err != nil {
		return 0, 0, fmt.Errorf("change revocations: read answer %q: %w", reply, err)
	}
	return n, date, nil
}

// formatRevocation writes an entry: a field that is injective in what it names,
// and "1 AT UNTIL BY", 1 being the version of this format, AT in milliseconds,
// UNTIL in seconds, 0 for none.
func formatRevocation(r session.Revocation) (field, value string) {
	b := append([]byte(r.Kind), ':')
	switch r.Kind {
	case session.RevokedToken:
		b = append(b, fmt.Sprintf("%016x", r.Token)...)
	case session.RevokedUser:
		b = appendEscaped(b, r.Company)
		b = appendEscaped(append(b, ':'), r.Agent)
		b = appendEscaped(append(b, ':'), r.User)
	case session.RevokedCompany:
		b = appendEscaped(b, r.Company)
	case session.RevokedAdmin:
		b = appendEscaped(b, r.User)
	case session.RevokedKID:
		b = append(append(append(b, r.Purpose...), ':'), r.KID...)
	}
	until := int64(0)
	if !r.Until.IsZero() {
		until = r.Until.Unix()
	}
	return string(b), fmt.Sprintf("1 %d %d %s", r.At.UnixMilli(), until, escape(r.By))
}

var errEntry = errors.New("not of a format known here")

func parseRevocation(field, value string) (r session.Revocation, err error) {
	kind, rest, _ := strings.Cut(field, ":")
	parts := strings.Split(rest, ":")
	for i := range parts {
		parts[i] = strings.Clone(unescape(parts[i]))
	}
	r.Kind = session.RevokedKind(strings.Clone(kind))
	switch n := len(parts); {
	case r.Kind == session.RevokedToken && n == 1:
		r.Token, err = strconv.ParseUint(parts[0], 16, 64)
	case r.Kind == session.RevokedUser && n == 3:
		r.Company, r.Agent, r.User = parts[0], parts[1], parts[2]
	case r.Kind == session.RevokedCompany && n == 1:
		r.Company = parts[0]
	case r.Kind == session.RevokedAdmin && n == 1:
		r.User = parts[0]
	case r.Kind == session.RevokedKID && n == 2:
		r.Purpose, r.KID = session.Purpose(parts[0]), parts[1]
	default:
		err = errEntry
	}
	words := strings.SplitN(value, " ", 4)
	if err != nil || len(words) != 4 || words[0] != "1" || r.Check() != nil {
		return r, errEntry
	}
	at, err1 := strconv.ParseInt(words[1], 10, 64)
	until, err2 := strconv.ParseInt(words[2], 10, 64)
	if err1 != nil || err2 != nil {
		return r, errEntry
	}
	r.At, r.By = time.UnixMilli(at), strings.Clone(unescape(words[3]))
	if until > 0 {
		r.Until = time.Unix(until, 0)
	}
	return r, nil
}
